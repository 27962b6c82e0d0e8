//! Who asks: the one place where a connection's certificate becomes a right. Handlers take one of
//! [`Operator`], [`HostSession`], [`Anyone`] as an argument and cannot make one themselves.
//!
//! **Invariants:** an expired certificate gives no right (`session-expired`), and neither does one
//! of a host that was revoked since; a host's session never serves as an operator's certificate nor
//! the other way round; what a certificate says is read only after it was verified to our own CA.

use axum::extract::FromRequestParts;
use http::{StatusCode, request::Parts};
use model::{HostId, api::enrol::HostMode};
use pki::Purpose;
use serve::https::{ClientCertificate, Peer, PeerRejection};
use thiserror::Error;
use time::OffsetDateTime;

use crate::{
    app::App,
    audit::Actor,
    failure::Failure,
    keyring::BACK,
    record::host::{HostRecord, HostRejection},
    records::Versioned,
    refusal::Rejection,
};

/// Why a caller may not do what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum CallerRejection {
    /// The certificate is from the future.
    #[error("the certificate is not valid yet: the clocks differ")]
    ClockSkew,
    /// The certificate has expired.
    #[error("the session certificate has expired")]
    Expired,
    /// The certificate is none of ours, or neither a session's nor an operator's.
    #[error("the certificate is not a host session's")]
    NotAHost,
    /// Operators only.
    #[error("this operation is an operator's")]
    NotAnOperator,
    /// No certificate.
    #[error("this operation needs a host's session certificate")]
    SessionMissing,
}

impl Rejection for CallerRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::ClockSkew => "clock-skew",
            Self::Expired => "session-expired",
            Self::NotAHost | Self::SessionMissing => "session-missing",
            Self::NotAnOperator => "operator-required",
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::ClockSkew => "compare the clocks of both machines",
            Self::Expired | Self::NotAHost | Self::SessionMissing => {
                "the host attests: a good verdict brings a session certificate"
            }
            Self::NotAnOperator => "use an operator's client certificate",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::SessionMissing => StatusCode::UNAUTHORIZED,
            Self::ClockSkew | Self::Expired | Self::NotAHost | Self::NotAnOperator => {
                StatusCode::FORBIDDEN
            }
        }
    }
}

/// What a connection's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Nobody,
    /// A host, and when its certificate was issued (Unix milliseconds).
    Host(HostId, u64),
    Operator(String),
}

/// What the certificate says, at the time `when` of its validity.
fn read(app: &App, certificate: &ClientCertificate, when: OffsetDateTime) -> Known {
    let none: [&[u8]; 0] = [];
    let begins = certificate.not_before + BACK;
    let issued_at = begins.unix_timestamp_nanos() / 1_000_000;
    let issued_at = u64::try_from(issued_at).unwrap_or(0);
    let verified =
        pki::verify_chain(&certificate.der, &none, &app.keys.anchors, when, Purpose::TlsClient);
    let Ok(verified) = verified else { return Known::Nobody };
    match (verified.operator(), verified.host(), verified.verdict()) {
        (Some(name), None, None) => Known::Operator(name),
        (None, Some(host), Some(_)) => Known::Host(host, issued_at),
        _ => Known::Nobody,
    }
}

fn known(app: &App, peer: &Peer) -> Result<Known, CallerRejection> {
    let now = app.date();
    match peer.certificate(now) {
        Ok(certificate) => Ok(read(app, certificate, now)),
        Err(PeerRejection::CertificateMissing) => Ok(Known::Nobody),
        Err(PeerRejection::ClockSkew) => Err(CallerRejection::ClockSkew),
        Err(PeerRejection::SessionExpired) => Err(CallerRejection::Expired),
    }
}

/// How the audit log names the caller; for this an expired certificate counts too.
pub(crate) fn actor(app: &App, peer: &Peer) -> Actor {
    let Some(certificate) = peer.certificate_at_any_time() else { return Actor::anyone() };
    match read(app, certificate, certificate.not_before) {
        Known::Nobody => Actor::anyone(),
        Known::Host(host, _) => Actor::host(&host),
        Known::Operator(name) => Actor::operator(&name),
    }
}

/// Whether the caller has a certificate of ours in force: it is told more than the name of a
/// refusal, and is not counted among strangers.
pub(crate) fn is_known(app: &App, peer: &Peer) -> bool {
    known(app, peer).is_ok_and(|known| known != Known::Nobody)
}

/// An operator. Proof: made by extraction only.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    name: String,
}

impl Operator {
    /// The name in the certificate.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How the audit log names the operator.
    pub(crate) fn actor(&self) -> Actor {
        Actor::operator(&self.name)
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        match known(app, &peer(parts, app).await?)? {
            Known::Operator(name) => Ok(Self { name }),
            Known::Host(..) | Known::Nobody => Err(CallerRejection::NotAnOperator.into()),
        }
    }
}

/// A host with a session certificate in force that was not revoked meanwhile. Proof: made by
/// extraction only.
#[derive(Clone, Debug)]
pub(crate) struct HostSession {
    record: Versioned<HostRecord>,
}

impl HostSession {
    /// The host's name.
    pub(crate) const fn name(&self) -> &HostId {
        &self.record.value.name
    }

    /// The host's record as it was when the request came.
    pub(crate) const fn record(&self) -> &Versioned<HostRecord> {
        &self.record
    }

    /// How the audit log names the host.
    pub(crate) fn actor(&self) -> Actor {
        Actor::host(self.name())
    }
}

impl FromRequestParts<App> for HostSession {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let peer = peer(parts, app).await?;
        let (host, issued_at) = match known(app, &peer)? {
            Known::Host(host, issued_at) => (host, issued_at),
            Known::Operator(_) => return Err(CallerRejection::NotAHost.into()),
            Known::Nobody => return Err(CallerRejection::SessionMissing.into()),
        };
        let record = app.enrolled(&host).await?;
        match record.value.mode {
            HostMode::Revoked => return Err(HostRejection::Revoked.into()),
            HostMode::Pending => return Err(HostRejection::NotApproved.into()),
            HostMode::Enforcing | HostMode::AuditOnly => {}
        }
        record.value.is_present(issued_at)?;
        app.mark_seen(&host);
        Ok(Self { record })
    }
}

/// Anyone; the gate has bounded strangers.
#[derive(Clone, Debug)]
pub(crate) struct Anyone {
    /// The host, if the caller has its session.
    pub(crate) host: Option<HostId>,
}

impl FromRequestParts<App> for Anyone {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let peer = peer(parts, app).await?;
        let host = match known(app, &peer) {
            Ok(Known::Host(host, _)) => Some(host),
            Ok(Known::Operator(_) | Known::Nobody) | Err(_) => None,
        };
        Ok(Self { host })
    }
}

async fn peer(parts: &mut Parts, app: &App) -> Result<Peer, Failure> {
    Peer::from_request_parts(parts, app).await.map_err(|_| Failure::broken("no peer"))
}
