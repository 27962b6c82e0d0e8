//! One certificate, parsed with limits. Nothing in it is believed until [`crate::verify_chain`]
//! has been there.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use der::{
    Decode as _, Encode as _, Reader as _, SliceReader,
    asn1::{AnyRef, ObjectIdentifier},
    oid::AssociatedOid,
};
use time::OffsetDateTime;
use x509_cert::{
    Certificate, Version,
    ext::pkix::{
        AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName,
        SubjectKeyIdentifier,
    },
    spki::AlgorithmIdentifierOwned,
};

use crate::{ca, verify::CertRejection};

/// Longest certificate, in bytes.
pub(crate) const MAX_CERTIFICATE: usize = 16 << 10;

const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
const ECDSA_WITH_SHA384: &str = "1.2.840.10045.4.3.3";
const RSA_WITH_SHA256: &str = "1.2.840.113549.1.1.11";
const RSA_WITH_SHA384: &str = "1.2.840.113549.1.1.12";
const RSA_WITH_SHA512: &str = "1.2.840.113549.1.1.13";

/// Extensions that may be critical: those that are evaluated here, and certificatePolicies, which
/// restricts nothing as long as nobody requires a policy (RFC 5280, section 6.1.5 (g)).
const KNOWN_CRITICAL: [ObjectIdentifier; 5] = [
    BasicConstraints::OID,
    KeyUsage::OID,
    ExtendedKeyUsage::OID,
    SubjectAltName::OID,
    ObjectIdentifier::new_unwrap("2.5.29.32"),
];
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");

/// A parsed certificate together with the bytes that were signed.
#[derive(Clone, Debug)]
pub(crate) struct Cert {
    der: Vec<u8>,
    tbs: Vec<u8>,
    parsed: Certificate,
    spki: Vec<u8>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Cert {
    /// Parses one DER certificate and nothing after it.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, CertRejection> {
        if der.len() > MAX_CERTIFICATE {
            return Err(CertRejection::TooLarge);
        }
        let parsed = Certificate::from_der(der).map_err(|_| CertRejection::Malformed)?;
        let tbs = signed_part(der).map_err(|_| CertRejection::Malformed)?;
        let body = parsed.tbs_certificate();
        let bytes =
            |value: Result<Vec<u8>, der::Error>| value.map_err(|_| CertRejection::Malformed);
        let spki = bytes(body.subject_public_key_info().to_der())?;
        let (subject, issuer) = (bytes(body.subject().to_der())?, bytes(body.issuer().to_der())?);
        let not_before = date(body.validity().not_before)?;
        let not_after = date(body.validity().not_after)?;
        let cert =
            Self { der: der.to_vec(), tbs, spki, subject, issuer, not_before, not_after, parsed };
        cert.check_form()?;
        Ok(cert)
    }

