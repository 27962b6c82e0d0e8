//! Passports: whether the other end of a connection is the service that it should be.
//!
//! A passport is a short-lived certificate that the authority issued to a service of a host with a
//! fresh good verdict. Its names are identities and no addresses: what is compared is which service
//! it is and on which host, wherever it listens.

use model::{
    Digest, HostId,
    api::service::{Service, ServiceName},
};
use thiserror::Error;
use time::OffsetDateTime;

use crate::{Anchors, CertRejection, Purpose, verify_chain};

/// Who the other end must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which service.
    pub service: Service,
    /// On which host; none: on any.
    pub host: Option<HostId>,
}

impl Wanted {
    /// This service on any host.
    #[must_use]
    pub const fn any(service: Service) -> Self {
        Self { service, host: None }
    }

    /// This service of this host.
    #[must_use]
    pub const fn of(service: Service, host: HostId) -> Self {
        Self { service, host: Some(host) }
    }
}

/// Why the other end is not who it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PassportRejection {
    /// It has expired: the verdict that it rests on counts no more.
    #[error("the passport has expired: the verdict on its host counts no more")]
    Expired,
    /// No CA of ours vouches for it.
    #[error("the passport is none of this authority's")]
    Foreign(#[source] CertRejection),
    /// There is none: no certificate, or one that is no passport.
    #[error("the other end has no passport")]
    Missing,
    /// It is not valid yet: the clocks are apart.
    #[error("the passport is not valid yet: the clocks are apart")]
    NotYetValid,
    /// It is a service of another host.
    #[error("the passport is of another host")]
    WrongHost,
    /// It is another service.
    #[error("the passport is of another service")]
    WrongService,
}

impl PassportRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Expired => "passport-expired",
            Self::Foreign(_) => "passport-foreign",
            Self::Missing => "passport-missing",
            Self::NotYetValid => "passport-not-yet-valid",
            Self::WrongHost => "passport-wrong-host",
            Self::WrongService => "passport-wrong-service",
        }
    }

    /// What an operator can do next.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Expired => "`vouchsafe host show NAME` says how that host's verdict stands",
            Self::Foreign(_) => "both services must belong to the same authority",
            Self::Missing => {
                "the service asks its host's agent for a passport; see the agent's log"
            }
            Self::NotYetValid => "compare the clocks of both machines",
            Self::WrongHost | Self::WrongService => "compare the peer's address with its host",
        }
    }
}

/// A passport that was checked: **the proof**, made by [`check_passport`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePassport {
    name: ServiceName,
    verdict: Digest,
    spki: Vec<u8>,
    not_after: OffsetDateTime,
}

impl ServicePassport {
    /// Which service of which host.
    #[must_use]
    pub const fn name(&self) -> &ServiceName {
        &self.name
    }

    /// The host.
    #[must_use]
    pub const fn host(&self) -> &HostId {
        &self.name.host
    }

    /// The verdict that it rests on.
    #[must_use]
    pub const fn verdict(&self) -> Digest {
        self.verdict
    }

    /// Its key: SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Its last moment.
    #[must_use]
    pub const fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

/// Checks a passport, for a client ([`Purpose::TlsClient`]) or a server ([`Purpose::TlsServer`]).
///
/// # Errors
/// [`PassportRejection`] says why the other end is not who it must be.
pub fn check_passport<C: AsRef<[u8]>>(
    certificate: &[u8],
    intermediates: &[C],
    anchors: &Anchors,
    (now, purpose): (OffsetDateTime, Purpose),
    wanted: &Wanted,
) -> Result<ServicePassport, PassportRejection> {
    let verified = match verify_chain(certificate, intermediates, anchors, now, purpose) {
        Ok(verified) => verified,
        Err(CertRejection::Expired) => return Err(PassportRejection::Expired),
        Err(CertRejection::NotYetValid) => return Err(PassportRejection::NotYetValid),
        Err(other) => return Err(PassportRejection::Foreign(other)),
    };
    let (Some(name), Some(verdict)) = (verified.service(), verified.verdict()) else {
        return Err(PassportRejection::Missing);
    };
    if name.service != wanted.service {
        return Err(PassportRejection::WrongService);
    }
    if wanted.host.as_ref().is_some_and(|host| *host != name.host) {
        return Err(PassportRejection::WrongHost);
    }
    let (spki, not_after) = (verified.spki().to_vec(), verified.not_after());
    Ok(ServicePassport { name, verdict, spki, not_after })
}
