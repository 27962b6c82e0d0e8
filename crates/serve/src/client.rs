//! Client for JSON over HTTPS, or over a unix socket: one request, one answer, every wait bounded.
//!
//! **Invariants:** TLS 1.3 only, and only to servers that the given trust anchors certify; an
//! operation that is not idempotent is sent at most once; an answer is either the value asked
//! for, a [`Problem`], or an error that says whether anything was decided.

mod call;
mod exchange;
mod idle;
mod server;
mod transport;

use std::{path::Path, sync::Arc, time::Duration};

use http::StatusCode;
use model::Secret;
use rustls::{
    ClientConfig, ConfigBuilder, WantsVerifier,
    client::{Resumption, WantsClientCert},
};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

pub use call::Call;
pub use exchange::{Exchange, RawAnswer, RawRequest};
pub use server::ServerCheck;

use crate::{
    clock::SharedClock,
    https::{self, ClockTime, TlsError},
    pem::{self, PemError},
    problem::Problem,
};
use transport::Transport;

/// Bounds of a client.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Longest time to a connection, TLS handshake included.
    pub connect: Duration,
    /// Longest time from request to whole answer, unless the [`Call`] sets another.
    pub answer: Duration,
    /// Longest answer, in bytes.
    pub body: usize,
    /// How often an idempotent call is tried in all.
    pub attempts: u32,
    /// Wait before the second attempt; doubled for each further one, with jitter.
    pub back_off: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            body: 16 << 20,
            attempts: 4,
            back_off: Duration::from_millis(100),
        }
    }
}

/// Why there is no answer of the kind that was asked for.
#[derive(Debug, Error)]
pub enum CallError {
    /// The service decided: it refused, or could not do it.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// No connection; the service has not seen the request.
    #[error("cannot reach {to}")]
    Unreachable {
        /// Address or path.
        to: String,
        /// What the operating system or TLS said.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke after the request was sent; it may have been carried out.
    #[error("the connection to {to} broke before the answer")]
    Interrupted {
        /// Address or path.
        to: String,
        /// What broke.
        #[source]
        source: hyper::Error,
    },
    /// No whole answer in time; the request may have been carried out.
    #[error("no answer from {to} in time")]
    TimedOut {
        /// Address or path.
        to: String,
    },
    /// The answer is not what the operation answers with, or is too long.
    #[error("the answer from {to} cannot be used: {detail} (status {status})")]
    Malformed {
        /// Address or path.
        to: String,
        /// Its status.
        status: StatusCode,
        /// What is wrong.
        detail: String,
    },
    /// The request cannot be made: malformed path or body.
    #[error("the request cannot be made: {0}")]
    Request(String),
}

impl CallError {
    /// The problem with which the service answered, if it did.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Unreachable { .. }
            | Self::Interrupted { .. }
            | Self::TimedOut { .. }
            | Self::Malformed { .. }
            | Self::Request(_) => None,
        }
    }

    /// The name of the refusal, if a rule said no.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.problem().filter(|problem| problem.is_refusal()).map(|problem| problem.name.as_str())
    }

    /// What a [`ServerCheck`] said of the server, if that is why there is no connection.
    #[must_use]
    pub fn server_rejection(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        match self {
            Self::Unreachable { source, .. } => server::rejection(source),
            Self::Problem(_)
            | Self::Interrupted { .. }
            | Self::TimedOut { .. }
            | Self::Malformed { .. }
            | Self::Request(_) => None,
        }
    }

    /// Whether the service is away (as opposed to having answered).
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Interrupted { .. } | Self::TimedOut { .. })
    }
}

/// A URL or a piece of TLS set-up that cannot be used.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Not `https://HOST:PORT`.
    #[error("{0:?} is not of the form https://HOST:PORT")]
    Url(String),
    /// Keys or certificates that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Who the client is to the server: certificate chain (leaf first, DER) and key (PKCS#8 DER).
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate chain, leaf first, each DER.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's key, PKCS#8 DER.
    pub key: Secret<Vec<u8>>,
}

impl Identity {
    /// Certificate chain and key from PEM files; the key's file must be closed to others.
    ///
    /// # Errors
    /// [`PemError`] if a file cannot be read or holds something else.
    pub fn read(chain: &Path, key: &Path) -> Result<Self, PemError> {
        Ok(Self { chain: pem::read_certificates(chain)?, key: pem::read_key(key)? })
    }
}

/// A client of one service. Cheap to clone; clones share the idle connections.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<Transport>,
    limits: ClientLimits,
}

impl Client {
    /// A client of the service at `url` (`https://HOST:PORT`), certified by one of `anchors` (CA
    /// certificates, DER); `identity` is presented if the service asks for a certificate.
    ///
    /// # Errors
    /// [`ClientError`] if URL, anchors or identity cannot be used.
    pub fn https(
        url: &str,
        anchors: &[Vec<u8>],
        identity: Option<&Identity>,
        clock: SharedClock,
        limits: ClientLimits,
    ) -> Result<Self, ClientError> {
        let roots = https::anchors(anchors)?;
        let builder = builder(clock)?.with_root_certificates(roots);
        Self::over(url, builder, identity, limits)
    }

    /// A client of the service at `url` for which `check` decides whether its certificate will do.
    /// The host in `url` says only where to connect.
    ///
    /// # Errors
    /// [`ClientError`] if URL or identity cannot be used.
    pub fn checked(
        url: &str,
        check: Arc<dyn ServerCheck>,
        identity: Option<&Identity>,
        clock: SharedClock,
        limits: ClientLimits,
    ) -> Result<Self, ClientError> {
        let verifier = server::verifier(check, clock.clone());
        let builder =
            builder(clock)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        Self::over(url, builder, identity, limits)
    }

    fn over(
        url: &str,
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
        identity: Option<&Identity>,
        limits: ClientLimits,
    ) -> Result<Self, ClientError> {
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(Arc::new(https::identity(
                &identity.chain,
                &identity.key,
            )?)),
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let transport = Transport::tls(url, Arc::new(config))
            .ok_or_else(|| ClientError::Url(url.to_owned()))?;
        Ok(Self { transport: Arc::new(transport), limits })
    }

    /// A client of the service on the unix socket `path`.
    #[must_use]
    pub fn unix(path: &Path, limits: ClientLimits) -> Self {
        Self { transport: Arc::new(Transport::unix(path)), limits }
    }

    /// Reads `path`; retried when the service is away.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Call::get(path)).await
    }

    /// Sends `body` to `path` once and reads the answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn post<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, CallError> {
        self.call(Call::post(path).json(body)?).await
    }

    /// Makes any call. An answer without a body reads as JSON `null`, that is as `()`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, CallError> {
        call.run(&self.transport, &self.limits).await
    }
}

fn builder(clock: SharedClock) -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_details(provider, Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Identity)
}
