//! Who asks: somebody at an address, or a guest on the port of its VM or proven over a network.

use std::net::SocketAddr;

use model::{
    guest::{GuestLine, GuestRequest},
    keys::rpc::KeyRequest,
};

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    /// Anyone, at this address if it is known.
    Anyone(Option<SocketAddr>),
    /// The client of a VM, on this connection.
    Guest(GuestLine),
}

impl Caller {
    /// What nonces are bound to.
    pub(super) fn requester(&self) -> String {
        match self {
            Self::Anyone(at) => at.map(|at| at.ip().to_string()).unwrap_or_default(),
            Self::Guest(line) => format!("vm:{}", line.vm),
        }
    }

    /// What the audit log calls it.
    pub(super) fn actor(&self) -> String {
        match self {
            Self::Anyone(Some(at)) => format!("client:{}", at.ip()),
            Self::Anyone(None) => "unknown".to_owned(),
            Self::Guest(line) => format!("vm:{}", line.vm),
        }
    }

    /// Whether it is a guest, whose connection is TLS.
    pub(super) const fn is_guest(&self) -> bool {
        matches!(self, Self::Guest(..))
    }

    /// The request as this caller's.
    pub(super) fn asks(&self, request: KeyRequest) -> KeyRequest {
        match self {
            Self::Anyone(_) => request,
            Self::Guest(line) => {
                let (line, request) = (line.clone(), Box::new(request));
                KeyRequest::Guest(GuestRequest::Ask { line, request })
            }
        }
    }
}
