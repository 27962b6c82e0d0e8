//! Keys that verify, and keys that sign.

use std::fmt::Debug;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
        RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use model::Secret;
use thiserror::Error;

use super::{Curve, SignatureAlgorithm, SignatureRejection};
use crate::{der::value, text};

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not a key of the kind expected.
    #[error("the key cannot be read")]
    Malformed,
    /// The key could not sign.
    #[error("the key could not sign")]
    Sign,
}

/// A public key, as `KeyValue` carries it. Equality is equality of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA.
    Rsa {
        /// Modulus, big-endian, no leading zero.
        modulus: Vec<u8>,
        /// Exponent, big-endian, no leading zero.
        exponent: Vec<u8>,
    },
    /// A point on a curve.
    Ec {
        /// The curve.
        curve: Curve,
        /// The uncompressed point.
        point: Vec<u8>,
    },
}

impl PublicKey {
    /// An RSA key from big-endian integers.
    #[must_use]
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        let (modulus, exponent) = (text::strip_zeros(modulus), text::strip_zeros(exponent));
        Self::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() }
    }

    fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        value: &[u8],
    ) -> Result<(), SignatureRejection> {
        use SignatureAlgorithm as A;
        let verified = match (self, algorithm) {
            (Self::Rsa { modulus, exponent }, A::RsaSha256) => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, value)
            }
            (Self::Rsa { modulus, exponent }, A::RsaSha1) => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, message, value)
            }
            (Self::Ec { curve: Curve::P256, point }, A::EcdsaSha256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, value)
            }
            (Self::Ec { curve: Curve::P384, point }, A::EcdsaSha384) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, value)
            }
            _ => return Err(SignatureRejection::KeyMismatch),
        };
        verified.map_err(|_| SignatureRejection::Value)
    }
}

/// What a signature is verified with. The kind of key is the caller's word: a MAC never verifies
/// under a public key that a message carries.
#[derive(Clone, Copy, Debug)]
pub enum VerifyingKey<'k> {
    /// A public key.
    Public(&'k PublicKey),
    /// A shared secret, as it goes into the MAC.
    Mac(&'k Secret<Vec<u8>>),
}

impl VerifyingKey<'_> {
    pub(super) fn verify(
        self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        value: &[u8],
    ) -> Result<(), SignatureRejection> {
        match (self, mac_algorithm(algorithm)) {
            (Self::Public(key), None) => key.verify(algorithm, message, value),
            (Self::Mac(key), Some(mac)) => {
                let key = hmac::Key::new(mac, key.expose());
                hmac::verify(&key, message, value).map_err(|_| SignatureRejection::Value)
            }
            _ => Err(SignatureRejection::KeyMismatch),
        }
    }
}

const fn mac_algorithm(algorithm: SignatureAlgorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        SignatureAlgorithm::HmacSha1 => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        SignatureAlgorithm::HmacSha256 => Some(hmac::HMAC_SHA256),
        SignatureAlgorithm::EcdsaSha256
        | SignatureAlgorithm::EcdsaSha384
        | SignatureAlgorithm::RsaSha1
        | SignatureAlgorithm::RsaSha256 => None,
    }
}

/// Something that signs: a key in memory, or one in another process or token.
pub trait Signer: Debug {
    /// The algorithm of its signatures.
    fn algorithm(&self) -> SignatureAlgorithm;
    /// Signs `message`; ECDSA signatures are two integers of fixed length.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
    /// The key that verifies, if there is a public one.
    fn public_key(&self) -> Option<PublicKey>;
}

/// A signing key in memory.
#[derive(Debug)]
pub struct SigningKey(Inner);

enum Inner {
    Rsa(Box<RsaKeyPair>),
    Ec(Curve, EcdsaKeyPair),
    Mac(SignatureAlgorithm, Box<hmac::Key>),
}

impl Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "Rsa(..)",
            Self::Ec(..) => "Ec(..)",
            Self::Mac(..) => "Mac(..)",
        })
    }
}

impl SigningKey {
    /// An RSA key of at least 2048 bits, or an EC key on P-256 or P-384, from PKCS#8 DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        if let Ok(pair) = p256 {
            return Ok(Self(Inner::Ec(Curve::P256, pair)));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der) {
            return Ok(Self(Inner::Ec(Curve::P384, pair)));
        }
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| KeyError::Malformed)?;
        Ok(Self(Inner::Rsa(Box::new(pair))))
    }

    /// A new key on `curve`.
    pub fn generate_ec(curve: Curve) -> Result<Self, KeyError> {
        let algorithm = match curve {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        };
        EcdsaKeyPair::generate(algorithm)
            .map(|pair| Self(Inner::Ec(curve, pair)))
            .map_err(|_| KeyError::Malformed)
    }

    /// A new RSA key of 2048 bits.
    pub fn generate_rsa() -> Result<Self, KeyError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Malformed)?;
        Ok(Self(Inner::Rsa(Box::new(pair))))
    }

    /// A shared secret, for HMAC-SHA-256.
    #[must_use]
    pub fn mac(secret: &Secret<Vec<u8>>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        Self(Inner::Mac(SignatureAlgorithm::HmacSha256, Box::new(key)))
    }

    /// A shared secret, for HMAC-SHA-1: for peers that know nothing newer.
    #[must_use]
    pub fn legacy_mac(secret: &Secret<Vec<u8>>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose());
        Self(Inner::Mac(SignatureAlgorithm::HmacSha1, Box::new(key)))
    }
}

impl Signer for SigningKey {
    fn algorithm(&self) -> SignatureAlgorithm {
        match &self.0 {
            Inner::Rsa(_) => SignatureAlgorithm::RsaSha256,
            Inner::Ec(Curve::P256, _) => SignatureAlgorithm::EcdsaSha256,
            Inner::Ec(Curve::P384, _) => SignatureAlgorithm::EcdsaSha384,
            Inner::Mac(algorithm, _) => *algorithm,
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.0 {
            Inner::Rsa(pair) => {
                let mut value = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut value)
                    .map_err(|_| KeyError::Sign)?;
                Ok(value)
            }
            Inner::Ec(_, pair) => {
                let value: Result<signature::Signature, _> = pair.sign(&random, message);
                value.map(|v| v.as_ref().to_vec()).map_err(|_| KeyError::Sign)
            }
            Inner::Mac(_, key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
        }
    }

    fn public_key(&self) -> Option<PublicKey> {
        match &self.0 {
            Inner::Rsa(pair) => {
                let (modulus, exponent) = integers(pair.public_key().as_ref())?;
                Some(PublicKey::rsa(modulus, exponent))
            }
            Inner::Ec(curve, pair) => {
                Some(PublicKey::Ec { curve: *curve, point: pair.public_key().as_ref().to_vec() })
            }
            Inner::Mac(..) => None,
        }
    }
}

/// The two integers of a DER `RSAPublicKey`.
fn integers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = value(der, 0x30)?;
    let (modulus, rest) = value(sequence, 0x02)?;
    let (exponent, _) = value(rest, 0x02)?;
    Some((modulus, exponent))
}
