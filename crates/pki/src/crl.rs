//! Revocation: full CRLs (RFC 5280, section 5) issued by [`Ca`] and checked by relying parties.

use der::{Decode as _, Encode as _};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use thiserror::Error;
use time::OffsetDateTime;
use x509_cert::{Version, crl::CertificateList};

use crate::{Ca, IssueError, Validity, cert, cert::Cert, verify::CertRejection};

/// Longest CRL, in bytes.
const MAX_CRL: usize = 8 << 20;

/// Why a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationReason {
    /// The key is not the holder's alone any more.
    KeyCompromise,
    /// The holder may no longer do what the certificate allowed.
    PrivilegeWithdrawn,
    /// Another certificate took its place.
    Superseded,
    /// The holder is no more.
    CessationOfOperation,
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
    /// A critical extension that cannot be evaluated here (partial, indirect or delta CRLs).
    #[error("the CRL has a critical extension that is not known here")]
    ExtensionUnknown,
    /// Another CA's CRL.
    #[error("the CRL is that of another CA")]
    Issuer,
    /// The issuer's key must not sign CRLs.
    #[error("the CA's key must not sign CRLs")]
    IssuerKeyUsage,
    /// Not one DER CRL of version 2.
    #[error("the CRL is malformed")]
    Malformed,
    /// Its signature does not verify.
    #[error("the CRL's signature does not verify")]
    Signature,
    /// Its next update is due, or it comes from the future.
    #[error("the CRL is out of date")]
    Stale,
    /// Over 8 MiB.
    #[error("the CRL is larger than 8 MiB")]
    TooLarge,
}

impl CrlRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ExtensionUnknown => "crl-extension-unknown",
            Self::Issuer => "crl-issuer",
            Self::IssuerKeyUsage => "crl-issuer-key-usage",
            Self::Malformed => "crl-malformed",
            Self::Signature => "crl-signature",
            Self::Stale => "crl-stale",
            Self::TooLarge => "crl-too-large",
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
        let crl = params.signed_by(self.issuer()).map_err(IssueError::Build)?;
        Ok(crl.der().to_vec())
    }
}

fn entry(revocation: &Revocation) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(&revocation.serial),
        revocation_time: revocation.at,
        reason_code: Some(match revocation.reason {
            RevocationReason::KeyCompromise => rcgen::RevocationReason::KeyCompromise,
            RevocationReason::PrivilegeWithdrawn => rcgen::RevocationReason::PrivilegeWithdrawn,
            RevocationReason::Superseded => rcgen::RevocationReason::Superseded,
            RevocationReason::CessationOfOperation => rcgen::RevocationReason::CessationOfOperation,
        }),
        invalidity_date: None,
    }
}

/// A CRL whose signature and dates were verified.
#[derive(Clone, Debug)]
pub struct Crl {
    /// Serial numbers, sorted.
    serials: Vec<Vec<u8>>,
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
        let list = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der)
            .map_err(|_| CrlRejection::Malformed)?;
        let body = &list.tbs_cert_list;
        if body.version != Version::V2 || body.signature != list.signature_algorithm {
            return Err(CrlRejection::Malformed);
        }
        if body.issuer.to_der().ok().as_deref() != Some(issuer.subject_der()) {
            return Err(CrlRejection::Issuer);
        }
        let usage = issuer.extension::<x509_cert::ext::pkix::KeyUsage>();
        if !usage.map_err(|_| CrlRejection::Issuer)?.is_none_or(|usage| usage.crl_sign()) {
            return Err(CrlRejection::IssuerKeyUsage);
        }
        let signed = cert::signed_part(der).map_err(|_| CrlRejection::Malformed)?;
        let signature = list.signature.as_bytes().ok_or(CrlRejection::Malformed)?;
        cert::verify_signed(&list.signature_algorithm, &signed, signature, issuer.spki())
            .map_err(|_: CertRejection| CrlRejection::Signature)?;
        Self::read(&list, now)
    }

    fn read(list: &CertificateList, now: OffsetDateTime) -> Result<Self, CrlRejection> {
        let body = &list.tbs_cert_list;
        let entries = body.revoked_certificates.as_deref().unwrap_or_default();
        let own = body.crl_extensions.iter();
        let all = own.chain(entries.iter().filter_map(|entry| entry.crl_entry_extensions.as_ref()));
        if all.flatten().any(|extension| extension.critical) {
            return Err(CrlRejection::ExtensionUnknown);
        }
        let date = |time| cert::date(time).map_err(|_| CrlRejection::Malformed);
        let next_update = date(body.next_update.ok_or(CrlRejection::Stale)?)?;
        if now < date(body.this_update)? || now > next_update {
            return Err(CrlRejection::Stale);
        }
        let mut serials: Vec<Vec<u8>> =
            entries.iter().map(|entry| entry.serial_number.as_bytes().to_vec()).collect();
        serials.sort();
        Ok(Self { serials, next_update })
    }

    /// Whether the certificate with this serial number (big-endian, as in a certificate) is
    /// revoked.
    #[must_use]
    pub fn is_revoked(&self, serial: &[u8]) -> bool {
        self.serials.binary_search_by(|known| known.as_slice().cmp(serial)).is_ok()
    }

    /// When the next CRL is due.
    #[must_use]
    pub const fn next_update(&self) -> OffsetDateTime {
        self.next_update
    }
}
