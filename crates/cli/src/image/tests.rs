//! Images made here sector by sector, and the built guest image when there is one.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{GptError, ImageError, read};

const SECTOR: usize = 512;

/// A disk of 64 sectors with a table of 4 entries, the first of them `entry`.
fn disk(entry: &[u8; 128]) -> Vec<u8> {
    let mut disk = vec![0; 64 * SECTOR];
    disk[2 * SECTOR..2 * SECTOR + 128].copy_from_slice(entry);
    let header = &mut disk[SECTOR..SECTOR + 92];
    header[..8].copy_from_slice(b"EFI PART");
    header[12] = 92;
    header[24] = 1;
    header[72] = 2;
    header[80] = 4;
    header[84] = 128;
    seal(&mut disk);
    disk
}

/// Sets both checksums.
fn seal(disk: &mut [u8]) {
    let entries = crc32fast::hash(&disk[2 * SECTOR..2 * SECTOR + 512]);
    disk[SECTOR + 88..SECTOR + 92].copy_from_slice(&entries.to_le_bytes());
    disk[SECTOR + 16..SECTOR + 20].fill(0);
    let header = crc32fast::hash(&disk[SECTOR..SECTOR + 92]);
    disk[SECTOR + 16..SECTOR + 20].copy_from_slice(&header.to_le_bytes());
}

/// An entry of an EFI system partition over these sectors.
fn system_partition(first: u64, last: u64) -> [u8; 128] {
    let mut entry = [0; 128];
    entry[..16].copy_from_slice(&[
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9,
        0x3b,
    ]);
    entry[32..40].copy_from_slice(&first.to_le_bytes());
    entry[40..48].copy_from_slice(&last.to_le_bytes());
    entry
}

fn refused(disk: &[u8]) -> ImageError {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("disk.img");
    fs::write(&path, disk).unwrap();
    read(&path).unwrap_err()
}

fn table_error(disk: &[u8]) -> GptError {
    let refused = refused(disk);
    let ImageError::Table(error) = refused else { panic!("{refused:?}") };
    error
}

#[test]
fn a_table_that_is_not_sound_is_refused_by_name() {
    let good = disk(&system_partition(8, 60));
    let with = |at: usize, byte: u8, sealed: bool| {
        let mut disk = good.clone();
        disk[SECTOR + at] = byte;
        if sealed {
            seal(&mut disk);
        }
        table_error(&disk)
    };
    assert_eq!(table_error(&[0; 100]), GptError::NoHeader);
    assert_eq!(with(0, b'X', true), GptError::NoHeader);
    assert_eq!(with(12, 96, true), GptError::Header);
    assert_eq!(with(24, 2, true), GptError::Header);
    assert_eq!(with(40, 1, false), GptError::HeaderChecksum);
    assert_eq!(with(82, 1, true), GptError::Entries, "65540 entries");
    assert_eq!(with(84, 64, true), GptError::Entries);
    assert_eq!(with(72, 200, true), GptError::OutOfBounds);
    assert_eq!(with(79, 0xff, true), GptError::OutOfBounds);
    let mut changed = good.clone();
    changed[2 * SECTOR + 60] = 1;
    assert_eq!(table_error(&changed), GptError::EntriesChecksum);
    for (first, last) in [(8, 64), (8, u64::MAX), (u64::MAX, u64::MAX), (20, 8)] {
        assert_eq!(table_error(&disk(&system_partition(first, last))), GptError::OutOfBounds);
    }
}

#[test]
fn an_image_without_a_boot_file_is_refused_by_name() {
    let mut other = system_partition(8, 60);
    other[0] = 1;
    assert!(matches!(refused(&disk(&other)), ImageError::NoSystemPartition));
    let empty = disk(&system_partition(8, 60));
    assert!(matches!(refused(&empty), ImageError::FileSystem(_)));
    let missing = read(&PathBuf::from("/nonexistent/disk.img"));
    assert!(matches!(missing, Err(ImageError::Read(_))));
}

#[test]
fn the_guest_image_gives_its_unified_kernel_image_and_two_partitions() {
    let built =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/guest-image/guest.img");
    if !built.exists() {
        println!("skipped: no guest image (make guest-image)");
        return;
    }
    let image = read(&built).unwrap();
    assert_eq!(image.size, fs::metadata(&built).unwrap().len());
    assert!(image.uki.starts_with(b"MZ"));
    assert!(image.uki.len() > 10 << 20);
    assert_eq!(image.table.header.len(), 92);
    assert_eq!(image.table.entries.len(), 2);
}
