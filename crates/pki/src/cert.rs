//! One certificate, parsed with limits. Nothing in it is believed until a path to an anchor was
//! verified.

mod extensions;
mod key;

use std::{ops::Range, sync::OnceLock, time::Duration};

use der::{
    DateTime, Decode as _, Encode as _, Reader as _, SliceReader,
    asn1::{AnyRef, GeneralizedTime, UtcTime},
};
use time::OffsetDateTime;
use x509_cert::{Certificate, Version, ext::pkix::NameConstraints, time::Time};

use crate::{dn::Dn, verify::CertRejection};
pub(crate) use extensions::Extensions;
pub(crate) use key::Key;

/// Longest certificate, in bytes.
pub(crate) const MAX_CERTIFICATE: usize = 16 << 10;

/// A parsed certificate together with the bytes that were signed.
#[derive(Debug)]
pub(crate) struct Cert {
    der: Vec<u8>,
    tbs: Range<usize>,
    parsed: Certificate,
    spki: Vec<u8>,
    subject: Dn,
    issuer: Dn,
    subject_key: Vec<u8>,
    issuer_key: Vec<u8>,
    serial: Vec<u8>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    extensions: Extensions,
    key: OnceLock<Result<Key, CertRejection>>,
    /// The key that is known to have signed this certificate.
    proven: OnceLock<Vec<u8>>,
}

impl Cert {
    /// Parses one DER certificate and nothing after it.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertRejection> {
        if der.len() > MAX_CERTIFICATE {
            return Err(CertRejection::TooLarge);
        }
        let parsed = Certificate::from_der(der).map_err(|_| CertRejection::Malformed)?;
        if parsed.tbs_certificate().version() != Version::V3 {
            return Err(CertRejection::Malformed);
        }
        let extensions = Extensions::read(parsed.tbs_certificate())?;
        Self::assemble(der, parsed, extensions).map_err(|_| CertRejection::Malformed)
    }

    fn assemble(der: &[u8], parsed: Certificate, extensions: Extensions) -> der::Result<Self> {
        let body = parsed.tbs_certificate();
        if body.signature() != parsed.signature_algorithm() {
            return Err(der::ErrorKind::Failed.into());
        }
        let (subject, issuer) = (Dn::new(body.subject())?, Dn::new(body.issuer())?);
        Ok(Self {
            der: der.to_vec(),
            tbs: signed_range(der)?,
            spki: body.subject_public_key_info().to_der()?,
            subject_key: subject.key(),
            issuer_key: issuer.key(),
            subject,
            issuer,
            serial: body.serial_number().to_der()?,
            not_before: date(body.validity().not_before)?,
            not_after: date(body.validity().not_after)?,
            extensions,
            key: OnceLock::new(),
            proven: OnceLock::new(),
            parsed,
        })
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The public key's bits alone, as OCSP hashes them.
    pub(crate) fn key_bits(&self) -> &[u8] {
        let key = &self.parsed.tbs_certificate().subject_public_key_info().subject_public_key;
        key.as_bytes().unwrap_or_default()
    }

    pub(crate) const fn subject(&self) -> &Dn {
        &self.subject
    }

    pub(crate) const fn issuer(&self) -> &Dn {
        &self.issuer
    }

    /// What the subject is found by.
    pub(crate) fn subject_key(&self) -> &[u8] {
        &self.subject_key
    }

    /// What the issuer is found by.
    pub(crate) fn issuer_key(&self) -> &[u8] {
        &self.issuer_key
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject_key == self.issuer_key
    }

    pub(crate) fn subject_name(&self) -> &x509_cert::name::Name {
        self.parsed.tbs_certificate().subject()
    }

    pub(crate) fn issuer_name(&self) -> &x509_cert::name::Name {
        self.parsed.tbs_certificate().issuer()
    }

    pub(crate) fn subject_text(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    pub(crate) fn issuer_text(&self) -> String {
        self.parsed.tbs_certificate().issuer().to_string()
    }

    pub(crate) fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate().serial_number().as_bytes()
    }

    /// The serial number's DER: unlike its bytes, with its sign.
    pub(crate) fn serial_der(&self) -> &[u8] {
        &self.serial
    }

    pub(crate) const fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    pub(crate) const fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    pub(crate) const fn ext(&self) -> &Extensions {
        &self.extensions
    }

    pub(crate) const fn name_constraints(&self) -> Option<&NameConstraints> {
        self.extensions.name_constraints.as_ref()
    }

    pub(crate) fn check_time(&self, now: OffsetDateTime) -> Result<(), CertRejection> {
        if now < self.not_before {
            Err(CertRejection::NotYetValid)
        } else if now > self.not_after {
            Err(CertRejection::Expired)
        } else {
            Ok(())
        }
    }

    /// Whether the certificate says that its subject is a CA.
    pub(crate) fn is_ca(&self) -> bool {
        self.extensions.ca
    }

    /// Checks that the certificate may issue others; returns how many CAs may be below it.
    pub(crate) fn issuing(&self) -> Result<Option<u8>, CertRejection> {
        if self.extensions.unknown_critical {
            return Err(CertRejection::ExtensionUnknown);
        }
        if !self.extensions.ca {
            return Err(CertRejection::IssuerNotCa);
        }
        if self.extensions.key_usage.is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(CertRejection::IssuerKeyUsage);
        }
        Ok(self.extensions.path_length)
    }

    /// Whether the key identifiers of this certificate and `issuer` do not contradict each other.
    pub(crate) fn fits_key_of(&self, issuer: &Self) -> bool {
        match (&self.extensions.authority_key, &issuer.extensions.subject_key) {
            (Some(wanted), Some(own)) => wanted == own,
            (None, _) | (_, None) => true,
        }
    }

    /// Verifies this certificate's signature with the key of `issuer`; a good answer is kept, for
    /// it cannot change.
    pub(crate) fn verify_signature(&self, issuer: &Self) -> Result<(), CertRejection> {
        if self.proven.get().is_some_and(|key| key == issuer.spki()) {
            return Ok(());
        }
        let signature = self.parsed.signature().as_bytes().ok_or(CertRejection::Malformed)?;
        let tbs = self.der.get(self.tbs.clone()).ok_or(CertRejection::Malformed)?;
        issuer.verify(self.parsed.signature_algorithm(), tbs, signature)?;
        self.proven.get_or_init(|| issuer.spki().to_vec());
        Ok(())
    }

    /// Verifies `signature` over `message` with the key of this certificate.
    pub(crate) fn verify(
        &self,
        algorithm: &x509_cert::spki::AlgorithmIdentifierOwned,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CertRejection> {
        key::check_algorithm(algorithm)?;
        let key = self.key.get_or_init(|| Key::parse(&self.spki));
        key.as_ref().map_err(|rejection| *rejection)?.verify(algorithm, message, signature)
    }
}

