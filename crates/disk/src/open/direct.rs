//! I/O past the page cache (`O_DIRECT`). The kernel wants aligned memory, so data go through
//! aligned buffers, which are pooled.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustix::fs::OFlags;

/// Alignment of offsets, lengths and memory that every medium of today accepts.
const ALIGN: usize = 4096;
/// Buffers that are kept.
const POOL: usize = 16;
/// Larger buffers are not kept.
const KEEP_BYTES: usize = 2 << 20;

/// A second descriptor of the medium, past the page cache.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    pool: Mutex<Vec<Vec<u8>>>,
}

impl Direct {
    pub(super) fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        let file = File::options().read(true).write(!read_only).custom_flags(flags).open(path)?;
        Ok(Self { file, pool: Mutex::new(Vec::new()) })
    }

    /// Whether a request can go past the page cache.
    pub(super) fn suits(at: u64, length: usize) -> bool {
        length > 0 && length.is_multiple_of(ALIGN) && at.is_multiple_of(ALIGN as u64)
    }

    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.aligned(buf.len(), |aligned| {
            self.file.read_exact_at(aligned, at)?;
            buf.copy_from_slice(aligned);
            Ok(())
        })
    }

    pub(super) fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        self.aligned(data.len(), |aligned| {
            aligned.copy_from_slice(data);
            self.file.write_all_at(aligned, at)
        })
    }

    /// Runs `work` on `length` aligned bytes. They hold ciphertext, or what a raw volume holds.
    fn aligned(
        &self,
        length: usize,
        work: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = self.pool().pop().unwrap_or_default();
        let whole = length.saturating_add(ALIGN);
        if buffer.len() < whole {
            buffer.resize(whole, 0);
        }
        let skip = buffer.as_ptr().align_offset(ALIGN);
        let place = buffer.get_mut(skip..skip.saturating_add(length));
        let done = place.ok_or_else(|| io::ErrorKind::OutOfMemory.into()).and_then(work);
        let mut pool = self.pool();
        if pool.len() < POOL && buffer.len() <= KEEP_BYTES {
            pool.push(buffer);
        }
        done
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
