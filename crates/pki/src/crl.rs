//! Revocation lists (RFC 5280, section 5): issued by [`Ca`], and checked by relying parties.
//!
//! [`Crl`] is the plain way, for a full CRL of one known CA. CRLs of every kind go into an
//! [`crate::Evidence`].

mod build;
mod list;

use std::sync::Arc;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use thiserror::Error;
use time::OffsetDateTime;

use crate::{Ca, IssueError, Validity, cert::Cert};
pub use build::{CrlEntry, CrlPlan, CrlSubjects};
pub(crate) use list::{ALL_REASONS, Entry, List, Number, point_names, point_reasons};

/// Longest CRL, in bytes.
const MAX_CRL: usize = 8 << 20;

/// Why a certificate was revoked (RFC 5280, section 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationReason {
    /// No reason is given.
    Unspecified,
    /// The key is not the holder's alone any more.
    KeyCompromise,
    /// The CA's key is not the CA's alone any more.
    CaCompromise,
    /// The holder's name or affiliation changed.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// The holder is no more.
    CessationOfOperation,
    /// Suspended.
    CertificateHold,
    /// On a delta only: not revoked any more.
    RemoveFromCrl,
    /// The holder may no longer do what the certificate allowed.
    PrivilegeWithdrawn,
    /// The key of an attribute authority is not its alone any more.
    AaCompromise,
}

/// A certificate to be named on a CRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its serial number, as in [`crate::Issued`].
    pub serial: [u8; 16],
    /// When it was revoked.
    pub at: OffsetDateTime,
    /// Why.
    pub reason: RevocationReason,
}

/// The rule that a CRL broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CrlRejection {
    /// A delta, and no full CRL that it can be added to.
    #[error("there is a delta CRL and no full CRL that it adds to")]
    BaseMissing,
    /// A critical extension that cannot be evaluated (for [`Crl`] also partial, indirect and delta
    /// CRLs).
    #[error("the CRL has a critical extension that is not known here")]
    ExtensionUnknown,
    /// Another CA's CRL.
    #[error("the CRL is that of another CA")]
    Issuer,
    /// The issuer's key must not sign CRLs.
    #[error("the CA's key must not sign CRLs")]
    IssuerKeyUsage,
    /// The signer of the CRL is not proven by a path to the same anchor, or may be revoked itself.
    #[error("the CRL's signer is not proven")]
    IssuerUnproven,
    /// Not one DER CRL of version 2.
    #[error("the CRL is malformed")]
    Malformed,
    /// There is no CRL that speaks about the certificate: none came, or it was withheld.
    #[error("there is no CRL that speaks about the certificate")]
    Missing,
    /// The CRLs that there are do not speak about every reason.
    #[error("the CRLs do not cover every reason for a revocation")]
    ReasonsUncovered,
    /// Its number is lower than one that was seen before.
    #[error("the CRL is older than one that was seen before")]
    RolledBack,
    /// Its signature does not verify.
    #[error("the CRL's signature does not verify")]
    Signature,
    /// Its next update is due, or it comes from the future.
    #[error("the CRL is out of date")]
    Stale,
    /// Over 8 MiB.
    #[error("the CRL is larger than 8 MiB")]
    TooLarge,
    /// More CRLs than are looked at.
    #[error("there are too many CRLs")]
    TooMany,
}

impl CrlRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BaseMissing => "crl-base-missing",
            Self::ExtensionUnknown => "crl-extension-unknown",
            Self::Issuer => "crl-issuer",
            Self::IssuerKeyUsage => "crl-issuer-key-usage",
            Self::IssuerUnproven => "crl-issuer-unproven",
            Self::Malformed => "crl-malformed",
            Self::Missing => "crl-missing",
            Self::ReasonsUncovered => "crl-reasons-uncovered",
            Self::RolledBack => "crl-rolled-back",
            Self::Signature => "crl-signature",
            Self::Stale => "crl-stale",
            Self::TooLarge => "crl-too-large",
            Self::TooMany => "crl-too-many",
        }
    }
}

