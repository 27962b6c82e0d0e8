//! An axum router over TLS 1.3, over a unix socket for local callers, or, where messages are
//! protected by themselves, over plain HTTP.
//!
//! **Invariants:** TLS 1.3 only; no session is resumed, so every connection's client certificate
//! was verified against the present trust anchors; every size and every wait has a bound; the
//! caller's identity reaches handlers as [`Peer`] and nowhere else.
//!
//! Limits: handshake and request head 10 s (also how long an idle connection is kept), body
//! 1 MiB, 512 connections; all in [`Limits`].

mod connection;
mod listen;
mod live;
mod peer;
mod shake;
mod verifier;

use std::{sync::Arc, time::Duration};

use model::Secret;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::sign::any_supported_type,
    server::{NoServerSessionStorage, ResolvesServerCert},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use thiserror::Error;

pub use listen::{ListenError, Server, UnixServer};
pub use live::LiveIdentity;
pub use peer::{ClientCertificate, Peer, PeerRejection};
pub use shake::serve_stream;

use crate::clock::SharedClock;

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request body, in bytes.
    pub body: usize,
    /// Longest TLS handshake.
    pub handshake: Duration,
    /// Longest wait for a request's head, and for the next request on a connection.
    pub head: Duration,
    /// Connections open at once; more wait in the kernel's queue.
    pub connections: usize,
    /// How long running requests may go on after the wish to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 1 << 20,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            connections: 512,
            drain: Duration::from_secs(10),
        }
    }
}

/// Keys and certificates that cannot be used for TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Not a PKCS#8, SEC1 or PKCS#1 key.
    #[error("the private key cannot be parsed")]
    Key,
    /// A trust anchor cannot be parsed or there is none.
    #[error("a trust anchor cannot be parsed or there is none")]
    Anchor,
    /// Certificate and key do not fit, or the chain is malformed.
    #[error("certificate and key cannot be used for TLS")]
    Identity(#[source] rustls::Error),
}

/// The TLS side of a server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
}

impl ServerTls {
    /// A server with this certificate chain (leaf first, DER) and its key (PKCS#8 DER).
    ///
    /// `client_anchors` are the CA certificates (DER) of which clients may present certificates. A
    /// client without one is let in as [`Peer`] without certificate; one with a certificate from
    /// elsewhere fails the handshake; one whose certificate is outside its validity is let in and
    /// refused by [`Peer::certificate`] with a name that the caller can act on.
    ///
    /// # Errors
    /// [`TlsError`] if a key or certificate cannot be used.
    pub fn new(
        chain: &[Vec<u8>],
        key: &Secret<Vec<u8>>,
        client_anchors: &[Vec<u8>],
        clock: SharedClock,
    ) -> Result<Self, TlsError> {
        Self::resolved(Arc::new(identity(chain, key)?), client_anchors, clock)
    }

    /// The same with an identity that changes while the server runs: each handshake takes the one
    /// of its moment.
    ///
    /// # Errors
    /// [`TlsError`] if an anchor cannot be used.
    pub fn live(
        identity: &LiveIdentity,
        client_anchors: &[Vec<u8>],
        clock: SharedClock,
    ) -> Result<Self, TlsError> {
        Self::resolved(Arc::new(identity.clone()), client_anchors, clock)
    }

    fn resolved(
        resolver: Arc<dyn ResolvesServerCert>,
        client_anchors: &[Vec<u8>],
        clock: SharedClock,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_details(provider.clone(), Arc::new(ClockTime(clock)))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(TlsError::Identity)?;
        let builder = if client_anchors.is_empty() {
            builder.with_no_client_auth()
        } else {
            builder.with_client_cert_verifier(verifier::SessionVerifier::new(
                client_anchors,
                provider,
            )?)
        };
        let mut config = builder.with_cert_resolver(resolver);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }
}

/// Certificate chain and key as rustls uses them. The key's bytes are not copied: aws-lc keeps its
/// own form of the key and wipes that when it is dropped.
pub(crate) fn identity(
    chain: &[Vec<u8>],
    key: &Secret<Vec<u8>>,
) -> Result<SingleCertAndKey, TlsError> {
    certified(chain, key).map(SingleCertAndKey::from)
}

pub(crate) fn certified(
    chain: &[Vec<u8>],
    key: &Secret<Vec<u8>>,
) -> Result<CertifiedKey, TlsError> {
    let key = PrivateKeyDer::try_from(key.expose().as_slice()).map_err(|_| TlsError::Key)?;
    let key = any_supported_type(&key).map_err(|_| TlsError::Key)?;
    let certified = CertifiedKey::new(owned_chain(chain), key);
    certified.keys_match().map_err(TlsError::Identity)?;
    Ok(certified)
}

fn owned_chain(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().cloned().map(CertificateDer::from).collect()
}

pub(crate) fn anchors(anchors: &[Vec<u8>]) -> Result<rustls::RootCertStore, TlsError> {
    let mut store = rustls::RootCertStore::empty();
    for der in owned_chain(anchors) {
        store.add(der).map_err(|_| TlsError::Anchor)?;
    }
    if store.is_empty() { Err(TlsError::Anchor) } else { Ok(store) }
}

/// The process's clock as rustls wants it.
#[derive(Debug)]
pub(crate) struct ClockTime(pub(crate) SharedClock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.unix_ms())))
    }
}
