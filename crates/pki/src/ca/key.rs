//! The CA's own key, here or elsewhere, and which subject keys are certified.

use std::{error::Error, fmt};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::PublicEncryptingKey,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
        EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
    },
};
use der::Decode as _;
use model::Secret;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::IssueError;

/// A P-256 key that signs for a CA and stays where it is: in a token, or in another process.
pub trait CaSigner: fmt::Debug + Send + Sync {
    /// The public key: SubjectPublicKeyInfo, DER.
    fn spki(&self) -> &[u8];

    /// Signs the SHA-256 digest of `message`; the signature is an ECDSA-Sig-Value, DER.
    ///
    /// # Errors
    /// Whatever kept it from signing; the CA then says [`IssueError::Signer`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;
}

/// A P-256 key that signs certificates.
pub(crate) struct CaKey {
    place: Place,
    spki: Vec<u8>,
    /// The point alone.
    point: Vec<u8>,
}

/// Where the private key is.
enum Place {
    /// aws-lc keeps it, and wipes it when it is dropped.
    Here(EcdsaKeyPair),
    Elsewhere(Box<dyn CaSigner>),
}

impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaKey").finish_non_exhaustive()
    }
}

impl CaKey {
    pub(crate) fn generate() -> Result<(Self, Secret<Vec<u8>>), IssueError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| IssueError::Random)?;
        let document = pair.to_pkcs8v1().map_err(|_| IssueError::Random)?;
        let pkcs8 = Secret::new(document.as_ref().to_vec());
        Ok((Self::from_pair(pair)?, pkcs8))
    }

    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, IssueError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map_err(|_| IssueError::CaKey)?;
        Self::from_pair(pair)
    }

    pub(super) fn elsewhere(signer: Box<dyn CaSigner>) -> Result<Self, IssueError> {
        let spki = signer.spki().to_vec();
        // Only a P-256 key parses so.
        let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki);
        parsed.map_err(|_| IssueError::CaKey)?;
        let info = SubjectPublicKeyInfoOwned::from_der(&spki).map_err(|_| IssueError::CaKey)?;
        let point = info.subject_public_key.as_bytes().ok_or(IssueError::CaKey)?.to_vec();
        Ok(Self { place: Place::Elsewhere(signer), spki, point })
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, IssueError> {
        let spki: PublicKeyX509Der<'_> =
            pair.public_key().as_der().map_err(|_| IssueError::CaKey)?;
        let spki = spki.as_ref().to_vec();
        let point = pair.public_key().as_ref().to_vec();
        Ok(Self { place: Place::Here(pair), spki, point })
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let remote = |_| rcgen::Error::RemoteKeyError;
        let signature = match &self.place {
            Place::Here(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                return Ok(signature.map_err(|_| rcgen::Error::RemoteKeyError)?.as_ref().to_vec());
            }
            Place::Elsewhere(signer) => signer.sign(message).map_err(remote)?,
        };
        // What is elsewhere may fail in ways of its own: no bad signature goes out.
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.spki);
        let good = key.is_ok_and(|key| key.verify_sig(message, &signature).is_ok());
        if good { Ok(signature) } else { Err(rcgen::Error::RemoteKeyError) }
    }
}

/// The family of a subject's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// P-256 or P-384.
    Ec,
    /// RSA, 2048 to 8192 bits.
    Rsa,
}

/// The family of the key in this SPKI (DER); `None` if it is malformed, not on its curve, too weak
/// or of another kind.
pub(crate) fn kind_of(spki: &[u8]) -> Option<KeyKind> {
    let ec = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki)
        .or_else(|_| ParsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, spki));
    if ec.is_ok() {
        return Some(KeyKind::Ec);
    }
    // Parsing for verification takes any length; parsing for encryption takes 2048 to 8192 bits.
    PublicEncryptingKey::from_der(spki).ok().map(|_| KeyKind::Rsa)
}
