//! A certification authority: its certificate, its key, and issuing.

mod key;

use std::time::Duration;

use aws_lc_rs::rand;
use model::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use time::OffsetDateTime;

use crate::{Profile, cert::Cert, verify::CertRejection};
pub use key::CaSigner;
pub(crate) use key::{CaKey, KeyKind, kind_of};

/// A certificate or CRL could not be issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// Not the SPKI of a P-256 or P-384 key, or of an RSA key of 2048 to 8192 bits.
    #[error("the subject's key is not one that is certified here")]
    SubjectKey,
    /// Not the PKCS#8 form of a P-256 key.
    #[error("the CA's key is not a P-256 key in PKCS#8 form")]
    CaKey,
    /// Certificate and key of the CA do not belong together.
    #[error("the CA's certificate is for another key")]
    CaMismatch,
    /// The CA's certificate cannot be used.
    #[error("the CA's certificate cannot be used")]
    CaCertificate(#[source] CertRejection),
    /// No use was asked for that a key of this kind can serve.
    #[error("the key can serve none of the uses that are asked for")]
    KeyUses,
    /// A sub-CA below a CA that must have none.
    #[error("this CA must not have a CA below it")]
    PathLength,
    /// A name that cannot stand in a certificate.
    #[error("{0:?} cannot stand in a certificate")]
    Name(String),
    /// The validity is empty or reaches beyond that of the CA.
    #[error("the validity is empty or reaches beyond that of the CA")]
    Validity,
    /// No randomness for a key or serial number.
    #[error("the random generator failed")]
    Random,
    /// The CA's key is elsewhere and did not sign; it may do so later.
    #[error("the CA's key did not sign")]
    Signer,
    /// A value could not be encoded.
    #[error("a value cannot be encoded")]
    Encode(#[source] der::Error),
    /// The certificate could not be built or signed.
    #[error("the certificate cannot be built")]
    Build(#[source] rcgen::Error),
}

impl IssueError {
    /// What became of building and signing.
    pub(crate) fn building(error: rcgen::Error) -> Self {
        if matches!(error, rcgen::Error::RemoteKeyError) {
            Self::Signer
        } else {
            Self::Build(error)
        }
    }
}

/// When a certificate is valid; whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: OffsetDateTime,
    /// Last moment.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From `now` on, for `lifetime`.
    #[must_use]
    pub fn new(now: OffsetDateTime, lifetime: Duration) -> Self {
        Self::backdated(now, Duration::ZERO, lifetime)
    }

    /// From `back` before `now`, so that a verifier with a slow clock accepts it at once, to
    /// `lifetime` after `now`.
    #[must_use]
    pub fn backdated(now: OffsetDateTime, back: Duration, lifetime: Duration) -> Self {
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let seconds =
            |d: Duration| time::Duration::seconds(i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        Self {
            not_before: now.saturating_sub(seconds(back)),
            not_after: now.saturating_add(seconds(lifetime)),
        }
    }
}

/// What a CA is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSpec {
    /// Common name of its subject.
    pub common_name: String,
    /// How many CAs may be below it on a path: 0 for one that issues only to end entities.
    pub path_length: u8,
    /// Its validity.
    pub validity: Validity,
}

/// An issued certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its serial number, big-endian, 16 bytes: what a CRL names.
    pub serial: [u8; 16],
    /// Its validity.
    pub validity: Validity,
}

/// A certification authority that is ready to issue. Its `Debug` shows no key.
#[derive(Debug)]
pub struct Ca {
    issuer: Issuer<'static, CaKey>,
    certificate: Vec<u8>,
    validity: Validity,
    path_length: Option<u8>,
}

