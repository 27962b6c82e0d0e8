//! What a vault volume lies on. The engine reads, writes and synchronises through [`Medium`] only,
//! so that a test may cut the power or fail a write at any call.

use std::{fmt::Debug, io};

use crate::open::Medium as FileMedium;

/// Bytes that can be read and written at any offset. Methods may be called from several threads.
pub trait Medium: Send + Sync + Debug {
    /// Fills `buf` from `at`.
    ///
    /// # Errors
    /// `UnexpectedEof` past the end, or the medium's error.
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `at`; grows the medium where needed.
    ///
    /// # Errors
    /// The medium's error; the range may then be partly written.
    fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()>;

    /// Makes every write that completed before this call durable.
    ///
    /// # Errors
    /// The medium's error. What was not durable before may be lost then.
    fn sync(&self) -> io::Result<()>;

    /// Gives the range back, if the medium has holes; it may read as anything until it is written.
    ///
    /// # Errors
    /// The medium's error.
    fn punch(&self, at: u64, length: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// The medium's error.
    fn length(&self) -> io::Result<u64>;

    /// Several reads and writes at a time are faster than one after the other.
    fn waits(&self) -> bool {
        false
    }

    /// Hints that the range will be read soon.
    ///
    /// # Errors
    /// The medium's error.
    fn prefetch(&self, at: u64, length: u64) -> io::Result<()> {
        let _ = (at, length);
        Ok(())
    }
}

impl Medium for FileMedium {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read(at, buf)
    }

    fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()> {
        self.write(at, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.flush()
    }

    fn punch(&self, at: u64, length: u64) -> io::Result<()> {
        Self::punch(self, at, length).map(|_| ())
    }

    fn length(&self) -> io::Result<u64> {
        // Not the metadata's length: a block device has none.
        io::Seek::seek(&mut self.file(), io::SeekFrom::End(0))
    }

    fn waits(&self) -> bool {
        Self::waits(self)
    }

    fn prefetch(&self, at: u64, length: u64) -> io::Result<()> {
        Self::prefetch(self, at, length)
    }
}
