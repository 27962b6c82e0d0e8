//! The agent's side: requests and replies on the control socket.

mod answer;

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use model::child::{
    self,
    vtpm::{Fault, Reply, Request},
};
use serve::{exit::chain, shutdown::Shutdown};
use thiserror::Error;
use tpm::{ResponseCode, TpmError, TransportError};

use crate::{
    sockets::{Socket, is_admitted},
    vtpm::{MachineError, Vtpm},
};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 8;

/// Why a request was not done.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    /// The request cannot be done as it is.
    #[error("{0}")]
    Bad(&'static str),
    /// The vTPM has no host AK, or one with another authValue.
    #[error("the vTPM holds no AK of this host")]
    NotManufactured,
    /// QEMU is connected.
    #[error("QEMU is connected")]
    Running,
    /// No boot has begun, or the guest is being reset.
    #[error("the vTPM is not started")]
    Resetting,
    /// The agent speaks another version.
    #[error("version {0} of these messages is not spoken here")]
    Version(u32),
    /// swtpm did not do what it should.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The vTPM said no, or its answer is malformed.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

impl RequestError {
    fn fault(&self) -> Fault {
        match self {
            Self::Bad(_) => Fault::BadRequest,
            Self::NotManufactured => Fault::NotManufactured,
            Self::Running => Fault::Running,
            Self::Resetting => Fault::Resetting,
            Self::Version(_) => Fault::Version,
            Self::Machine(_) => Fault::Vtpm,
            Self::Tpm(error) => tpm_fault(error),
        }
    }

    /// Whether the channel to swtpm is lost, so that nothing can go on.
    const fn is_fatal(&self) -> bool {
        matches!(self, Self::Machine(MachineError::Channel(_)) | Self::Tpm(TpmError::Transport(_)))
    }
}

fn tpm_fault(error: &TpmError) -> Fault {
    match error.code() {
        Some(ResponseCode::INITIALIZE) => return Fault::Resetting,
        Some(ResponseCode::OBJECT_MEMORY) => return Fault::SlotsTaken,
        Some(code) if code.is_auth_failure() => return Fault::NotManufactured,
        Some(_) | None => {}
    }
    match error {
        TpmError::Unstable => Fault::Unstable,
        TpmError::Displaced { .. } => Fault::SlotsTaken,
        TpmError::Transport(TransportError::Resetting) => Fault::Resetting,
        TpmError::Authenticity { .. }
        | TpmError::Command { .. }
        | TpmError::Crypto(_)
        | TpmError::Malformed { .. }
        | TpmError::NoIndex { .. }
        | TpmError::Policy(_)
        | TpmError::TooLong
        | TpmError::Transport(_) => Fault::Vtpm,
    }
}

/// Answers the agent in threads of its own until the process ends.
pub(crate) fn start(vtpm: Arc<Vtpm>, socket: Arc<Socket>, stop: Shutdown) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        loop {
            let admitted =
                socket.listener.accept().and_then(|(stream, _)| admit(stream, &vtpm, &open, &stop));
            if let Err(error) = admitted {
                tracing::warn!(%error, "a control connection could not be accepted");
                thread::sleep(Duration::from_millis(50));
            }
        }
    };
    thread::Builder::new().name("control-accept".to_owned()).spawn(accept).map(drop)
}

fn admit(
    stream: UnixStream,
    vtpm: &Arc<Vtpm>,
    open: &Arc<AtomicUsize>,
    stop: &Shutdown,
) -> io::Result<()> {
    if !is_admitted(&stream, &[]) {
        tracing::warn!(rejection = "wrong-user", "control connection refused");
        return Ok(());
    }
    if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
        open.fetch_sub(1, Ordering::SeqCst);
        tracing::warn!(rejection = "too-many-connections", "control connection refused");
        return Ok(());
    }
    let (shared, counted, stop) = (Arc::clone(vtpm), Arc::clone(open), stop.clone());
    let spawned = thread::Builder::new().name("control".to_owned()).spawn(move || {
        converse(&stream, &shared, &stop);
        counted.fetch_sub(1, Ordering::SeqCst);
    });
    if spawned.is_err() {
        open.fetch_sub(1, Ordering::SeqCst);
    }
    spawned.map(drop)
}

/// Requests and replies in turn, until the agent leaves or sends something else.
fn converse(mut stream: &UnixStream, vtpm: &Vtpm, stop: &Shutdown) {
    loop {
        let request = match child::receive::<Request>(&mut stream) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(detail = chain(&error), "malformed control message");
                let detail = "not a request".to_owned();
                let _ =
                    child::send(&mut stream, &Reply::Failed { fault: Fault::BadRequest, detail });
                return;
            }
        };
        let ends = matches!(request, Request::Shutdown {});
        let reply = answer::reply(vtpm, request).unwrap_or_else(|error| {
            if error.is_fatal() {
                tracing::error!(detail = chain(&error), "swtpm does not answer");
                stop.trigger();
            }
            Reply::Failed { fault: error.fault(), detail: chain(&error) }
        });
        if let Err(error) = child::send(&mut stream, &reply) {
            tracing::warn!(detail = chain(&error), "the agent left before its reply");
            return;
        }
        if ends {
            stop.trigger();
        }
    }
}
