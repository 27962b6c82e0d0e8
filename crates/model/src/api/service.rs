//! Certificates of services (*passports*): a service of an attested host proves with it to other
//! services which service it is and on which host, for as long as that host's verdict counts.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Bytes;
use crate::{Digest, HostId, NameError};

/// A service that may have a passport. Its program is a component in the event log of the host that
/// it runs on ([`Self::component`]).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// The trust service of a server, `vouchsafe-trust`.
    Trust,
    /// The key-management centre, `vouchsafe-centre`.
    Centre,
    /// The end of `vouchsafe-trust` that guests of its server speak to. Its key is with the process
    /// that parses strangers' bytes, so it serves TLS to guests and proves nothing to services.
    TrustGuests,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Trust, Self::Centre, Self::TrustGuests];

    /// Whether its passport is for a TLS server alone.
    #[must_use]
    pub const fn only_serves(self) -> bool {
        matches!(self, Self::TrustGuests)
    }

    /// Kebab-case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Centre => "centre",
            Self::TrustGuests => "trust-guests",
        }
    }

    /// The name of its program in a host's event log.
    #[must_use]
    pub const fn component(self) -> &'static str {
        match self {
            Self::Trust | Self::TrustGuests => "vouchsafe:trust",
            Self::Centre => "vouchsafe:centre",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Service {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|service| service.as_str() == text);
        known.ok_or(NameError::Identifier)
    }
}

/// One service of one host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceName {
    /// Which service.
    pub service: Service,
    /// The host that it runs on.
    pub host: HostId,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.host)
    }
}

/// `POST /v1/services/certify` (host session), and on the agent's socket
/// `POST /v1/services/{service}/certify` with [`ServiceKey`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CertifyRequest {
    /// Which service of the host asks.
    pub service: Service,
    /// Its fresh key: SubjectPublicKeyInfo, DER, P-256.
    pub spki: Bytes,
}

/// What a service tells its host's agent.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceKey {
    /// Its fresh key: SubjectPublicKeyInfo, DER, P-256.
    pub spki: Bytes,
}

/// Answer to [`CertifyRequest`] and [`ServiceKey`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// The passport, DER.
    pub certificate: Bytes,
    /// Its end, which is that of the host's verdict, Unix milliseconds.
    pub expires_at: u64,
    /// The CAs that certify peers, DER.
    pub anchors: Vec<Bytes>,
}

/// `GET /v1/hosts/{host}/standing` (host session): whether the services of another host are to be
/// trusted now. A passport says what was so when it was issued; this says what is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostStanding {
    /// The host.
    pub host: HostId,
    /// Whether its last verdict is good and fresh, and it may hold keys.
    pub trusted: bool,
    /// Digest of that verdict, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Digest>,
    /// Services whose programs were measured and are endorsed.
    pub services: Vec<Service>,
}
