//! The agent's side: requests and replies on the control socket.

mod answer;

use std::{os::unix::net::UnixListener, sync::Arc};

use model::child::{
    FrameError,
    vtpm::{Fault, Reply, Request},
};
use serve::{control::Service, exit::chain, shutdown::Shutdown};
use thiserror::Error;
use tpm::{ResponseCode, TpmError, TransportError};

use crate::{
    sockets::Socket,
    vtpm::{MachineError, Vtpm},
};

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
        | TpmError::NoRoom
        | TpmError::Policy(_)
        | TpmError::TooLong
        | TpmError::Transport(_) => Fault::Vtpm,
    }
}

/// The vTPM as the agent sees it.
pub(crate) struct Agent {
    pub(crate) vtpm: Arc<Vtpm>,
    pub(crate) socket: Arc<Socket>,
    pub(crate) stop: Shutdown,
}

impl Service for Agent {
    type Request = Request;
    type Reply = Reply;

    fn listener(&self) -> &UnixListener {
        &self.socket.listener
    }

    fn answer(&self, request: Request) -> Reply {
        answer::reply(&self.vtpm, request).unwrap_or_else(|error| {
            if error.is_fatal() {
                tracing::error!(detail = chain(&error), "swtpm does not answer");
                self.stop.trigger();
            }
            Reply::Failed { fault: error.fault(), detail: chain(&error) }
        })
    }

    fn malformed(&self, _: &FrameError) -> Reply {
        Reply::Failed { fault: Fault::BadRequest, detail: "not a request".to_owned() }
    }

    fn ends(request: &Request) -> bool {
        matches!(request, Request::Shutdown {})
    }
}