impl Ca {
    /// Issues a full CRL, DER: `number` must grow from one to the next; `validity` is from this
    /// update to the next.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_crl(
        &self,
        number: u64,
        validity: Validity,
        revoked: &[Revocation],
    ) -> Result<Vec<u8>, IssueError> {
        let revoked_certs = revoked.iter().map(entry).collect();
        let params = CertificateRevocationListParams {
            this_update: validity.not_before,
            next_update: validity.not_after,
            crl_number: SerialNumber::from_slice(&number.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let crl = params.signed_by(self.issuer()).map_err(IssueError::building)?;
        Ok(crl.der().to_vec())
    }
}

fn entry(revocation: &Revocation) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(&revocation.serial),
        revocation_time: revocation.at,
        reason_code: reason(revocation.reason),
        invalidity_date: None,
    }
}

const fn reason(reason: RevocationReason) -> Option<rcgen::RevocationReason> {
    use rcgen::RevocationReason as R;
    Some(match reason {
        RevocationReason::Unspecified => return None,
        RevocationReason::KeyCompromise => R::KeyCompromise,
        RevocationReason::CaCompromise => R::CaCompromise,
        RevocationReason::AffiliationChanged => R::AffiliationChanged,
        RevocationReason::Superseded => R::Superseded,
        RevocationReason::CessationOfOperation => R::CessationOfOperation,
        RevocationReason::CertificateHold => R::CertificateHold,
        RevocationReason::RemoveFromCrl => R::RemoveFromCrl,
        RevocationReason::PrivilegeWithdrawn => R::PrivilegeWithdrawn,
        RevocationReason::AaCompromise => R::AaCompromise,
    })
}

/// A full CRL whose signature and dates were verified.
#[derive(Clone, Debug)]
pub struct Crl {
    list: Arc<List>,
    next_update: OffsetDateTime,
}

impl Crl {
    /// Verifies a CRL (DER) of the CA with this certificate (DER), which the caller trusts.
    ///
    /// # Errors
    /// [`CrlRejection`] says which rule said no.
    pub fn verify(der: &[u8], issuer: &[u8], now: OffsetDateTime) -> Result<Self, CrlRejection> {
        if der.len() > MAX_CRL {
            return Err(CrlRejection::TooLarge);
        }
        let issuer = Cert::parse(issuer).map_err(|_| CrlRejection::Issuer)?;
        let list = List::parse(der)?;
        if list.issuer_key != issuer.subject_key() {
            return Err(CrlRejection::Issuer);
        }
        if !issuer.ext().key_usage.is_none_or(|usage| usage.crl_sign()) {
            return Err(CrlRejection::IssuerKeyUsage);
        }
        if !list.signed_by(&issuer) {
            return Err(CrlRejection::Signature);
        }
        if list.unknown_critical || list.base.is_some() || !list.scope.der.is_empty() {
            return Err(CrlRejection::ExtensionUnknown);
        }
        let next_update = list.next_update.ok_or(CrlRejection::Stale)?;
        if now < list.this_update || now > next_update {
            return Err(CrlRejection::Stale);
        }
        Ok(Self { list: Arc::new(list), next_update })
    }

    /// Whether the certificate with this serial number (big-endian, as in a certificate) is
    /// revoked.
    #[must_use]
    pub fn is_revoked(&self, serial: &[u8]) -> bool {
        self.list.names(serial)
    }

    /// The serial numbers (as in certificates) that it names and `older` does not.
    #[must_use]
    pub fn names_besides(&self, older: Option<&Self>) -> Vec<Vec<u8>> {
        let known = |serial: &Vec<u8>| older.is_some_and(|older| older.is_revoked(serial));
        self.list.own_serials().filter(|serial| !known(serial)).collect()
    }

    /// When it was made.
    #[must_use]
    pub fn this_update(&self) -> OffsetDateTime {
        self.list.this_update
    }

    /// When the next CRL is due.
    #[must_use]
    pub const fn next_update(&self) -> OffsetDateTime {
        self.next_update
    }
}
