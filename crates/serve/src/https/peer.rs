//! Who is at the other end of a connection.

use std::{net::SocketAddr, sync::Arc};

use axum::extract::FromRequestParts;
use http::{StatusCode, request::Parts};
use thiserror::Error;
use time::OffsetDateTime;
use x509_cert::{Certificate, der::Decode as _};

use crate::problem::Problem;

/// The caller of a request; handlers take it as an argument.
///
/// **Invariant:** a certificate in here was verified to the server's client trust anchors and its
/// key was used in the handshake, but it may be outside its validity: [`Peer::certificate`] checks
/// that against the clock of *this request*, not of the handshake, because a connection can outlive
/// a short-lived certificate.
#[derive(Clone, Debug)]
pub struct Peer {
    kind: Kind,
    address: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
enum Kind {
    Anonymous,
    Certified(Arc<ClientCertificate>),
    Local { uid: u32, pid: Option<i32> },
}

/// Why a request is not served on behalf of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerRejection {
    /// The client presented no certificate.
    #[error("this operation needs a client certificate")]
    CertificateMissing,
    /// The client certificate's validity has not begun.
    #[error("the client certificate is not valid yet: the clocks differ")]
    ClockSkew,
    /// The client certificate's validity is over.
    #[error("the client certificate has expired")]
    SessionExpired,
}

impl PeerRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CertificateMissing => "certificate-missing",
            Self::ClockSkew => "clock-skew",
            Self::SessionExpired => "session-expired",
        }
    }
}

impl From<PeerRejection> for Problem {
    fn from(rejection: PeerRejection) -> Self {
        let problem = Self::refusal(rejection.name(), rejection.to_string());
        match rejection {
            PeerRejection::CertificateMissing => problem.status(StatusCode::UNAUTHORIZED),
            PeerRejection::ClockSkew => problem.hint("compare the clocks of both machines"),
            PeerRejection::SessionExpired => {
                problem.hint("attest again: a fresh verdict brings a fresh session certificate")
            }
        }
    }
}

impl Peer {
    pub(super) const fn anonymous(address: Option<SocketAddr>) -> Self {
        Self { kind: Kind::Anonymous, address }
    }

    pub(super) const fn local(uid: u32, pid: Option<i32>) -> Self {
        Self { kind: Kind::Local { uid, pid }, address: None }
    }

    pub(super) fn certified(certificate: ClientCertificate, address: Option<SocketAddr>) -> Self {
        Self { kind: Kind::Certified(Arc::new(certificate)), address }
    }

    /// Where the connection comes from, for limits and logs; `None` on a unix socket.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The client certificate, if there is one and `now` is within its validity.
    ///
    /// # Errors
    /// [`PeerRejection`], which converts to a [`Problem`].
    pub fn certificate(&self, now: OffsetDateTime) -> Result<&ClientCertificate, PeerRejection> {
        let certificate =
            self.certificate_at_any_time().ok_or(PeerRejection::CertificateMissing)?;
        if now < certificate.not_before {
            Err(PeerRejection::ClockSkew)
        } else if now > certificate.not_after {
            Err(PeerRejection::SessionExpired)
        } else {
            Ok(certificate)
        }
    }

    /// The client certificate even if it is outside its validity: to say in the audit log whose it
    /// was. Never to allow anything.
    #[must_use]
    pub fn certificate_at_any_time(&self) -> Option<&ClientCertificate> {
        match &self.kind {
            Kind::Certified(certificate) => Some(certificate),
            Kind::Anonymous | Kind::Local { .. } => None,
        }
    }

    /// The user at the other end of a unix socket.
    #[must_use]
    pub const fn local_uid(&self) -> Option<u32> {
        match self.kind {
            Kind::Local { uid, .. } => Some(uid),
            Kind::Anonymous | Kind::Certified(_) => None,
        }
    }

    /// The process at the other end of a unix socket, for logs only: it may be gone.
    #[must_use]
    pub const fn local_pid(&self) -> Option<i32> {
        match self.kind {
            Kind::Local { pid, .. } => pid,
            Kind::Anonymous | Kind::Certified(_) => None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::internal)
    }
}

/// A client certificate whose chain was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Start of its validity.
    pub not_before: OffsetDateTime,
    /// End of its validity.
    pub not_after: OffsetDateTime,
}

impl ClientCertificate {
    /// Reads the validity of a certificate; `None` if it is malformed.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let validity = *Certificate::from_der(der).ok()?.tbs_certificate().validity();
        let date = |time: x509_cert::time::Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok()?;
            OffsetDateTime::from_unix_timestamp(seconds).ok()
        };
        Some(Self {
            der: der.to_vec(),
            not_before: date(validity.not_before)?,
            not_after: date(validity.not_after)?,
        })
    }
}
