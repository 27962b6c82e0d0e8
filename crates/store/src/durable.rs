//! Small files that must never be half written: heads, witnesses, configuration made by `init`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::error::StoreError;

fn failed<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> StoreError + 'p {
    move |source| StoreError::Io { doing, path: path.to_owned(), source }
}

/// Puts `bytes` at `path`, durably and all at once: after a crash there is the old content or the
/// new one. The file is readable by its owner only.
///
/// # Errors
/// [`StoreError::Io`]; then the old content is still there.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let beside = sibling(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed("create", &beside))?;
    file.write_all(bytes).map_err(failed("write", &beside))?;
    file.sync_all().map_err(failed("sync", &beside))?;
    fs::rename(&beside, path).map_err(failed("replace", path))?;
    sync_parent(path)
}

/// The content of a file of at most `limit` bytes; `None` if there is no file.
///
/// # Errors
/// [`StoreError::Io`] if it cannot be read, [`StoreError::Corrupt`] if it is longer.
pub fn load(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut bytes = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(failed("read", path))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= limit) {
        return Ok(Some(bytes));
    }
    Err(StoreError::corrupt(format!("{} is longer than {limit} bytes", path.display())))
}

/// Makes the entries of the directory that holds `path` durable.
///
/// # Errors
/// [`StoreError::Io`].
pub fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let opened = File::open(parent).and_then(|dir| dir.sync_all());
    opened.map_err(failed("sync", parent))
}

fn sibling(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_content_and_a_missing_one_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("head");
        assert!(load(&path, 10).unwrap().is_none());
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(load(&path, 10).unwrap().unwrap(), b"two");
        assert!(load(&path, 2).is_err());
    }
}
