//! Files that must be whole and private: replaced atomically and durably, read with a limit.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use model::Secret;
use thiserror::Error;

use crate::random;

/// A file could not be read or written as it must be.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system call failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file is longer than it may be.
    #[error("{} is longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most that was allowed.
        limit: usize,
    },
    /// A secret file that others can read or that belongs to another user.
    #[error("{} must belong to this user and be closed to others (mode 0600)", .0.display())]
    NotPrivate(PathBuf),
    /// No random name could be made for the new version.
    #[error(transparent)]
    Random(#[from] random::RandomError),
}

impl FileError {
    /// Whether the cause is that the file does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { operation, path, source }
}

/// Replaces `path` by `content` with these permission bits: readers see the old or the new file,
/// never a part, and the new one survives a power cut once this returns.
///
/// # Errors
/// [`FileError`]; the old file is then still there.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", hex::encode(random::bytes::<6>()?)));
    let next = PathBuf::from(name);
    let result = write_new(&next, content, mode)
        .and_then(|()| fs::rename(&next, path).map_err(failed("replace", path)))
        .and_then(|()| sync_parent(path));
    if result.is_err() {
        // The rename did not happen or is not durable; a left-over would only take space.
        let _ = fs::remove_file(&next);
    }
    result
}

/// Writes a new file durably; fails if it exists.
///
/// # Errors
/// [`FileError`].
pub fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(failed("create", path))?;
    // The umask may have taken bits away from a file that is meant to be public.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("protect", path))?;
    file.write_all(content).map_err(failed("write", path))?;
    file.sync_all().map_err(failed("sync", path))
}

/// Makes a rename, creation or removal in the directory of `path` durable.
///
/// # Errors
/// [`FileError`].
pub fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed("sync", parent))
}

/// Removes a file durably; no error if it is not there.
///
/// # Errors
/// [`FileError`].
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// The content of a file of at most `limit` bytes.
///
/// # Errors
/// [`FileError`], also if it is longer.
pub fn read_limited(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mut content = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut content).map_err(failed("read", path))?;
    if content.len() > limit {
        return Err(FileError::TooLong { path: path.to_owned(), limit });
    }
    Ok(content)
}

/// The content of a secret file of at most `limit` bytes that belongs to this user and is closed to
/// all others.
///
/// # Errors
/// [`FileError`], also if it is longer or not private.
pub fn read_secret(path: &Path, limit: usize) -> Result<Secret<Vec<u8>>, FileError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let facts = file.metadata().map_err(failed("inspect", path))?;
    let owner = rustix::process::geteuid().as_raw();
    if facts.mode() & 0o077 != 0 || (facts.uid() != owner && facts.uid() != 0) {
        return Err(FileError::NotPrivate(path.to_owned()));
    }
    let length = usize::try_from(facts.len()).unwrap_or(usize::MAX);
    if length > limit {
        return Err(FileError::TooLong { path: path.to_owned(), limit });
    }
    // One buffer of the final size: growing would leave copies of the secret behind.
    let mut content = Secret::new(vec![0; length]);
    file.read_exact(content.expose_mut()).map_err(failed("read", path))?;
    Ok(content)
}

/// Creates a directory (and its missing parents) with mode 0700; one that exists is made private.
///
/// # Errors
/// [`FileError`].
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("protect", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(read_limited(&path, 3).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(matches!(read_limited(&path, 2), Err(FileError::TooLong { .. })));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_atomic(&path, b"k", 0o640).unwrap();
        assert!(matches!(read_secret(&path, 9), Err(FileError::NotPrivate(_))));
        write_atomic(&path, b"k", 0o600).unwrap();
        assert_eq!(read_secret(&path, 9).unwrap().expose(), b"k");
        assert!(read_secret(&dir.path().join("none"), 9).unwrap_err().is_missing());
    }
}
