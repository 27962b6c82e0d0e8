//! What the keeper hands its reader in a sealed memory file: settings, and the keys that are the
//! reader's own.

use model::keys::order::SecretBytes;
use serde::{Deserialize, Serialize};

use crate::config::Front;

/// Longest start message, bytes.
pub(crate) const LIMIT: usize = 1 << 20;

/// The start message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    /// The URI that requests must be addressed to.
    pub(crate) service: String,
    /// What strangers may ask.
    pub(crate) front: Front,
    /// The key that signs messages.
    pub(crate) message: Identity,
    /// Certificate and key of the server, if it speaks TLS.
    pub(crate) tls: Option<Identity>,
    /// What nonces are made under: it outlives a reader, so that a client in the middle of two
    /// phases may go on.
    pub(crate) nonce_key: SecretBytes,
    /// How long a guest's connection may be idle, seconds, if guests are served.
    pub(crate) guest_idle_s: Option<u64>,
    /// How many connections of guests may come over a network at once.
    pub(crate) guest_connections: usize,
}

/// A key and the certificates that vouch for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// Chain, leaf first, DER.
    pub(crate) chain: Vec<model::api::Bytes>,
    /// PKCS#8 DER.
    pub(crate) key: SecretBytes,
}