/// The first element of the outer sequence: the bytes that are signed, exactly as they came.
pub(crate) fn signed_part(der: &[u8]) -> der::Result<Vec<u8>> {
    let outer = AnyRef::from_der(der)?;
    Ok(SliceReader::new(outer.value())?.tlv_bytes()?.to_vec())
}

fn signed_range(der: &[u8]) -> der::Result<Range<usize>> {
    let outer = AnyRef::from_der(der)?;
    let length = SliceReader::new(outer.value())?.tlv_bytes()?.len();
    // Nothing follows the outer element, so that its value ends where the bytes end.
    let start = der.len().saturating_sub(outer.value().len());
    Ok(start..start.saturating_add(length))
}

pub(crate) fn date(time: Time) -> der::Result<OffsetDateTime> {
    let bad = || der::Error::from(der::ErrorKind::DateTime);
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).map_err(|_| bad())?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| bad())
}

/// UTCTime to 2049, GeneralizedTime from then on (RFC 5280, section 4.1.2.5).
pub(crate) fn time(at: OffsetDateTime) -> der::Result<Time> {
    let at = date_time(at)?;
    if at.year() < 2050 {
        Ok(Time::UtcTime(UtcTime::from_date_time(at)?))
    } else {
        Ok(Time::GeneralTime(GeneralizedTime::from_date_time(at)))
    }
}

pub(crate) fn generalized(at: OffsetDateTime) -> der::Result<GeneralizedTime> {
    Ok(GeneralizedTime::from_date_time(date_time(at)?))
}

fn date_time(at: OffsetDateTime) -> der::Result<DateTime> {
    let seconds = u64::try_from(at.unix_timestamp()).map_err(|_| der::ErrorKind::DateTime)?;
    DateTime::from_unix_duration(Duration::from_secs(seconds))
}
