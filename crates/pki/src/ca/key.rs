//! The CA's own key, and which subject keys are certified.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::PublicEncryptingKey,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
        EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
    },
};
use model::Secret;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

use super::IssueError;

/// A P-256 key that signs certificates; aws-lc keeps it, and wipes it when it is dropped.
pub(crate) struct CaKey {
    pair: EcdsaKeyPair,
    spki: Vec<u8>,
}

impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaKey").finish_non_exhaustive()
    }
}

impl CaKey {
    pub(super) fn generate() -> Result<(Self, Secret<Vec<u8>>), IssueError> {
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

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, IssueError> {
        let spki: PublicKeyX509Der<'_> =
            pair.public_key().as_der().map_err(|_| IssueError::CaKey)?;
        let spki = spki.as_ref().to_vec();
        Ok(Self { pair, spki })
    }

    pub(crate) fn spki(&self) -> &[u8] {
        &self.spki
    }
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message)
            .map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_ref().to_vec())
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
