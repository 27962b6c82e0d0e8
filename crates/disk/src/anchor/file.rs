//! A counter in a file: worth what its place is worth. On the medium of the volume it finds
//! accidents; on a stick, on another server or in a directory that the attacker cannot write it
//! finds roll-backs.
//!
//! ```text
//!   {"version":1,"volume":"<uuid>","count":5}      replaced by rename, both synchronised
//! ```

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::Anchor;
use crate::{Rejection, VolumeError};

/// Longest file that is read.
const BYTES_MAX: u64 = 4096;

/// A counter in a file. Its lock file is held until the value is dropped.
#[derive(Debug)]
pub struct FileAnchor {
    path: PathBuf,
    volume: String,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    volume: String,
    count: u64,
}

impl FileAnchor {
    /// Makes a counter for the volume `uuid` (as text), which counts 0.
    ///
    /// # Errors
    /// [`Rejection::AlreadyExists`], [`Rejection::InUse`], or the system's error.
    pub fn create(path: &Path, uuid: &str) -> Result<Self, VolumeError> {
        let anchor = Self { path: path.to_owned(), volume: uuid.to_owned(), _lock: lock(path)? };
        if fs::exists(path).map_err(VolumeError::io("look for the anchor"))? {
            return Err(Rejection::AlreadyExists.into());
        }
        anchor.write(0).map_err(VolumeError::io("write the anchor"))?;
        Ok(anchor)
    }

    /// Opens the counter of the volume `uuid`.
    ///
    /// # Errors
    /// [`Rejection::AnchorMismatch`] if it is another volume's, [`Rejection::InUse`], or the
    /// system's error.
    pub fn open(path: &Path, uuid: &str) -> Result<Self, VolumeError> {
        // A lock beside nothing would stay there.
        fs::metadata(path).map_err(VolumeError::io("read the anchor"))?;
        let anchor = Self { path: path.to_owned(), volume: uuid.to_owned(), _lock: lock(path)? };
        let content = anchor.content().map_err(VolumeError::io("read the anchor"))?;
        if content.volume != uuid {
            return Err(Rejection::AnchorMismatch.into());
        }
        Ok(anchor)
    }

    fn content(&self) -> io::Result<Content> {
        let mut text = String::new();
        File::open(&self.path)?.take(BYTES_MAX).read_to_string(&mut text)?;
        let content: Content = serde_json::from_str(&text)?;
        if content.version != 1 {
            return Err(io::Error::other("an anchor of another version"));
        }
        Ok(content)
    }

    fn write(&self, count: u64) -> io::Result<()> {
        let content = Content { version: 1, volume: self.volume.clone(), count };
        let mut text = serde_json::to_vec(&content)?;
        text.push(b'\n');
        replace(&self.path, &text)
    }
}

impl Anchor for FileAnchor {
    fn read(&mut self) -> io::Result<u64> {
        self.content().map(|content| content.count)
    }

    fn alone(&self) -> bool {
        true
    }

    fn increment(&mut self, from: u64) -> io::Result<bool> {
        let count = self.read()?;
        if count != from {
            return Ok(false);
        }
        let next = count.checked_add(1).ok_or_else(|| io::Error::other("the anchor is full"))?;
        self.write(next)?;
        Ok(true)
    }
}

/// Replaces the file at `path` so that a crash leaves the old content or the new.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = beside(path, ".partial");
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Holds `PATH.lock`: the file itself is replaced at each step.
pub(super) fn lock(path: &Path) -> Result<File, VolumeError> {
    let mut options = File::options();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, ".lock"))
        .map_err(VolumeError::io("lock the anchor"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::AGAIN) => Err(Rejection::InUse.into()),
        Err(e) => Err(VolumeError::Io { what: "lock the anchor", source: e.into() }),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(error: &VolumeError) -> &'static str {
        error.rejection().map_or("io", Rejection::code)
    }

    #[test]
    fn a_counter_survives_and_counts_only_from_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anchor");
        let mut anchor = FileAnchor::create(&path, "u").unwrap();
        assert!(anchor.increment(0).unwrap());
        assert!(!anchor.increment(0).unwrap());
        drop(anchor);
        let mut anchor = FileAnchor::open(&path, "u").unwrap();
        assert_eq!(anchor.read().unwrap(), 1);
    }

    #[test]
    fn an_anchor_has_one_user_and_one_volume_and_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anchor");
        let anchor = FileAnchor::create(&path, "u").unwrap();
        assert_eq!(code(&FileAnchor::open(&path, "u").unwrap_err()), "volume-in-use");
        drop(anchor);
        assert_eq!(code(&FileAnchor::open(&path, "v").unwrap_err()), "anchor-mismatch");
        assert_eq!(code(&FileAnchor::create(&path, "u").unwrap_err()), "already-exists");
        assert_eq!(code(&FileAnchor::open(&dir.path().join("no"), "u").unwrap_err()), "io");
    }
}
