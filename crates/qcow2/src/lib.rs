//! A reader of qcow2 images, versions 2 and 3 (QEMU's `docs/interop/qcow2.txt`), for conversion: from
//! start to end, run by run.
//!
//! ```text
//!   guest offset -> L1 entry -> L2 table -> L2 entry -> hole | zeros | cluster | deflated cluster
//! ```
//!
//! **Invariants.** Reads one file and no other: an image with a backing file or an external data
//! file is refused by name, for its names would be opened with our rights. Every offset is checked
//! against the file, every table against a limit, before it is read.
//!
//! Deliberately absent: writing, encryption, extended L2 entries, zstd, internal snapshots (only the
//! present state is read).

#![forbid(unsafe_code)]

use std::{fs::File, io, os::unix::fs::FileExt as _};

use miniz_oxide::inflate::decompress_slice_iter_to_slice;
use thiserror::Error;

/// What every image begins with.
pub const MAGIC: &[u8] = b"QFI\xfb";

const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
/// As QEMU: an L1 table has at most 32 MiB.
const L1_MAX: u64 = (32 << 20) / 8;
const SIZE_MAX: u64 = 8 << 40;

/// Why an image is not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// Its content lies partly in another file.
    #[error("the image has a backing file")]
    BackingFile,
    /// It says of itself that it is damaged.
    #[error("the image is marked as corrupt")]
    Corrupt,
    /// It is encrypted.
    #[error("the image is encrypted by qcow2")]
    Encrypted,
    /// Its content lies in another file.
    #[error("the image has an external data file")]
    ExternalData,
    /// Its tables make no sense.
    #[error("the image is malformed: {0}")]
    Malformed(&'static str),
    /// A feature that is not read here.
    #[error("the image uses {0}")]
    Unsupported(&'static str),
}

impl Rejection {
    /// The refusal's name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BackingFile => "qcow2-backing-file",
            Self::Corrupt => "qcow2-corrupt",
            Self::Encrypted => "qcow2-encrypted",
            Self::ExternalData => "qcow2-external-data-file",
            Self::Malformed(_) => "qcow2-malformed",
            Self::Unsupported(_) => "qcow2-unsupported",
        }
    }
}

/// Why a read of an image failed.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A rule said no.
    #[error(transparent)]
    Refused(#[from] Rejection),
    /// The system said no.
    #[error("cannot read the image")]
    Io(#[from] io::Error),
}

/// An opened image.
#[derive(Debug)]
pub struct Qcow2 {
    file: File,
    length: u64,
    size: u64,
    cluster_bits: u32,
    l1: Vec<u64>,
    /// The L2 table that was read last, by its offset.
    l2: Option<(u64, Vec<u64>)>,
}

/// A run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its length, bytes.
    pub length: u64,
    /// Nothing is written there: it reads as zeros.
    pub zero: bool,
}

/// Where a cluster's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Zeros,
    At(u64),
    Deflated { at: u64, length: usize },
}

/// The fields of the header that matter.
#[derive(Debug)]
struct Header {
    cluster_bits: u32,
    size: u64,
    l1_size: u64,
    l1_at: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

impl Header {
    /// Parses the first 112 bytes.
    fn parse(bytes: &[u8; 112]) -> Result<Self, Rejection> {
        let version = u32_at(bytes, 4);
        if !bytes.starts_with(MAGIC) || !matches!(version, 2 | 3) {
            return Err(Rejection::Unsupported("another version than 2 or 3"));
        }
        if u64_at(bytes, 8) != 0 {
            return Err(Rejection::BackingFile);
        }
        if u32_at(bytes, 32) != 0 {
            return Err(Rejection::Encrypted);
        }
        if version == 3 {
            features(bytes)?;
        }
        let cluster_bits = u32_at(bytes, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(Rejection::Malformed("cluster size"));
        }
        let size = u64_at(bytes, 24);
        let l1_size = u64::from(u32_at(bytes, 36));
        // One L1 entry covers a cluster of L2 entries, 8 bytes each.
        let covered = 1_u64 << (2 * cluster_bits - 3);
        if size == 0 || size > SIZE_MAX {
            return Err(Rejection::Malformed("size"));
        }
        if l1_size > L1_MAX || l1_size < size.div_ceil(covered) {
            return Err(Rejection::Malformed("L1 table"));
        }
        Ok(Self { cluster_bits, size, l1_size, l1_at: u64_at(bytes, 40) })
    }
}

/// The incompatible features of version 3.
fn features(bytes: &[u8; 112]) -> Result<(), Rejection> {
    const CORRUPT: u64 = 1 << 1;
    const EXTERNAL: u64 = 1 << 2;
    const COMPRESSION: u64 = 1 << 3;
    const EXTENDED: u64 = 1 << 4;
    let incompatible = u64_at(bytes, 72);
    let says = |bit| incompatible & bit != 0;
    if says(EXTERNAL) {
        return Err(Rejection::ExternalData);
    }
    if says(CORRUPT) {
        return Err(Rejection::Corrupt);
    }
    if says(EXTENDED) {
        return Err(Rejection::Unsupported("extended L2 entries"));
    }
    if says(COMPRESSION) && bytes.get(104) != Some(&0) {
        return Err(Rejection::Unsupported("zstd"));
    }
    if incompatible >> 5 != 0 {
        return Err(Rejection::Unsupported("unknown features"));
    }
    Ok(())
}

impl Qcow2 {
    /// The image in `file`.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn open(file: File) -> Result<Self, ImageError> {
        let length = file.metadata()?.len();
        let mut start = [0; 112];
        let there = start.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        if there < 72 {
            return Err(Rejection::Malformed("header").into());
        }
        file.read_exact_at(start.get_mut(..there).unwrap_or_default(), 0)?;
        let header = Header::parse(&start)?;
        let cluster_bits = header.cluster_bits;
        let l1 = table(&file, length, header.l1_at, header.l1_size)?;
        Ok(Self { file, length, size: header.size, cluster_bits, l1, l2: None })
    }

