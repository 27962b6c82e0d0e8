//! The two sockets that others connect to. A socket appears under its name only once it listens.
//! Who gets through is decided by [`serve::control::is_admitted`].

use std::{
    fs, io,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// A socket could not be made.
#[derive(Debug, Error)]
#[error("cannot listen at {}", path.display())]
pub(crate) struct ListenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`.
    pub(crate) fn listen(path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError { path: path.to_owned(), source };
        let mut early = path.as_os_str().to_owned();
        early.push("~");
        let early = PathBuf::from(early);
        match fs::remove_file(&early) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&early).map_err(failed)?;
        fs::rename(&early, path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Takes a name away that a dead process left, so that it does not look like ours. Only for who
    /// holds the lock on the state.
    pub(crate) fn clear(path: &Path) {
        let _ = fs::remove_file(path);
    }

    /// Takes the socket's name away; those connected stay so.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}
