//! What is asked of guests' clients, from the configuration.

use std::{net::SocketAddr, path::PathBuf};

use model::{Digest, HashAlg};
use serde::Deserialize;

/// Settings of the table `guest`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestSettings {
    /// SHA-256 of each client that is approved. None: no guest is served.
    #[serde(default)]
    pub clients: Vec<Digest>,
    /// SHA-256 of everything else that may run in guests.
    #[serde(default)]
    pub software: Vec<Digest>,
    /// Where the client is in a guest.
    #[serde(default = "client_path")]
    pub client_path: String,
    /// How long a challenge may be answered, seconds.
    #[serde(default = "challenge_s")]
    pub challenge_s: u64,
    /// How long requests are taken after a proof, seconds.
    #[serde(default = "admitted_s")]
    pub admitted_s: u64,
    /// Challenges for one VM in a minute; more are refused.
    #[serde(default = "proofs_per_minute")]
    pub proofs_per_minute: u32,
    /// How long a connection may be idle, seconds.
    #[serde(default = "admitted_s")]
    pub idle_s: u64,
    /// Where guests are heard over a network besides, by the same passport; not at all without it.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// Where the address is written that was bound.
    #[serde(default)]
    pub address_file: Option<PathBuf>,
    /// Connections over a network that are open at once.
    #[serde(default = "connections")]
    pub connections: usize,
}

fn client_path() -> String {
    "/bin/vouchsafe-guest".to_owned()
}

const fn challenge_s() -> u64 {
    30
}

const fn admitted_s() -> u64 {
    300
}

const fn proofs_per_minute() -> u32 {
    60
}

const fn connections() -> usize {
    256
}

impl GuestSettings {
    /// What cannot be meant: the setting, and why.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        let digests = self.clients.iter().chain(&self.software);
        if digests.clone().any(|digest| digest.alg() != HashAlg::Sha256) {
            return Some(("guest.clients", "and guest.software are SHA-256 digests"));
        }
        if !self.client_path.starts_with('/') {
            return Some(("guest.client_path", "must begin with a slash"));
        }
        if self.challenge_s == 0 || self.admitted_s == 0 || self.idle_s == 0 {
            return Some(("guest.challenge_s", "admitted_s and idle_s must be at least 1"));
        }
        if self.connections == 0 {
            return Some(("guest.connections", "must be at least 1"));
        }
        None
    }
}
