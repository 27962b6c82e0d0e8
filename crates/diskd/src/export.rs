//! The running export, whichever front end serves it.

use std::io;

use disk::{Volume, nbd, vhost};
use model::child::disk::{Counters, Damage};

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
        self.counted().snapshot()
    }

    /// The first damage that the guest met.
    pub(crate) fn damage(&self) -> Option<Damage> {
        self.counted().damage().cloned()
    }

    fn counted(&self) -> &nbd::Counters {
        match self {
            Self::Nbd(server) => server.counters(),
            Self::Vhost(server) => server.counters(),
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