    fn check_form(&self) -> Result<(), CertRejection> {
        let body = self.parsed.tbs_certificate();
        if body.version() != Version::V3 || body.signature() != self.parsed.signature_algorithm() {
            return Err(CertRejection::Malformed);
        }
        let extensions = body.extensions().map(Vec::as_slice).unwrap_or_default();
        let mut seen = Vec::new();
        for extension in extensions {
            let id = extension.extn_id;
            if seen.contains(&id) {
                return Err(CertRejection::ExtensionTwice);
            }
            let unknown = extension.critical && !KNOWN_CRITICAL.contains(&id);
            if unknown || id == NAME_CONSTRAINTS {
                return Err(CertRejection::ExtensionUnknown);
            }
            seen.push(id);
        }
        Ok(())
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject
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

    pub(crate) const fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    pub(crate) const fn not_after(&self) -> OffsetDateTime {
        self.not_after
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

    /// The extension `T`, parsed.
    pub(crate) fn extension<T>(&self) -> Result<Option<T>, CertRejection>
    where
        T: for<'a> der::Decode<'a> + AssociatedOid,
    {
        let found = self.parsed.tbs_certificate().get_extension::<T>();
        found
            .map(|found| found.map(|(_critical, value)| value))
            .map_err(|_| CertRejection::Malformed)
    }

    /// Whether the certificate says that its subject is a CA.
    pub(crate) fn is_ca(&self) -> Result<bool, CertRejection> {
        Ok(self.extension::<BasicConstraints>()?.is_some_and(|constraints| constraints.ca))
    }

    /// Checks that the certificate may issue others; returns how many CAs may be below it.
    pub(crate) fn issuing(&self) -> Result<Option<u8>, CertRejection> {
        let constraints =
            self.extension::<BasicConstraints>()?.ok_or(CertRejection::IssuerNotCa)?;
        if !constraints.ca {
            return Err(CertRejection::IssuerNotCa);
        }
        if self.extension::<KeyUsage>()?.is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(CertRejection::IssuerKeyUsage);
        }
        Ok(constraints.path_len_constraint)
    }

    /// Whether `issuer` can have issued this certificate, going by names and key identifiers.
    pub(crate) fn may_be_issued_by(&self, issuer: &Self) -> bool {
        if self.issuer != issuer.subject {
            return false;
        }
        let wanted = self.extension::<AuthorityKeyIdentifier>().ok().flatten();
        let wanted = wanted.and_then(|id| id.key_identifier);
        let own = issuer.extension::<SubjectKeyIdentifier>().ok().flatten();
        match (wanted, own) {
            (Some(wanted), Some(own)) => wanted == own.0,
            (None, _) | (_, None) => true,
        }
    }

    /// Verifies this certificate's signature with the key of `issuer`.
    pub(crate) fn verify_signature(&self, issuer: &Self) -> Result<(), CertRejection> {
        let signature = self.parsed.signature().as_bytes().ok_or(CertRejection::Malformed)?;
        verify_signed(self.parsed.signature_algorithm(), &self.tbs, signature, issuer.spki())
    }
}

/// Verifies `signature` over `message` with the key `spki`.
pub(crate) fn verify_signed(
    algorithm: &AlgorithmIdentifierOwned,
    message: &[u8],
    signature: &[u8],
    spki: &[u8],
) -> Result<(), CertRejection> {
    let candidates: &[&'static dyn VerificationAlgorithm] = match algorithm.oid.to_string().as_str()
    {
        ECDSA_WITH_SHA256 => &[&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1],
        ECDSA_WITH_SHA384 => &[&ECDSA_P256_SHA384_ASN1, &ECDSA_P384_SHA384_ASN1],
        RSA_WITH_SHA256 => &[&RSA_PKCS1_2048_8192_SHA256],
        RSA_WITH_SHA384 => &[&RSA_PKCS1_2048_8192_SHA384],
        RSA_WITH_SHA512 => &[&RSA_PKCS1_2048_8192_SHA512],
        _ => return Err(CertRejection::SignatureAlgorithm),
    };
    if ca::kind_of(spki).is_none() {
        return Err(CertRejection::IssuerKey);
    }
    // A strong key parses under the one algorithm that has its curve or family.
    let key = candidates
        .iter()
        .find_map(|algorithm| ParsedPublicKey::new(*algorithm, spki).ok())
        .ok_or(CertRejection::IssuerKey)?;
    key.verify_sig(message, signature).map_err(|_| CertRejection::Signature)
}

/// The first element of the outer sequence: the bytes that are signed, exactly as they came.
pub(crate) fn signed_part(der: &[u8]) -> der::Result<Vec<u8>> {
    let outer = AnyRef::from_der(der)?;
    Ok(SliceReader::new(outer.value())?.tlv_bytes()?.to_vec())
}

pub(crate) fn date(time: x509_cert::time::Time) -> Result<OffsetDateTime, CertRejection> {
    let seconds = i64::try_from(time.to_unix_duration().as_secs());
    let seconds = seconds.map_err(|_| CertRejection::Malformed)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CertRejection::Malformed)
}
