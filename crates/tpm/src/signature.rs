//! Signatures that TPMs make (TPMT_SIGNATURE) and their verification.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use thiserror::Error;

use crate::{
    error::Malformed,
    public::VerifyingKey,
    wire::{Reader, Writer},
};

const RSASSA: u16 = 0x0014;
const ECDSA: u16 = 0x0018;
const SHA256: u16 = 0x000b;

/// Why a signature is not that of the key over the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureFault {
    /// The key is not of the signature's type.
    #[error("the signature's algorithm is not the key's")]
    Algorithm,
    /// The signature is not that of this key over this message.
    #[error("the signature does not verify")]
    Invalid,
    /// The key is unusable.
    #[error("the public key is malformed")]
    Key(#[source] Malformed),
}

/// A signature with SHA-256, by EC P-256 or RSA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// ECDSA: r and s, 32 bytes each.
    Ecdsa {
        /// r followed by s.
        rs: [u8; 64],
    },
    /// RSASSA-PKCS1-v1_5.
    Rsassa {
        /// The signature, as long as the modulus.
        bytes: Vec<u8>,
    },
}

impl Signature {
    /// Parses a TPMT_SIGNATURE, exactly. Only SHA-256 is accepted.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let algorithm = reader.u16()?;
        if !matches!(algorithm, ECDSA | RSASSA) {
            let value = algorithm.into();
            return Err(Malformed::Unsupported { what: "signature algorithm", value });
        }
        let hash = reader.u16()?;
        if hash != SHA256 {
            return Err(Malformed::Unsupported { what: "signature hash", value: hash.into() });
        }
        let signature = if algorithm == ECDSA {
            let mut rs = [0; 64];
            for half in rs.chunks_exact_mut(32) {
                half.copy_from_slice(&crate::public::padded(reader.sized(32)?)?);
            }
            Self::Ecdsa { rs }
        } else {
            Self::Rsassa { bytes: reader.sized(512)?.to_vec() }
        };
        reader.finish()?;
        Ok(signature)
    }

    /// A P-256 signature made in software, r and s of 32 bytes each (IEEE P1363).
    #[must_use]
    pub const fn from_p1363(rs: [u8; 64]) -> Self {
        Self::Ecdsa { rs }
    }

    /// A P-256 signature made in software, as ECDSA-Sig-Value (RFC 3279) in DER.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn from_ecdsa_der(der: &[u8]) -> Result<Self, Malformed> {
        let (r, s) = crate::public::two_integers(der)?;
        let mut rs = [0; 64];
        for (half, number) in rs.chunks_exact_mut(32).zip([r, s]) {
            half.copy_from_slice(&crate::public::padded(number)?);
        }
        Ok(Self::Ecdsa { rs })
    }

    /// The TPMT_SIGNATURE.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::small();
        match self {
            Self::Ecdsa { rs } => {
                let (r, s) = rs.split_at(32);
                writer.u16(ECDSA).u16(SHA256).sized(r).sized(s);
            }
            Self::Rsassa { bytes } => {
                writer.u16(RSASSA).u16(SHA256).sized(bytes);
            }
        }
        writer.finish_public().unwrap_or_default()
    }

    /// Verifies with a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub fn verify_spki(&self, spki_der: &[u8], message: &[u8]) -> Result<(), SignatureFault> {
        let key = VerifyingKey::from_spki_der(spki_der).map_err(SignatureFault::Key)?;
        self.verify(&key, message)
    }

    /// Verifies the signature over SHA-256 of `message`.
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub fn verify(&self, key: &VerifyingKey, message: &[u8]) -> Result<(), SignatureFault> {
        match (self, key) {
            (Self::Ecdsa { rs }, VerifyingKey::P256 { x, y }) => {
                let point = [&[4][..], x, y].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, rs)
            }
            (Self::Rsassa { bytes }, VerifyingKey::Rsa { .. }) => {
                let der = key.rsa_der().unwrap_or_default();
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(message, bytes)
            }
            (Self::Ecdsa { .. } | Self::Rsassa { .. }, _) => return Err(SignatureFault::Algorithm),
        }
        .map_err(|_| SignatureFault::Invalid)
    }
}