impl Ca {
    /// A new root with a new key, returned as PKCS#8 DER to be guarded by the caller.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn create_root(spec: &CaSpec) -> Result<(Self, Secret<Vec<u8>>), IssueError> {
        let (key, pkcs8) = CaKey::generate()?;
        Ok((Self::root(spec, key)?, pkcs8))
    }

    /// A new root for a key that is elsewhere.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn create_root_for(spec: &CaSpec, key: Box<dyn CaSigner>) -> Result<Self, IssueError> {
        Self::root(spec, CaKey::elsewhere(key)?)
    }

    fn root(spec: &CaSpec, key: CaKey) -> Result<Self, IssueError> {
        let certificate = ca_params(spec)?.self_signed(&key).map_err(IssueError::building)?;
        Self::assemble(certificate.der().to_vec(), key)
    }

    /// A new CA below this one, with a new key, returned as PKCS#8 DER.
    ///
    /// # Errors
    /// [`IssueError`], also if it would be deeper or live longer than this CA allows.
    pub fn create_sub(&self, spec: &CaSpec) -> Result<(Self, Secret<Vec<u8>>), IssueError> {
        let (key, pkcs8) = CaKey::generate()?;
        Ok((self.sub(spec, key)?, pkcs8))
    }

    /// A new CA below this one, for a key that is elsewhere.
    ///
    /// # Errors
    /// As [`Ca::create_sub`].
    pub fn create_sub_for(
        &self,
        spec: &CaSpec,
        key: Box<dyn CaSigner>,
    ) -> Result<Self, IssueError> {
        self.sub(spec, CaKey::elsewhere(key)?)
    }

    fn sub(&self, spec: &CaSpec, key: CaKey) -> Result<Self, IssueError> {
        if self.path_length.is_some_and(|mine| spec.path_length >= mine) {
            return Err(IssueError::PathLength);
        }
        self.check_validity(spec.validity)?;
        let mut params = ca_params(spec)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(IssueError::building)?;
        Self::assemble(certificate.der().to_vec(), key)
    }

    /// A CA from its certificate (DER) and key (PKCS#8 DER).
    ///
    /// # Errors
    /// [`IssueError`] if they do not belong together or are no CA.
    pub fn load(certificate: Vec<u8>, key: &Secret<Vec<u8>>) -> Result<Self, IssueError> {
        Self::assemble(certificate, CaKey::from_pkcs8(key.expose())?)
    }

    /// A CA from its certificate (DER) and a key that is elsewhere.
    ///
    /// # Errors
    /// As [`Ca::load`].
    pub fn load_for(certificate: Vec<u8>, key: Box<dyn CaSigner>) -> Result<Self, IssueError> {
        Self::assemble(certificate, CaKey::elsewhere(key)?)
    }

    fn assemble(certificate: Vec<u8>, key: CaKey) -> Result<Self, IssueError> {
        let parsed = Cert::parse(&certificate).map_err(IssueError::CaCertificate)?;
        let constraints = parsed.issuing().map_err(IssueError::CaCertificate)?;
        if parsed.spki() != key.spki() {
            return Err(IssueError::CaMismatch);
        }
        let (not_before, not_after) = (parsed.not_before(), parsed.not_after());
        let der = CertificateDer::from(certificate.as_slice());
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(IssueError::building)?;
        let validity = Validity { not_before, not_after };
        Ok(Self { issuer, validity, path_length: constraints, certificate })
    }

    /// The CA's certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The CA's validity.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Issues a certificate for the key `spki` (SubjectPublicKeyInfo, DER). That the subject has
    /// the private key, and the right to the names, is for the caller to know.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(
        &self,
        profile: &Profile,
        spki: &[u8],
        validity: Validity,
    ) -> Result<Issued, IssueError> {
        self.issue_as(random_serial()?, profile, spki, validity)
    }

    /// As [`Ca::issue`], with a serial number that the caller has reserved. It must be positive,
    /// and never used twice.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_as(
        &self,
        serial: [u8; 16],
        profile: &Profile,
        spki: &[u8],
        validity: Validity,
    ) -> Result<Issued, IssueError> {
        self.check_validity(validity)?;
        let kind = kind_of(spki).ok_or(IssueError::SubjectKey)?;
        let subject = SubjectPublicKeyInfo::from_der(spki).map_err(|_| IssueError::SubjectKey)?;
        let mut params = profile.params(kind)?;
        stamp(&mut params, serial, validity);
        let certificate = params.signed_by(&subject, &self.issuer).map_err(IssueError::building)?;
        Ok(Issued { der: certificate.der().to_vec(), serial, validity })
    }

    pub(crate) const fn issuer(&self) -> &Issuer<'static, CaKey> {
        &self.issuer
    }

    fn check_validity(&self, asked: Validity) -> Result<(), IssueError> {
        let within =
            asked.not_before < asked.not_after && asked.not_after <= self.validity.not_after;
        if within { Ok(()) } else { Err(IssueError::Validity) }
    }
}

fn ca_params(spec: &CaSpec) -> Result<CertificateParams, IssueError> {
    if spec.validity.not_before >= spec.validity.not_after {
        return Err(IssueError::Validity);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Vouchsafe");
    params.distinguished_name.push(DnType::CommonName, spec.common_name.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(spec.path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    stamp(&mut params, random_serial()?, spec.validity);
    Ok(params)
}

/// A new serial number: 126 random bits below a one, so that its length is fixed and it is positive
/// (RFC 5280, section 4.1.2.2).
pub(crate) fn random_serial() -> Result<[u8; 16], IssueError> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| IssueError::Random)?;
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(serial)
}

fn stamp(params: &mut CertificateParams, serial: [u8; 16], validity: Validity) {
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
}
