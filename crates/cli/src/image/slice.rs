//! A read-only window of a file, in the shape that the FAT reader wants.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

/// `len` bytes of a file from `start` on. Reads end at the window's end; writes are refused.
#[derive(Debug)]
pub(super) struct FileSlice {
    file: File,
    start: u64,
    len: u64,
    position: u64,
}

impl FileSlice {
    /// A window of `file`. Its end must not be past `u64::MAX`.
    pub(super) const fn new(file: File, start: u64, len: u64) -> Self {
        Self { file, start, len, position: 0 }
    }
}

impl Read for FileSlice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let count = self.file.read_at(part, self.start.saturating_add(self.position))?;
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }
}

impl Seek for FileSlice {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl Write for FileSlice {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
