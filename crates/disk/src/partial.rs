//! A volume in the making: a hidden, locked file that gets its name only when it is complete and
//! durable.
//!
//! ```text
//!   .NAME.partial, locked -> filled by the caller -> fsync -> rename to NAME -> fsync of the directory
//! ```
//!
//! **Invariant:** on any failure the partial file is removed, and no existing file is replaced. What
//! a killed process left behind is taken over by the next.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with},
    io::Errno,
};

use crate::{Rejection, VolumeError};

/// The file's name until it is finished; removed when this is dropped before that.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl Partial {
    /// Begins the volume `target`. `lock` opens or creates the file it is given and locks it; `file`
    /// gets at it. The file is empty afterwards. Bind the pair in this order: what is unfinished is
    /// then removed before its lock is let go.
    pub(crate) fn begin<T>(
        target: &Path,
        lock: impl FnOnce(&Path) -> Result<T, VolumeError>,
        file: impl FnOnce(&T) -> &File,
    ) -> Result<(T, Self), VolumeError> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(Rejection::AlreadyExists.into());
        }
        let path = path_of(target)?;
        let locked = lock(&path)?;
        let failed = || VolumeError::io("look at the volume");
        let file = file(&locked);
        // Its maker may have finished and renamed it between our opening and locking it.
        let ours = file.metadata().map_err(failed())?;
        if !fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino()) {
            return Err(Rejection::InUse.into());
        }
        let partial = Self { path, target: target.to_owned(), finished: false };
        file.set_len(0).map_err(VolumeError::io("size the volume"))?;
        Ok((locked, partial))
    }

    /// Makes the file durable and gives it its name.
    pub(crate) fn finish(mut self, file: &File) -> Result<(), VolumeError> {
        file.sync_all().map_err(VolumeError::io("make the volume durable"))?;
        match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => self.finished = true,
            Err(Errno::EXIST) => return Err(Rejection::AlreadyExists.into()),
            Err(e) => return Err(VolumeError::io("name the volume")(e.into())),
        }
        // Now, not when the last copy of the descriptor is closed: a process that another thread is
        // just starting has one, and whoever opens the volume next would find it in use.
        flock(file, FlockOperation::Unlock)
            .map_err(|e| VolumeError::io("unlock the volume")(e.into()))?;
        let dir = self.target.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))
            .and_then(|dir| dir.sync_all())
            .map_err(VolumeError::io("make the volume's name durable"))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing better can be done about a failure: the next creation takes the file over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn path_of(target: &Path) -> Result<PathBuf, VolumeError> {
    let name = target
        .file_name()
        .ok_or_else(|| VolumeError::io("create the volume")(io::ErrorKind::InvalidInput.into()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".partial");
    Ok(target.with_file_name(hidden))
}
