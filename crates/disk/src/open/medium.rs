//! The file or block device under a volume: its locks, its length, its I/O.
//!
//! **Invariant:** once a flush failed every later one fails: the kernel reports a lost write once.

use std::{
    fs::File,
    io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{
        Advice, FallocateFlags, FlockOperation, SeekFrom, fadvise, fallocate, fcntl_lock, flock,
        seek,
    },
    io::Errno,
};

use super::{OpenOptions, direct::Direct};
use crate::{Rejection, VolumeError, volume::check_range};

/// An open and locked medium. It holds the locks until it is dropped.
#[derive(Debug)]
pub(crate) struct Medium {
    file: File,
    direct: Option<Direct>,
    end: u64,
    read_only: bool,
    flush_failed: AtomicBool,
}

/// A run of the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Allocated up to this offset.
    Data { end: u64 },
    /// A hole up to this offset.
    Hole { end: u64 },
}

impl Medium {
    /// Opens `path` and takes its locks.
    pub(crate) fn open(path: &Path, options: &OpenOptions) -> Result<Self, VolumeError> {
        let mut file = File::options()
            .read(true)
            .write(!options.read_only)
            .open(path)
            .map_err(VolumeError::io("open the volume"))?;
        lock(&file, options.read_only)?;
        // Not the metadata's length: a block device has none.
        let end = io::Seek::seek(&mut file, io::SeekFrom::End(0))
            .map_err(VolumeError::io("measure the volume"))?;
        let direct = if options.direct {
            let direct = Direct::open(path, options.read_only);
            Some(direct.map_err(VolumeError::io("open the volume past the page cache"))?)
        } else {
            None
        };
        let flush_failed = AtomicBool::new(false);
        Ok(Self { file, direct, end, read_only: options.read_only, flush_failed })
    }

    /// A medium that is already open; no locks, for tests.
    #[cfg(test)]
    pub(crate) fn of(file: File, end: u64) -> Self {
        let flush_failed = AtomicBool::new(false);
        Self { file, direct: None, end, read_only: false, flush_failed }
    }

    /// For reading headers.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of it.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    pub(crate) const fn read_only(&self) -> bool {
        self.read_only
    }

    /// Refuses a change of a range that is not within a volume of `size` bytes, or any of a volume
    /// that is open read-only.
    pub(crate) fn check_write(&self, offset: u64, length: u64, size: u64) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        check_range(offset, length, size)
    }

    /// No page cache is between us and the medium.
    pub(crate) const fn waits(&self) -> bool {
        self.direct.is_some()
    }

    /// Fills `buf` from `at`.
    pub(crate) fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.direct {
            Some(direct) if Direct::suits(at, buf.len()) => direct.read(at, buf),
            _ => self.file.read_exact_at(buf, at),
        }
    }

    /// Writes all of `data` at `at`.
    pub(crate) fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        match &self.direct {
            Some(direct) if Direct::suits(at, data.len()) => direct.write(at, data),
            _ => self.file.write_all_at(data, at),
        }
    }

    /// Makes every completed write durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        if self.flush_failed() {
            return Err(io::Error::other("an earlier flush failed"));
        }
        if self.read_only {
            return Ok(());
        }
        self.file.sync_data().inspect_err(|_| self.flush_failed.store(true, Ordering::SeqCst))
    }

    pub(crate) fn flush_failed(&self) -> bool {
        self.flush_failed.load(Ordering::SeqCst)
    }

    /// Gives the range back. False if the medium has no holes: the data are still there.
    pub(crate) fn punch(&self, at: u64, length: u64) -> io::Result<bool> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, mode, at, length) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NODEV) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Hints that the range will be read.
    pub(crate) fn prefetch(&self, at: u64, length: u64) -> io::Result<()> {
        let length = NonZeroU64::new(length);
        if length.is_some() && self.direct.is_none() {
            fadvise(&self.file, at, length, Advice::WillNeed)?;
        }
        Ok(())
    }

    /// What lies at `at`, and up to where.
    pub(crate) fn run_at(&self, at: u64) -> io::Result<Run> {
        let next = match seek(&self.file, SeekFrom::Data(at)) {
            Ok(next) => next,
            Err(Errno::NXIO) => return Ok(Run::Hole { end: self.end }),
            Err(Errno::INVAL) => return Ok(Run::Data { end: self.end }),
            Err(e) => return Err(e.into()),
        };
        if next > at {
            return Ok(Run::Hole { end: next });
        }
        Ok(Run::Data { end: seek(&self.file, SeekFrom::Hole(at))? })
    }
}

/// Two locks. The record lock keeps a second server of ours out: one writer, or many readers. The
/// shared `flock` is the one that cryptsetup takes: it may read the header of a volume in use, and
/// waits before it writes one. A record lock goes when the process closes any descriptor of the
/// file, so a process opens a volume once.
fn lock(file: &File, shared: bool) -> Result<(), VolumeError> {
    let ours = if shared {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    let taken =
        fcntl_lock(file, ours).and_then(|()| flock(file, FlockOperation::NonBlockingLockShared));
    match taken {
        Ok(()) => Ok(()),
        Err(Errno::AGAIN | Errno::ACCESS) => Err(Rejection::InUse.into()),
        Err(e) => Err(VolumeError::Io { what: "lock the volume", source: e.into() }),
    }
}
