//! P-256 signing keys made and kept by this process (session keys, CA keys of the lab, envelopes).

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
        ParsedPublicKey,
    },
};
use model::Secret;
use thiserror::Error;

/// A key operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A key could not be generated.
    #[error("cannot generate a P-256 key")]
    Generate,
    /// Not the PKCS#8 form of a P-256 key.
    #[error("the key is not a P-256 key in PKCS#8 form")]
    Load,
    /// The key's PKCS#8 or SPKI form could not be made.
    #[error("the key cannot be encoded")]
    Encode,
    /// Signing failed.
    #[error("signing failed")]
    Sign,
    /// The signature is not one of this key over this message.
    #[error("the signature does not verify")]
    Verify,
}

/// A P-256 key for ECDSA with SHA-256. No `Debug` of the secret part.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    spki: Vec<u8>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Generate`].
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| KeyError::Generate)?;
        Self::from_pair(pair)
    }

    /// A key from its PKCS#8 DER.
    ///
    /// # Errors
    /// [`KeyError::Load`] if it is not a P-256 key.
    pub fn from_pkcs8(der: &Secret<Vec<u8>>) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.expose())
            .map_err(|_| KeyError::Load)?;
        Self::from_pair(pair)
    }

    fn from_pair(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let spki: PublicKeyX509Der<'_> =
            pair.public_key().as_der().map_err(|_| KeyError::Encode)?;
        let spki = spki.as_ref().to_vec();
        Ok(Self { pair, spki })
    }

    /// The key in PKCS#8 DER, with its public part.
    ///
    /// # Errors
    /// [`KeyError::Encode`].
    pub fn to_pkcs8(&self) -> Result<Secret<Vec<u8>>, KeyError> {
        let document = self.pair.to_pkcs8v1().map_err(|_| KeyError::Encode)?;
        Ok(Secret::new(document.as_ref().to_vec()))
    }

    /// The public key as SubjectPublicKeyInfo DER (RFC 5280, section 4.1.2.7).
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Signs `message`: ECDSA with SHA-256, signature in DER (RFC 3279, section 2.2.3).
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature =
            self.pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Sign)?;
        Ok(signature.as_ref().to_vec())
    }
}

/// Checks a signature made by [`SigningKey::sign`] with the key of this SPKI.
///
/// # Errors
/// [`KeyError::Verify`], also if `spki` is no P-256 key.
pub fn verify(spki: &[u8], message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki).map_err(|_| KeyError::Verify)?;
    key.verify_sig(message, signature).map_err(|_| KeyError::Verify)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_under_its_own_key_and_message_only() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let signature = key.sign(b"m").unwrap();
        assert_eq!(verify(key.spki(), b"m", &signature), Ok(()));
        assert_eq!(verify(key.spki(), b"n", &signature), Err(KeyError::Verify));
        assert_eq!(verify(other.spki(), b"m", &signature), Err(KeyError::Verify));
        assert_eq!(verify(b"", b"m", &signature), Err(KeyError::Verify));
    }

    #[test]
    fn a_key_survives_being_stored() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
        assert_eq!(key.spki(), again.spki());
        let junk = Secret::new(vec![0x30, 0]);
        assert_eq!(SigningKey::from_pkcs8(&junk).unwrap_err(), KeyError::Load);
    }
}
