//! The local socket: applications of the same user (or root) ask in frames of a big-endian 32-bit
//! length and JSON ([`Ask`], [`Reply`]), one after the other.

use std::{
    io,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    time::Duration,
};

use model::child::{self, FrameError};

use super::{Ask, Client, Reply};

/// How long an application may take for a request, or to read its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves applications on `path` until the listener fails.
///
/// # Errors
/// What the kernel says.
pub fn serve(client: &mut Client, path: &Path) -> io::Result<()> {
    // One that nobody listens on any more.
    if UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    for stream in listener.incoming() {
        // An application that breaks off disturbs no other.
        let _ = stream.and_then(|stream| converse(client, stream));
    }
    Ok(())
}

fn converse(client: &mut Client, mut stream: UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    let own = rustix::process::geteuid();
    if peer.uid != own && !peer.uid.is_root() {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    loop {
        let reply = match child::receive::<Ask>(&mut stream) {
            Ok(Some(ask)) => client.ask(&ask),
            Ok(None) | Err(FrameError::Io(_)) => return Ok(()),
            Err(error) => Reply::Failed { detail: super::chain(&error) },
        };
        if child::send(&mut stream, &reply).is_err() || matches!(reply, Reply::Failed { .. }) {
            return Ok(());
        }
    }
}

/// Asks a client that serves on `path`.
///
/// # Errors
/// [`FrameError`].
pub fn ask(path: &Path, ask: &Ask) -> Result<Reply, FrameError> {
    let mut stream = UnixStream::connect(path)?;
    child::send(&mut stream, ask)?;
    child::receive(&mut stream)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof).into())
}
