//! The keys and signature algorithms that are accepted: ECDSA on P-256 and P-384 with SHA-256 or
//! SHA-384, RSA (PKCS #1, 2048 to 8192 bits) with SHA-256, SHA-384 or SHA-512.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, VerificationAlgorithm,
};
use der::asn1::ObjectIdentifier as Oid;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::{ca, verify::CertRejection};

const ECDSA_WITH_SHA256: Oid = Oid::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: Oid = Oid::new_unwrap("1.2.840.10045.4.3.3");
const RSA_WITH_SHA256: Oid = Oid::new_unwrap("1.2.840.113549.1.1.11");
const RSA_WITH_SHA384: Oid = Oid::new_unwrap("1.2.840.113549.1.1.12");
const RSA_WITH_SHA512: Oid = Oid::new_unwrap("1.2.840.113549.1.1.13");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Rsa,
}

/// A public key that is strong enough, parsed once for the algorithm it most often meets.
#[derive(Debug)]
pub(crate) struct Key {
    kind: Kind,
    spki: Vec<u8>,
    parsed: ParsedPublicKey,
}

impl Key {
    pub(crate) fn parse(spki: &[u8]) -> Result<Self, CertRejection> {
        let kinds: [(Kind, &'static dyn VerificationAlgorithm); 3] = [
            (Kind::P256, &ECDSA_P256_SHA256_ASN1),
            (Kind::P384, &ECDSA_P384_SHA384_ASN1),
            (Kind::Rsa, &RSA_PKCS1_2048_8192_SHA256),
        ];
        for (kind, algorithm) in kinds {
            let Ok(parsed) = ParsedPublicKey::new(algorithm, spki) else { continue };
            // Parsing for verification takes RSA keys of any length.
            if kind == Kind::Rsa && ca::kind_of(spki).is_none() {
                return Err(CertRejection::IssuerKey);
            }
            return Ok(Self { kind, spki: spki.to_vec(), parsed });
        }
        Err(CertRejection::IssuerKey)
    }

    pub(crate) fn verify(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CertRejection> {
        check_algorithm(algorithm)?;
        let usual = match self.kind {
            Kind::P256 => ECDSA_WITH_SHA256,
            Kind::P384 => ECDSA_WITH_SHA384,
            Kind::Rsa => RSA_WITH_SHA256,
        };
        if algorithm.oid == usual {
            return self
                .parsed
                .verify_sig(message, signature)
                .map_err(|_| CertRejection::Signature);
        }
        let other: &'static dyn VerificationAlgorithm = match (self.kind, algorithm.oid) {
            (Kind::P256, ECDSA_WITH_SHA384) => &ECDSA_P256_SHA384_ASN1,
            (Kind::P384, ECDSA_WITH_SHA256) => &ECDSA_P384_SHA256_ASN1,
            (Kind::Rsa, RSA_WITH_SHA384) => &RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, RSA_WITH_SHA512) => &RSA_PKCS1_2048_8192_SHA512,
            (Kind::P256 | Kind::P384 | Kind::Rsa, _) => return Err(CertRejection::IssuerKey),
        };
        let key = ParsedPublicKey::new(other, &self.spki).map_err(|_| CertRejection::IssuerKey)?;
        key.verify_sig(message, signature).map_err(|_| CertRejection::Signature)
    }
}

/// Refuses an algorithm that no key may use.
pub(super) fn check_algorithm(algorithm: &AlgorithmIdentifierOwned) -> Result<(), CertRejection> {
    let known =
        [ECDSA_WITH_SHA256, ECDSA_WITH_SHA384, RSA_WITH_SHA256, RSA_WITH_SHA384, RSA_WITH_SHA512];
    if known.contains(&algorithm.oid) { Ok(()) } else { Err(CertRejection::SignatureAlgorithm) }
}
