//! The running export, whichever front end serves it.

use std::io;

use disk::{Volume, nbd, vhost};
use model::child::disk::Counters;

/// A volume that is served.
#[derive(Debug)]
pub(crate) enum Export {
    Nbd(nbd::Server),
    Vhost(vhost::Server),
}

impl Export {
    pub(crate) fn volume(&self) -> &dyn Volume {
        match self {
            Self::Nbd(server) => server.volume(),
            Self::Vhost(server) => server.volume(),
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        match self {
            Self::Nbd(server) => server.counters().snapshot(),
            Self::Vhost(server) => server.counters().snapshot(),
        }
    }

    /// Finishes what is at hand and closes the volume.
    pub(crate) fn stop(&self) -> io::Result<()> {
        match self {
            Self::Nbd(server) => server.stop(),
            Self::Vhost(server) => server.stop(),
        }
    }
}