    /// The size of the disk in it, bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What lies at `offset`, which is below the size: one run, at most `max` bytes long.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn run(&mut self, offset: u64, max: u64) -> Result<Run, ImageError> {
        let cluster = self.cluster();
        let end = offset.saturating_add(max).min(self.size);
        let zero = self.place(offset)? == Place::Zeros;
        let mut at = offset;
        while at < end && (self.place(at)? == Place::Zeros) == zero {
            at = (at - at % cluster).saturating_add(cluster).min(end);
        }
        Ok(Run { length: at.saturating_sub(offset), zero })
    }

    /// Reads; the range lies within the size.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), ImageError> {
        let cluster = self.cluster();
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let room = usize::try_from(cluster - at % cluster).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(room.min(rest.len()));
            self.read_in_cluster(at, now)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    const fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Where the cluster of this guest offset is.
    fn place(&mut self, offset: u64) -> Result<Place, ImageError> {
        let per_table = self.cluster() / 8;
        let number = offset >> self.cluster_bits;
        let l1_index = usize::try_from(number / per_table).unwrap_or(usize::MAX);
        let l1_entry = self.l1.get(l1_index).copied().ok_or(Rejection::Malformed("L1 table"))?;
        let l2_at = l1_entry & OFFSET_MASK;
        if l2_at == 0 {
            return Ok(Place::Zeros);
        }
        if self.l2.as_ref().is_none_or(|(at, _)| *at != l2_at) {
            self.l2 = Some((l2_at, table(&self.file, self.length, l2_at, per_table)?));
        }
        let index = usize::try_from(number % per_table).unwrap_or(usize::MAX);
        let entry = self.l2.as_ref().and_then(|(_, entries)| entries.get(index)).copied();
        self.decode(entry.unwrap_or(0))
    }

    fn decode(&self, entry: u64) -> Result<Place, ImageError> {
        if entry & COMPRESSED != 0 {
            let bits = 62 - (self.cluster_bits - 8);
            let at = entry & ((1 << bits) - 1);
            let sectors = (entry & (COMPRESSED - 1)) >> bits;
            let length = (sectors + 1) * 512 - (at & 511);
            if at >= self.length {
                return Err(Rejection::Malformed("a compressed cluster behind the end").into());
            }
            let length = usize::try_from(length.min(self.length - at)).unwrap_or(usize::MAX);
            return Ok(Place::Deflated { at, length });
        }
        let at = entry & OFFSET_MASK;
        if entry & ZERO != 0 || at == 0 {
            return Ok(Place::Zeros);
        }
        if !at.is_multiple_of(self.cluster()) || at >= self.length {
            return Err(Rejection::Malformed("a cluster behind the end").into());
        }
        Ok(Place::At(at))
    }

    fn inflate(
        &self,
        at: u64,
        length: usize,
        within: usize,
        out: &mut [u8],
    ) -> Result<(), ImageError> {
        let mut packed = vec![0; length];
        self.file.read_exact_at(&mut packed, at)?;
        let mut cluster = vec![0; usize::try_from(self.cluster()).unwrap_or_default()];
        // The stream may end before the sectors do, and QEMU's never has a zlib header.
        let made = decompress_slice_iter_to_slice(
            &mut cluster,
            std::iter::once(packed.as_slice()),
            false,
            true,
        );
        let whole = matches!(made, Ok(n) if n == cluster.len());
        let part = cluster.get(within..within + out.len()).filter(|_| whole);
        out.copy_from_slice(part.ok_or(Rejection::Malformed("a compressed cluster"))?);
        Ok(())
    }

    /// Reads within one cluster.
    fn read_in_cluster(&mut self, offset: u64, out: &mut [u8]) -> Result<(), ImageError> {
        let within = offset % self.cluster();
        match self.place(offset)? {
            Place::Zeros => out.fill(0),
            Place::Deflated { at, length } => {
                self.inflate(at, length, usize::try_from(within).unwrap_or(0), out)?;
            }
            Place::At(at) => {
                let from = at + within;
                // The last cluster of a file may be cut short: what is not there is zeros.
                let there = self.length.saturating_sub(from).min(out.len() as u64);
                let (data, rest) = out.split_at_mut(usize::try_from(there).unwrap_or(0));
                self.file.read_exact_at(data, from)?;
                rest.fill(0);
            }
        }
        Ok(())
    }
}

/// A table of big-endian numbers.
fn table(file: &File, length: u64, at: u64, entries: u64) -> Result<Vec<u64>, ImageError> {
    let bytes = entries * 8;
    if !at.is_multiple_of(512) || at.checked_add(bytes).is_none_or(|end| end > length) {
        return Err(Rejection::Malformed("a table behind the end").into());
    }
    let mut raw = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut raw, at)?;
    Ok(raw.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

#[cfg(test)]
mod tests;
