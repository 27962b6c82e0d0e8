//! The primary GUID partition table (UEFI Specification, section 5.3), read with bounds.
//!
//! Both checksums are checked: firmware that finds them wrong would use the backup table, and the
//! prediction would be of another boot.

use std::{fs::File, io, os::unix::fs::FileExt};

use attest::predict::PartitionTable;
use thiserror::Error;

/// Sector size of every disk that the platform offers to a guest.
const SECTOR: u64 = 512;
/// Size of the header that is measured and checked.
const HEADER: usize = 92;
/// Most entries of a table, and the largest entry.
const MAX_ENTRIES: u32 = 1024;
const MAX_ENTRY: u32 = 1024;
/// Type of an EFI system partition, c12a7328-f81f-11d2-ba4b-00a0c93ec93b, in disk order.
const SYSTEM_PARTITION: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

/// Why a partition table is not sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GptError {
    /// No `EFI PART` at sector 1.
    #[error("there is no GPT header")]
    NoHeader,
    /// The header is not 92 bytes long or stands at another sector than it says.
    #[error("the GPT header has an unusual size or place")]
    Header,
    /// The header's checksum is wrong.
    #[error("the GPT header's checksum is wrong")]
    HeaderChecksum,
    /// More than 1024 entries, or entries outside 128 to 1024 bytes.
    #[error("the table has too many or too large entries")]
    Entries,
    /// The entries' checksum is wrong.
    #[error("the partition entries' checksum is wrong")]
    EntriesChecksum,
    /// The table or a partition lies outside the disk.
    #[error("the table or a partition lies outside the disk")]
    OutOfBounds,
}

/// Why a table could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    Gpt(GptError),
}

impl From<GptError> for ReadError {
    fn from(error: GptError) -> Self {
        Self::Gpt(error)
    }
}

/// A sound table.
#[derive(Debug)]
pub(super) struct Gpt {
    pub(super) table: PartitionTable,
    /// Offset and length in bytes of the first EFI system partition.
    pub(super) system_partition: Option<(u64, u64)>,
}

/// Reads the table of a disk of `size` bytes.
pub(super) fn read(file: &mut File, size: u64) -> Result<Gpt, ReadError> {
    if size < 3 * SECTOR {
        return Err(GptError::NoHeader.into());
    }
    let mut header = vec![0; HEADER];
    file.read_exact_at(&mut header, SECTOR).map_err(ReadError::Io)?;
    let place = place_of_entries(&header, size)?;
    let mut entries = vec![0; place.bytes];
    file.read_exact_at(&mut entries, place.start).map_err(ReadError::Io)?;
    if crc32fast::hash(&entries) != place.checksum {
        return Err(GptError::EntriesChecksum.into());
    }
    let used: Vec<Vec<u8>> = entries
        .chunks_exact(place.entry)
        .filter(|entry| entry.iter().take(16).any(|&byte| byte != 0))
        .map(<[u8]>::to_vec)
        .collect();
    let mut system_partition = None;
    for entry in &used {
        let extent = extent(entry, size)?;
        if entry.starts_with(&SYSTEM_PARTITION) && system_partition.is_none() {
            system_partition = Some(extent);
        }
    }
    Ok(Gpt { table: PartitionTable { header, entries: used }, system_partition })
}

/// Where the entries are.
struct Place {
    start: u64,
    bytes: usize,
    entry: usize,
    checksum: u32,
}

/// Checks the header and says where the entries are.
fn place_of_entries(header: &[u8], size: u64) -> Result<Place, GptError> {
    if !header.starts_with(b"EFI PART") {
        return Err(GptError::NoHeader);
    }
    let word = |at| u32_at(header, at).ok_or(GptError::Header);
    if word(12)? != 92 || u64_at(header, 24) != Some(1) {
        return Err(GptError::Header);
    }
    let mut cleared = header.to_vec();
    cleared.get_mut(16..20).unwrap_or_default().fill(0);
    if crc32fast::hash(&cleared) != word(16)? {
        return Err(GptError::HeaderChecksum);
    }
    let (count, entry) = (word(80)?, word(84)?);
    if count == 0 || count > MAX_ENTRIES || !(128..=MAX_ENTRY).contains(&entry) {
        return Err(GptError::Entries);
    }
    let start = u64_at(header, 72).and_then(|lba| lba.checked_mul(SECTOR));
    let start = start.ok_or(GptError::OutOfBounds)?;
    let bytes = u64::from(count) * u64::from(entry);
    if start.checked_add(bytes).is_none_or(|end| end > size) {
        return Err(GptError::OutOfBounds);
    }
    let bounds = |_| GptError::OutOfBounds;
    Ok(Place {
        start,
        bytes: usize::try_from(bytes).map_err(bounds)?,
        entry: usize::try_from(entry).map_err(bounds)?,
        checksum: word(88)?,
    })
}

/// Offset and length in bytes of a partition.
fn extent(entry: &[u8], size: u64) -> Result<(u64, u64), GptError> {
    let bounds = GptError::OutOfBounds;
    let first = u64_at(entry, 32).ok_or(bounds)?;
    let last = u64_at(entry, 40).ok_or(bounds)?;
    let start = first.checked_mul(SECTOR).ok_or(bounds)?;
    let end = last.checked_add(1).and_then(|end| end.checked_mul(SECTOR)).ok_or(bounds)?;
    let len = end.checked_sub(start).ok_or(bounds)?;
    if end > size { Err(bounds) } else { Ok((start, len)) }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}
