//! The keys of envelopes: those that sign, and those whose signatures count.

use std::{collections::BTreeMap, fmt, sync::Arc};

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
        ParsedPublicKey,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::sha256;

/// SHA-256 of a key's SubjectPublicKeyInfo; 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(#[serde(with = "hex")] pub [u8; 32]);

impl KeyId {
    /// The id of a key given as SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        let mut id = [0; 32];
        for (to, from) in id.iter_mut().zip(sha256(spki).as_bytes()) {
            *to = *from;
        }
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SigningError {
    /// The document has no JSON form.
    #[error("the document cannot be written as JSON: {0}")]
    Document(String),
    /// The key did not sign.
    #[error("the key did not sign: {0}")]
    Key(String),
}

/// Why bytes are not a key for envelopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an ECDSA P-256 key")]
pub struct KeyUnusable;

/// A key that signs envelopes, wherever it lives.
pub trait Sign {
    /// SHA-256 of its SubjectPublicKeyInfo.
    fn key_id(&self) -> KeyId;

    /// An ECDSA P-256 signature over SHA-256 of `message`, as ECDSA-Sig-Value in DER.
    ///
    /// # Errors
    /// [`SigningError::Key`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError>;
}

/// A signing key in memory.
pub struct SoftwareKey {
    pair: EcdsaKeyPair,
    spki: Vec<u8>,
    id: KeyId,
}

impl SoftwareKey {
    /// Reads a PKCS#8 private key (DER).
    ///
    /// # Errors
    /// [`KeyUnusable`] if it is not an EC key on P-256.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyUnusable> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(|_| KeyUnusable)?;
        Self::from_pair(pair)
    }

    /// Wraps a key pair made for [`ECDSA_P256_SHA256_ASN1_SIGNING`].
    ///
    /// # Errors
    /// [`KeyUnusable`] if its public part has no SubjectPublicKeyInfo.
    pub fn from_pair(pair: EcdsaKeyPair) -> Result<Self, KeyUnusable> {
        let spki = pair.public_key().as_der().map_err(|_| KeyUnusable)?.as_ref().to_vec();
        let id = KeyId::of_spki(&spki);
        Ok(Self { pair, spki, id })
    }

    /// The public part as SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Sign for SoftwareKey {
    fn key_id(&self) -> KeyId {
        self.id
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        let signature = signature.map_err(|_| SigningError::Key("no randomness".to_owned()))?;
        Ok(signature.as_ref().to_vec())
    }
}

/// The keys whose signatures count, by id.
#[derive(Clone, Default)]
pub struct TrustedKeys(BTreeMap<KeyId, Arc<ParsedPublicKey>>);

impl TrustedKeys {
    /// Trusts exactly these keys, each a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`KeyUnusable`] if one is not a P-256 key.
    pub fn new<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Result<Self, KeyUnusable> {
        keys.into_iter()
            .map(|spki| {
                let spki = spki.as_ref();
                // The bare point is a form that the library takes too; ids are over the SPKI only.
                if spki.first() != Some(&0x30) {
                    return Err(KeyUnusable);
                }
                let key =
                    ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki).map_err(|_| KeyUnusable)?;
                Ok((KeyId::of_spki(spki), Arc::new(key)))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.0.keys().copied()
    }

    pub(super) fn find(&self, id: &KeyId) -> Option<&ParsedPublicKey> {
        self.0.get(id).map(AsRef::as_ref)
    }
}

impl fmt::Debug for TrustedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
