//! A unix socket that replaces its dead predecessor, and the rule who may connect.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{net::sockopt::socket_peercred, process::geteuid};
use thiserror::Error;

use super::Rejection;

/// Why a socket could not be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// A process listens there.
    #[error("another process listens on the socket")]
    InUse,
    /// Something that is no socket has the name.
    #[error("the path of the socket is taken by something else")]
    NotASocket,
    /// The system said no; most often the path is longer than 107 bytes.
    #[error("could not {what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl BindError {
    /// The name of the failure, in kebab-case.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InUse => "socket-in-use",
            Self::NotASocket => "not-a-socket",
            Self::Io { .. } => "socket-failed",
        }
    }
}

/// A bound socket; its file is removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct UnixSocket {
    /// The listening end.
    pub listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl UnixSocket {
    /// Where it is bound.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            // A socket file left behind is replaced by the next process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`. The socket appears there at once with its final mode, listening: it is bound
/// under another name and renamed over a stale one.
///
/// # Errors
/// [`BindError`]; the path is then as it was.
pub fn bind(path: &Path, policy: &PeerPolicy) -> Result<UnixSocket, BindError> {
    let io = |what| move |source| BindError::Io { what, source };
    match fs::symlink_metadata(path) {
        Ok(there) => {
            use std::os::unix::fs::FileTypeExt;
            if !there.file_type().is_socket() {
                return Err(BindError::NotASocket);
            }
            if UnixStream::connect(path).is_ok() {
                return Err(BindError::InUse);
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io("look at the socket's path")(e)),
    }
    let fresh = fresh_name(path);
    // Left by a process that was killed right here; it had our process id.
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(io("bind the socket"))?;
    let mode = fs::Permissions::from_mode(policy.mode());
    let placed = fs::set_permissions(&fresh, mode)
        .and_then(|()| fs::symlink_metadata(&fresh))
        .and_then(|made| fs::rename(&fresh, path).map(|()| made.ino()));
    match placed {
        Ok(inode) => Ok(UnixSocket { listener, path: path.to_owned(), inode }),
        Err(e) => {
            let _ = fs::remove_file(&fresh);
            Err(io("place the socket")(e))
        }
    }
}

/// Short, since a socket's path may have only 107 bytes.
fn fresh_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}

/// Who may connect: processes of our own effective user, and of users that are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerPolicy {
    others: Vec<u32>,
}

impl PeerPolicy {
    /// Our own user and `others`.
    #[must_use]
    pub const fn with_users(others: Vec<u32>) -> Self {
        Self { others }
    }

    /// Other users can only reach a socket whose file lets them; the credentials decide then.
    const fn mode(&self) -> u32 {
        if self.others.is_empty() { 0o600 } else { 0o666 }
    }

    /// Whether the process at the other end of `stream` may speak.
    ///
    /// # Errors
    /// [`Rejection::WrongUser`], also if the kernel does not tell.
    pub fn admit(&self, stream: &UnixStream) -> Result<(), Rejection> {
        let peer = socket_peercred(stream).map_err(|_| Rejection::WrongUser)?;
        let own = peer.uid == geteuid();
        if own || self.others.contains(&peer.uid.as_raw()) {
            Ok(())
        } else {
            Err(Rejection::WrongUser)
        }
    }
}
