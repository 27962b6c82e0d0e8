//! How far a conversion came: a small file beside the unfinished volume, so that it goes on after a
//! crash.
//!
//! ```text
//!   .NAME.converting (the volume)   .NAME.converting.json (this)   -> NAME
//! ```
//!
//! **Invariant:** the position is written only after the volume was flushed up to it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::output::Failure;

/// What must be the same for a conversion to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    source: PathBuf,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    format: String,
    to: String,
}

impl Identity {
    /// Of the source at `path`.
    pub(super) fn of(path: &Path, format: &str, to: &str) -> anyhow::Result<Self> {
        let source = path.canonicalize().with_context(|| path.display().to_string())?;
        let meta = fs::metadata(&source)?;
        Ok(Self {
            source,
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            format: format.to_owned(),
            to: to.to_owned(),
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    identity: Identity,
    position: u64,
}

/// The names of a conversion's files.
#[derive(Debug)]
pub(super) struct Places {
    destination: PathBuf,
    /// The unfinished volume.
    pub(super) volume: PathBuf,
    state: PathBuf,
}

impl Places {
    /// Beside `destination`, which must not exist.
    ///
    /// # Errors
    /// `already-exists`.
    pub(super) fn beside(destination: &Path) -> Result<Self, Failure> {
        if destination.symlink_metadata().is_ok() {
            let detail = format!("{} exists already", destination.display());
            return Err(Failure::refused("already-exists", detail, "choose another name"));
        }
        let name = destination
            .file_name()
            .ok_or_else(|| Failure::Usage("the destination has no file name".to_owned()))?;
        let with = |end: &str| {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(end);
            destination.with_file_name(hidden)
        };
        let (volume, state) = (with(".converting"), with(".converting.json"));
        Ok(Self { destination: destination.to_owned(), volume, state })
    }

    /// The position from which an interrupted conversion of the same source goes on.
    ///
    /// # Errors
    /// `conversion-of-another-source` if there is one of another.
    pub(super) fn resume(&self, identity: &Identity) -> Result<Option<u64>, Failure> {
        if !self.volume.exists() {
            return Ok(None);
        }
        let saved: Option<Saved> = match fs::read(&self.state) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok(),
            // Killed before the first position was saved.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::remove_file(&self.volume)?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        match saved {
            Some(saved) if saved.identity == *identity => Ok(Some(saved.position)),
            _ => Err(Failure::refused(
                "conversion-of-another-source",
                format!("{} is the rest of another conversion", self.volume.display()),
                "finish that one, or remove it and the .json beside it",
            )),
        }
    }

    /// Records that the volume holds everything before `position` durably.
    pub(super) fn save(&self, identity: &Identity, position: u64) -> anyhow::Result<()> {
        let fresh = self.state.with_extension("new");
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(&Saved { identity: identity.clone(), position })?)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.state)?;
        self.sync_directory()
    }

    /// Gives the finished volume its name.
    ///
    /// # Errors
    /// `already-exists` if somebody took the name meanwhile.
    pub(super) fn finish(&self) -> Result<(), Failure> {
        match renameat_with(CWD, &self.volume, CWD, &self.destination, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                let detail = format!("{} exists by now", self.destination.display());
                let hint = "move it away and convert again: what was done is kept";
                return Err(Failure::refused("already-exists", detail, hint));
            }
            Err(error) => return Err(error.into()),
        }
        fs::remove_file(&self.state)?;
        Ok(self.sync_directory()?)
    }

    fn sync_directory(&self) -> anyhow::Result<()> {
        let parent = self.destination.parent().filter(|dir| !dir.as_os_str().is_empty());
        Ok(File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?)
    }
}
