//! What a validation found: aspect by aspect, each with what it rests on.
//!
//! The four aspects are those of XKMS 2.0 (StatusValue's reasons). **Invariant:** [`Status::verdict`]
//! is valid only if each of the four was checked and found good.

use thiserror::Error;
use time::OffsetDateTime;

use crate::{CertRejection, CrlRejection, OcspRejection, RevocationReason};

/// What is asked about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// A path leads to a trust anchor, and everything on it allows the use that is asked.
    IssuerTrust,
    /// Nothing on the path was revoked.
    RevocationStatus,
    /// Everything on the path is within its validity.
    ValidityInterval,
    /// Every signature on the path verifies.
    Signature,
}

impl Aspect {
    /// All four.
    pub const ALL: [Self; 4] =
        [Self::IssuerTrust, Self::RevocationStatus, Self::ValidityInterval, Self::Signature];
}

/// By what an aspect was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ground {
    /// A path of this many certificates, the anchor included.
    Path(usize),
    /// For each certificate below the anchor, leaf first, what said that it is not revoked.
    NotRevoked(Vec<RevocationGround>),
    /// The dates of every certificate on the path, at this moment.
    At(OffsetDateTime),
    /// This many signatures, all of the path's.
    Signatures(usize),
}

/// What said that a certificate is not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationGround {
    /// CRLs that cover every reason; the newest was issued then.
    Crl(OffsetDateTime),
    /// The same, but one of them is out of date by no more than the grace that is allowed.
    CrlInGrace(OffsetDateTime),
    /// An OCSP answer of this moment.
    Ocsp(OffsetDateTime),
    /// The certificate's issuer says that it need not be asked about (id-pkix-ocsp-nocheck).
    NoCheck,
}

/// Why an aspect is bad, or open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A rule about certificates and paths.
    #[error(transparent)]
    Certificate(CertRejection),
    /// A rule about CRLs.
    #[error(transparent)]
    Crl(CrlRejection),
    /// A rule about OCSP.
    #[error(transparent)]
    Ocsp(OcspRejection),
    /// A certificate was revoked.
    #[error("a certificate of the path was revoked")]
    Revoked(Revoked),
    /// Nobody asked for this check.
    #[error("this was not checked")]
    NotChecked,
}

impl Refusal {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Certificate(rejection) => rejection.code(),
            Self::Crl(rejection) => rejection.code(),
            Self::Ocsp(rejection) => rejection.code(),
            Self::Revoked(_) => "certificate-revoked",
            Self::NotChecked => "not-checked",
        }
    }
}

/// A revocation that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Where on the path: 0 is the leaf.
    pub depth: usize,
    /// When.
    pub at: OffsetDateTime,
    /// Why, if it says.
    pub reason: Option<RevocationReason>,
}

/// What was found about one aspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It was checked and is good.
    Good(Ground),
    /// It was checked and is not.
    Bad(Refusal),
    /// It could not be checked, or was not.
    Open(Refusal),
}

/// The sum of a [`Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All four aspects were checked and are good.
    Valid,
    /// At least one is bad.
    Invalid,
    /// None is known to be bad, and at least one is open.
    Indeterminate,
}

/// What was found about each aspect. Made by [`crate::validate`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub(crate) issuer_trust: Finding,
    pub(crate) revocation: Finding,
    pub(crate) validity: Finding,
    pub(crate) signature: Finding,
}

impl Status {
    /// What was found about `aspect`.
    #[must_use]
    pub const fn finding(&self, aspect: Aspect) -> &Finding {
        match aspect {
            Aspect::IssuerTrust => &self.issuer_trust,
            Aspect::RevocationStatus => &self.revocation,
            Aspect::ValidityInterval => &self.validity,
            Aspect::Signature => &self.signature,
        }
    }

    /// The sum.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let any = |is: fn(&Finding) -> bool| Aspect::ALL.iter().any(|one| is(self.finding(*one)));
        if any(|finding| matches!(finding, Finding::Bad(_))) {
            Verdict::Invalid
        } else if any(|finding| matches!(finding, Finding::Open(_))) {
            Verdict::Indeterminate
        } else {
            Verdict::Valid
        }
    }

    /// The aspects that were found good: the reasons of a valid status, and part of the others'.
    pub fn good(&self) -> impl Iterator<Item = Aspect> + '_ {
        self.those(|finding| matches!(finding, Finding::Good(_)))
    }

    /// The aspects that were found bad.
    pub fn bad(&self) -> impl Iterator<Item = Aspect> + '_ {
        self.those(|finding| matches!(finding, Finding::Bad(_)))
    }

    /// The aspects that are open.
    pub fn open(&self) -> impl Iterator<Item = Aspect> + '_ {
        self.those(|finding| matches!(finding, Finding::Open(_)))
    }

    fn those(&self, which: fn(&Finding) -> bool) -> impl Iterator<Item = Aspect> + '_ {
        Aspect::ALL.into_iter().filter(move |one| which(self.finding(*one)))
    }

    /// Why the status is not valid: the first bad finding, else the first open one.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let all = || Aspect::ALL.iter().map(|aspect| self.finding(*aspect));
        let bad = all().find_map(|finding| match finding {
            Finding::Bad(refusal) => Some(*refusal),
            Finding::Good(_) | Finding::Open(_) => None,
        });
        bad.or_else(|| {
            all().find_map(|finding| match finding {
                Finding::Open(refusal) => Some(*refusal),
                Finding::Good(_) | Finding::Bad(_) => None,
            })
        })
    }

    /// When there is no path, and so nothing but the leaf's own dates was looked at.
    pub(crate) fn without_path(rejection: CertRejection, leaf_time: Option<CertRejection>) -> Self {
        use CertRejection as C;
        let why = Refusal::Certificate(rejection);
        let open = || Finding::Open(why);
        let mut status =
            Self { issuer_trust: open(), revocation: open(), validity: open(), signature: open() };
        match rejection {
            C::Signature | C::SignatureAlgorithm | C::IssuerKey => {
                status.signature = Finding::Bad(why);
            }
            C::Expired | C::NotYetValid => status.validity = Finding::Bad(why),
            C::IssuerUnknown | C::SearchTooLong | C::TooMany => {}
            C::ExtensionTwice
            | C::ExtensionUnknown
            | C::IssuerKeyUsage
            | C::IssuerNotCa
            | C::KeyUsage
            | C::LeafIsCa
            | C::Malformed
            | C::NameConstraintUnknown
            | C::NameExcluded
            | C::NameNotPermitted
            | C::PathTooLong
            | C::PolicyMapping
            | C::PolicyMissing
            | C::Purpose
            | C::TooLarge => status.issuer_trust = Finding::Bad(why),
        }
        if let Some(time) = leaf_time {
            status.validity = Finding::Bad(Refusal::Certificate(time));
        }
        status
    }
}
