//! What an export needs of a volume. A format implements [`Volume`]; NBD and vhost-user call it.

use std::{fmt::Debug, io};

use model::Kmi;

/// A run of bytes of one kind of allocation, as `base:allocation` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, not 0.
    pub length: u64,
    /// Nothing is allocated for it.
    pub hole: bool,
    /// It reads as zeros.
    pub zero: bool,
}

/// Refuses a range that is not within a volume of `size` bytes.
pub(crate) fn check_range(offset: u64, length: u64, size: u64) -> io::Result<()> {
    let inside = offset.checked_add(length).is_some_and(|end| end <= size);
    if inside { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Lengths of the part of a range before its first sector boundary, and of its whole sectors; what
/// is left is part of the last one.
pub(crate) fn split(offset: u64, length: usize, sector: u64) -> (usize, usize) {
    let to_boundary = offset.next_multiple_of(sector).saturating_sub(offset);
    let head = usize::try_from(to_boundary).unwrap_or(usize::MAX).min(length);
    let rest = length.saturating_sub(head);
    let whole = usize::try_from(sector).map_or(0, |sector| rest - rest % sector.max(1));
    (head, whole)
}

/// A block device whose content leaves this trait only encrypted.
///
/// Offsets and lengths are in bytes of plaintext, of any alignment, and lie within [`size`]: the
/// export checks them, an implementation answers `InvalidInput` otherwise. Methods may be called
/// from several threads at once. A completed write is seen by every later read; writes of
/// overlapping ranges at the same time leave one of them, byte by byte, and a write never changes
/// bytes outside its range, even within one sector.
///
/// [`size`]: Volume::size
pub trait Volume: Send + Sync + Debug {
    /// Reads may wait for a medium, so several at a time are faster than one after the other.
    fn waits(&self) -> bool {
        false
    }

    /// The same of writes and clearings.
    fn writes_wait(&self) -> bool {
        self.waits()
    }

    /// Name of the format.
    fn format(&self) -> &'static str;

    /// Size of the export in bytes.
    fn size(&self) -> u64;

    /// Encryption sector in bytes: requests aligned to it are cheapest.
    fn sector_size(&self) -> u32;

    /// Writes are refused.
    fn read_only(&self) -> bool;

    /// Key-management information stored with the volume.
    fn kmi(&self) -> Option<&Kmi>;

    /// Which copy of the header was found damaged when the volume was opened, if any.
    fn header_damage(&self) -> Option<&str>;

    /// Fills `buf` with plaintext from `offset`.
    ///
    /// # Errors
    /// The error of the medium.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`. The content of `data` is unspecified afterwards: it is encrypted
    /// in place.
    ///
    /// # Errors
    /// The error of the medium; the range may then be partly written.
    fn write(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Makes the range read as zeros.
    ///
    /// # Errors
    /// As for [`write`](Volume::write).
    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Gives the range back to the medium where the format allows it; what it reads as afterwards
    /// is undefined.
    ///
    /// # Errors
    /// The error of the medium.
    fn trim(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Hints that the range will be read soon.
    ///
    /// # Errors
    /// The error of the medium.
    fn prefetch(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes durable every write that completed, on any thread, before this call.
    ///
    /// # Errors
    /// The error of the medium. Once a flush failed, every later one fails too: the kernel reports
    /// a lost write only once.
    fn flush(&self) -> io::Result<()>;

    /// Flushes, and leaves the medium in good order where the format has one; writes are refused
    /// afterwards then. For the end of an attachment, when no request is under way.
    ///
    /// # Errors
    /// As for [`flush`](Volume::flush).
    fn close(&self) -> io::Result<()> {
        self.flush()
    }

    /// A flush failed since the volume was opened.
    fn flush_failed(&self) -> bool;

    /// Allocation of the range from `offset`: at most `max` extents, not necessarily to its end.
    ///
    /// # Errors
    /// The error of the medium.
    fn extents(&self, offset: u64, length: u64, max: usize) -> io::Result<Vec<Extent>>;
}
