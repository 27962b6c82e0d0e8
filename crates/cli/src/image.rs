//! Disk images as the lab and `vm create` get them: a GPT disk whose EFI system partition holds
//! the unified kernel image. Reads what [`attest::predict`] needs and nothing else; the image is
//! never mounted, and everything in it is taken as hostile: sizes are checked before memory is.

mod gpt;
mod slice;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use attest::predict::PartitionTable;
use thiserror::Error;

pub use gpt::GptError;
use slice::FileSlice;

/// The file that the firmware boots (UEFI Specification, section 3.5.1.1).
const BOOT_FILE: &str = "EFI/BOOT/BOOTX64.EFI";
/// Largest unified kernel image that is read, 256 MiB.
const MAX_UKI: u64 = 256 << 20;

/// What a disk image holds for a prediction of its boot.
#[derive(Clone, Debug)]
pub struct BootImage {
    /// Size of the image in bytes.
    pub size: u64,
    /// The unified kernel image, `EFI/BOOT/BOOTX64.EFI` of the EFI system partition.
    pub uki: Vec<u8>,
    /// The partition table.
    pub table: PartitionTable,
}

/// Why an image is not one that can be booted with a prediction.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file cannot be read.
    #[error("cannot read the disk image")]
    Read(#[source] io::Error),
    /// The partition table is not a sound GPT.
    #[error("the disk image has no sound partition table")]
    Table(#[source] GptError),
    /// No partition is an EFI system partition.
    #[error("the disk image has no EFI system partition")]
    NoSystemPartition,
    /// The EFI system partition holds no FAT file system, or a damaged one.
    #[error("the EFI system partition holds no sound FAT file system")]
    FileSystem(#[source] io::Error),
    /// The EFI system partition has no `EFI/BOOT/BOOTX64.EFI`.
    #[error("the EFI system partition has no EFI/BOOT/BOOTX64.EFI")]
    NoBootFile(#[source] io::Error),
    /// `EFI/BOOT/BOOTX64.EFI` is larger than 256 MiB.
    #[error("EFI/BOOT/BOOTX64.EFI is larger than 256 MiB")]
    BootFileTooLarge,
}

/// Reads the boot file and the partition table out of the raw disk image at `path`.
///
/// # Errors
/// [`ImageError`] if the file is unreadable or not such an image.
pub fn read(path: &Path) -> Result<BootImage, ImageError> {
    let mut file = File::open(path).map_err(ImageError::Read)?;
    let size = file.metadata().map_err(ImageError::Read)?.len();
    let gpt = gpt::read(&mut file, size).map_err(|error| match error {
        gpt::ReadError::Io(error) => ImageError::Read(error),
        gpt::ReadError::Gpt(error) => ImageError::Table(error),
    })?;
    let (start, len) = gpt.system_partition.ok_or(ImageError::NoSystemPartition)?;
    let uki = boot_file(FileSlice::new(file, start, len))?;
    Ok(BootImage { size, uki, table: gpt.table })
}

/// The content of [`BOOT_FILE`] in the FAT file system of `partition`.
fn boot_file(partition: FileSlice) -> Result<Vec<u8>, ImageError> {
    let options = fatfs::FsOptions::new().update_accessed_date(false);
    let files = fatfs::FileSystem::new(partition, options).map_err(ImageError::FileSystem)?;
    let file = files.root_dir().open_file(BOOT_FILE).map_err(ImageError::NoBootFile)?;
    let mut uki = Vec::new();
    file.take(MAX_UKI + 1).read_to_end(&mut uki).map_err(ImageError::FileSystem)?;
    if uki.len() as u64 > MAX_UKI { Err(ImageError::BootFileTooLarge) } else { Ok(uki) }
}

#[cfg(test)]
mod tests;
