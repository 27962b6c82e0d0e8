//! Asking the processes of a VM over their control sockets. One connection a question; every
//! question has a deadline.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use model::child::{self, FrameError, disk, vtpm};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Why a question has no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// The socket cannot be reached.
    #[error("cannot reach {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The conversation broke off.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The process ended the conversation, or answered something else.
    #[error("{} did not answer the question", .0.display())]
    Unanswered(PathBuf),
    /// The vTPM process could not do it.
    #[error("{}: {detail}", fault.name())]
    Vtpm {
        /// For programs.
        fault: vtpm::Fault,
        /// For people.
        detail: String,
    },
    /// The disk process could not do it.
    #[error("{code}: {detail}")]
    Disk {
        /// For programs.
        code: String,
        /// For people.
        detail: String,
    },
    /// The asking thread was lost.
    #[error("the question was dropped")]
    Dropped,
}

/// Asks a vTPM process.
///
/// # Errors
/// [`AskError`].
pub(crate) async fn ask_vtpm(
    socket: &Path,
    request: vtpm::Request,
    patience: Duration,
) -> Result<vtpm::Reply, AskError> {
    let path = socket.to_owned();
    blocking(move || {
        let mut stream = connect(&path, patience)?;
        let hello = vtpm::Request::Hello { version: vtpm::VERSION };
        let welcome = done(exchange(&mut stream, &path, &hello)?)?;
        if !matches!(welcome, vtpm::Reply::Hello { version: vtpm::VERSION, .. }) {
            return Err(AskError::Unanswered(path));
        }
        done(exchange(&mut stream, &path, &request)?)
    })
    .await
}

/// Asks a disk process.
///
/// # Errors
/// [`AskError`].
pub(crate) async fn ask_disk(
    socket: &Path,
    request: disk::Request,
    patience: Duration,
) -> Result<disk::Reply, AskError> {
    let path = socket.to_owned();
    blocking(move || {
        let mut stream = connect(&path, patience)?;
        let reply = exchange(&mut stream, &path, &request)?;
        if let disk::Reply::Failed { code, detail } = reply {
            return Err(AskError::Disk { code, detail });
        }
        Ok(reply)
    })
    .await
}

fn done(reply: vtpm::Reply) -> Result<vtpm::Reply, AskError> {
    if let vtpm::Reply::Failed { fault, detail } = reply {
        return Err(AskError::Vtpm { fault, detail });
    }
    Ok(reply)
}

async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> Result<T, AskError> + Send + 'static,
) -> Result<T, AskError> {
    tokio::task::spawn_blocking(ask).await.map_err(|_| AskError::Dropped)?
}

fn connect(path: &Path, patience: Duration) -> Result<UnixStream, AskError> {
    let failed = |source| AskError::Connect { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;
    Ok(stream)
}

fn exchange<Q: Serialize, A: DeserializeOwned>(
    stream: &mut UnixStream,
    path: &Path,
    question: &Q,
) -> Result<A, AskError> {
    child::send(stream, question)?;
    child::receive(stream)?.ok_or_else(|| AskError::Unanswered(path.to_owned()))
}
