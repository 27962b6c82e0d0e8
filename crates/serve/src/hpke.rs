//! Hybrid public-key encryption (RFC 9180), base mode, one message per set-up: DHKEM(P-256,
//! HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Implemented by aws-lc through rustls.
//!
//! Base mode says nothing about the sender: what is sealed must be signed or come over a channel
//! that authenticates it.

mod agreed;

use model::Secret;
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_P256_HKDF_SHA256_AES_256 as SUITE,
    hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey},
};
use thiserror::Error;

pub use self::agreed::open_agreed;

/// Length of a public key and of `enc`: an uncompressed P-256 point.
pub const POINT_LEN: usize = 65;

/// An HPKE operation failed; why is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HpkeError {
    /// A key pair could not be generated.
    #[error("cannot generate an HPKE key")]
    Generate,
    /// Sealing failed: the public key is no P-256 point.
    #[error("cannot seal to this key")]
    Seal,
    /// Opening failed: other key, info, associated data or altered text.
    #[error("the sealed message cannot be opened")]
    Open,
}

/// The private half.
#[derive(Clone, Debug)]
pub struct HpkePrivate(Secret<Vec<u8>>);

impl HpkePrivate {
    /// The private scalar, to be stored (sealed) and loaded again.
    #[must_use]
    pub const fn secret(&self) -> &Secret<Vec<u8>> {
        &self.0
    }

    /// A private half from its stored scalar. One that is no key only makes [`open`] fail.
    #[must_use]
    pub const fn from_secret(secret: Secret<Vec<u8>>) -> Self {
        Self(secret)
    }
}

/// The public half: an uncompressed P-256 point, [`POINT_LEN`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HpkePublic(pub Vec<u8>);

/// A sealed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key, [`POINT_LEN`] bytes.
    pub enc: Vec<u8>,
    /// Ciphertext and tag: the plaintext's length and 16 bytes.
    pub ciphertext: Vec<u8>,
}

/// A new key pair.
///
/// # Errors
/// [`HpkeError::Generate`].
pub fn generate() -> Result<(HpkePrivate, HpkePublic), HpkeError> {
    let (public, private) = SUITE.generate_key_pair().map_err(|_| HpkeError::Generate)?;
    let private = HpkePrivate(Secret::new(private.secret_bytes().to_vec()));
    Ok((private, HpkePublic(public.0)))
}

/// Seals `plaintext` to `public`; `info` and `aad` must be the same at [`open`].
///
/// # Errors
/// [`HpkeError::Seal`] if `public` is no valid key.
pub fn seal(
    public: &HpkePublic,
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Sealed, HpkeError> {
    if public.0.len() != POINT_LEN {
        return Err(HpkeError::Seal);
    }
    let key = HpkePublicKey(public.0.clone());
    let (enc, ciphertext) = SUITE.seal(info, aad, plaintext, &key).map_err(|_| HpkeError::Seal)?;
    Ok(Sealed { enc: enc.0, ciphertext })
}

/// Opens what was sealed to the public half of `private` with this `info` and `aad`.
///
/// # Errors
/// [`HpkeError::Open`].
pub fn open(
    private: &HpkePrivate,
    sealed: &Sealed,
    info: &[u8],
    aad: &[u8],
) -> Result<Secret<Vec<u8>>, HpkeError> {
    if sealed.enc.len() != POINT_LEN {
        return Err(HpkeError::Open);
    }
    let key = HpkePrivateKey::from(private.0.expose().clone());
    let enc = EncapsulatedSecret(sealed.enc.clone());
    let plaintext = SUITE.open(&enc, info, aad, &sealed.ciphertext, &key);
    plaintext.map(Secret::new).map_err(|_| HpkeError::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_the_same_key_info_and_data_only() {
        let (private, public) = generate().unwrap();
        let sealed = seal(&public, b"info", b"aad", b"key of a VM").unwrap();
        assert_eq!(public.0.len(), POINT_LEN);
        assert_eq!(open(&private, &sealed, b"info", b"aad").unwrap().expose(), b"key of a VM");
        assert_eq!(open(&private, &sealed, b"other", b"aad").unwrap_err(), HpkeError::Open);
        assert_eq!(open(&private, &sealed, b"info", b"other").unwrap_err(), HpkeError::Open);
        let stored = HpkePrivate::from_secret(private.secret().clone());
        assert!(open(&stored, &sealed, b"info", b"aad").is_ok());
        let (stranger, _) = generate().unwrap();
        assert_eq!(open(&stranger, &sealed, b"info", b"aad").unwrap_err(), HpkeError::Open);
        let mut altered = sealed.clone();
        altered.ciphertext[0] ^= 1;
        assert_eq!(open(&private, &altered, b"info", b"aad").unwrap_err(), HpkeError::Open);
        let mut altered = sealed;
        altered.enc[64] ^= 1;
        assert_eq!(open(&private, &altered, b"info", b"aad").unwrap_err(), HpkeError::Open);
    }

    #[test]
    fn nothing_is_sealed_to_what_is_no_key() {
        for bad in [vec![], vec![4; POINT_LEN], vec![0; POINT_LEN]] {
            assert_eq!(seal(&HpkePublic(bad), b"", b"", b"x").unwrap_err(), HpkeError::Seal);
        }
    }
}
