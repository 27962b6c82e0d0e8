//! Starting swtpm: its state directory, its keys by descriptor, its control channel; dead when we
//! are.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use serve::process::{ProcessId, Signal, Spawn, SpawnError, sealed_memfd};
use thiserror::Error;

use crate::{control::Control, keys::Keys};

/// swtpm could not be started.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// A socket pair or memory file could not be made.
    #[error("cannot make a channel to swtpm")]
    Channel(#[source] io::Error),
    /// The directory's name does not fit into swtpm's options.
    #[error("the state directory's path must be absolute, without a comma")]
    Directory,
    /// The process could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// Starts swtpm on `dir`. Call it from the main thread: the child dies with the calling thread.
pub(crate) fn start(
    program: &Path,
    dir: &Path,
    keys: &Keys,
) -> Result<(ProcessId, Control), StartError> {
    let path = dir.to_str().filter(|path| path.starts_with('/') && !path.contains(','));
    let path = path.ok_or(StartError::Directory)?;
    let (ours, theirs) = UnixStream::pair().map_err(StartError::Channel)?;
    let mut spawn = Spawn::new(program)
        .args(["socket", "--tpm2", "--terminate", "--tpmstate"])
        .arg(format!("dir={path},mode=0600"))
        .log_file(dir.join("swtpm.log"))
        .die_with_parent(Signal::KILL);
    let number = spawn.inherit(OwnedFd::from(theirs));
    spawn = spawn.arg("--ctrl").arg(format!("type=unixio,clientfd={number}"));
    for (option, key) in [("--key", &keys.state), ("--migration-key", &keys.migration)] {
        let number = spawn.inherit(sealed_memfd(key.expose()).map_err(StartError::Channel)?);
        let value = format!("fd={number},mode=aes-256-cbc,format=binary");
        spawn = spawn.arg(option).arg(value);
    }
    let process = spawn.spawn()?;
    Ok((process, Control::new(ours).map_err(StartError::Channel)?))
}
