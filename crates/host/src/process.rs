//! A VM's processes: started once, found again, ended.
//!
//! Each holds a lock file open as long as it lives: the agent locks it before the start and leaves
//! the descriptor to the child. So a process that was started just before the agent died is never
//! started a second time, even if its number was not yet written down; it is found by the control
//! socket in its arguments, which no other process has.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

use rustix::fs::FlockOperation;
use serve::process::{ProcessId, Signal, Spawn, SpawnError};
use thiserror::Error;

use crate::plan::{Role, VmPaths};

/// Why a process is not there.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// One is alive, but it cannot be found.
    #[error("a {0} process of this VM is alive and cannot be found")]
    Hidden(&'static str),
    /// It cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Its lock or its sockets.
    #[error("cannot prepare the {0} process")]
    Prepare(&'static str, #[source] io::Error),
    /// It ended before it was ready.
    #[error("the {0} process ended before it was ready")]
    Ended(&'static str),
    /// It does not get ready.
    #[error("the {0} process did not get ready in time")]
    Silent(&'static str),
}

/// What a role's lock says.
#[derive(Debug)]
pub(crate) enum Standing {
    /// Nobody holds the lock; this descriptor does now.
    Free(OwnedFd),
    /// This process holds it.
    Runs(ProcessId),
}

/// Whether a process of this role runs. If none does, the lock is ours until the descriptor is
/// dropped or given to a child. A child that has not yet replaced its image holds the lock already
/// and cannot be told from its parent, so one that is not found is looked for again, for a while.
///
/// # Errors
/// [`StartError::Hidden`] if the lock is held by a process that is not found.
pub(crate) async fn standing(paths: &VmPaths, role: Role) -> Result<Standing, StartError> {
    let mut left = 100_u32;
    loop {
        match look(paths, role) {
            Err(StartError::Hidden(_)) if left > 0 => {
                left = left.saturating_sub(1);
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            other => return other,
        }
    }
}

fn look(paths: &VmPaths, role: Role) -> Result<Standing, StartError> {
    let failed = |error| StartError::Prepare(role.word(), error);
    let file = open_lock(&paths.lock(role)).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Standing::Free(file.into())),
        Err(rustix::io::Errno::WOULDBLOCK) => {}
        Err(errno) => return Err(failed(errno.into())),
    }
    match find(&paths.signature(role)) {
        Some(process) => Ok(Standing::Runs(process)),
        None => Err(StartError::Hidden(role.word())),
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// The process that runs in this role, if any: recorded, or found.
pub(crate) async fn alive(
    paths: &VmPaths,
    role: Role,
    recorded: Option<ProcessId>,
) -> Option<ProcessId> {
    let signature = paths.signature(role);
    if let Some(process) = recorded.filter(|p| p.is_alive() && bears(p.pid, &signature)) {
        return Some(process);
    }
    match standing(paths, role).await {
        Ok(Standing::Runs(process)) => Some(process),
        Ok(Standing::Free(_)) | Err(_) => None,
    }
}

/// The process that has this socket's path in its arguments. Our own helpers that quote a command
/// line are not meant: the path must be an argument or follow `:` or `=` and end at a comma.
fn find(signature: &Path) -> Option<ProcessId> {
    for entry in std::fs::read_dir("/proc").ok()? {
        let Some(pid) = entry.ok().and_then(|e| e.file_name().to_str()?.parse::<i32>().ok()) else {
            continue;
        };
        if bears(pid, signature) {
            return ProcessId::find(pid);
        }
    }
    None
}

/// Whether the process has this socket among its arguments.
fn bears(pid: i32, signature: &Path) -> bool {
    let needle = signature.as_os_str().as_bytes();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|b| *b == 0).any(|argument| names(argument, needle))
}

fn names(argument: &[u8], needle: &[u8]) -> bool {
    let value = argument.strip_prefix(b"unix:").unwrap_or(argument);
    value.split(|b| *b == b',').next() == Some(needle)
}

/// Starts the process of a role, or finds it running.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn start(
    paths: &VmPaths,
    role: Role,
    prepare: impl FnOnce() -> Result<Spawn, SpawnError> + Send,
) -> Result<(ProcessId, bool), StartError> {
    let lock = match standing(paths, role).await? {
        Standing::Runs(process) => return Ok((process, false)),
        Standing::Free(lock) => lock,
    };
    for socket in paths.made_by(role) {
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StartError::Prepare(role.word(), error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let mut spawn = prepare()?.log_file(paths.log(role));
    spawn.inherit(lock);
    Ok((spawn.spawn()?, true))
}

/// Waits until `ready` says yes, as long as the process lives, at most `patience`.
///
/// # Errors
/// [`StartError::Ended`] or [`StartError::Silent`].
pub(crate) async fn ready<F, T>(
    role: Role,
    process: ProcessId,
    patience: Duration,
    mut ready: impl FnMut() -> F,
) -> Result<T, StartError>
where
    F: Future<Output = Option<T>>,
{
    let mut wait = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    while waited < patience {
        if let Some(value) = ready().await {
            return Ok(value);
        }
        if !process.is_alive() {
            return Err(StartError::Ended(role.word()));
        }
        tokio::time::sleep(wait).await;
        waited = waited.saturating_add(wait);
        wait = wait.saturating_mul(2).min(Duration::from_millis(50));
    }
    Err(StartError::Silent(role.word()))
}

/// Ends a process: gives it `grace` to end on its own, then SIGTERM, then SIGKILL.
pub(crate) async fn end(process: ProcessId, grace: Duration) -> bool {
    if let Ok(Some(_)) = process.wait_exit(grace).await {
        return true;
    }
    process.stop(Duration::from_secs(3)).await.is_ok()
}

/// Ends a process at once.
pub(crate) async fn cut(process: ProcessId) -> bool {
    if process.signal(Signal::KILL).is_err() {
        return false;
    }
    matches!(process.wait_exit(Duration::from_secs(10)).await, Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn paths(dir: &Path) -> VmPaths {
        let config = Config::example(dir.to_str().unwrap(), dir.to_str().unwrap());
        let paths = VmPaths::new(&config, &"v1".parse().unwrap());
        std::fs::create_dir_all(&paths.run).unwrap();
        std::fs::create_dir_all(&paths.state).unwrap();
        paths
    }

    /// One process: the shell itself waits. The socket is its parameter; nothing is done with it.
    fn sleeper(paths: &VmPaths) -> Spawn {
        Spawn::new("/bin/sh")
            .args(["-c", "read _ < fifo", "sh"])
            .arg(paths.signature(Role::Qemu))
            .dir(&paths.run)
    }

    #[tokio::test]
    async fn a_process_whose_number_was_lost_is_found_and_not_started_twice() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let fifo = paths.run.join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let (first, new) = start(&paths, Role::Qemu, || Ok(sleeper(&paths))).await.unwrap();
        assert!(new);
        // At once: the shell may not even have replaced our image yet.
        let (second, new) = start(&paths, Role::Qemu, || Ok(sleeper(&paths))).await.unwrap();
        assert_eq!((second, new), (first, false));
        assert_eq!(alive(&paths, Role::Qemu, None).await, Some(first));
        let other = ProcessId::current().unwrap();
        assert_eq!(alive(&paths, Role::Qemu, Some(other)).await, Some(first));
        assert!(cut(first).await);
        let (third, new) = start(&paths, Role::Qemu, || Ok(sleeper(&paths))).await.unwrap();
        assert!(new && third != first);
        assert!(cut(third).await);
    }

    #[test]
    fn only_a_whole_argument_names_a_socket() {
        assert!(names(b"/r/v1/qmp.sock", b"/r/v1/qmp.sock"));
        assert!(names(b"unix:/r/v1/qmp.sock,server=on,wait=off", b"/r/v1/qmp.sock"));
        assert!(!names(b"cat /r/v1/qmp.sock", b"/r/v1/qmp.sock"));
        assert!(!names(b"/r/v1/qmp.sock2", b"/r/v1/qmp.sock"));
    }
}
