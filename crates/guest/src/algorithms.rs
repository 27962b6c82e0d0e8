//! Encryption and decryption algorithms: the keys of applications in their files, what a pass phrase
//! derives, and private keys that the service gives back. All of it by aws-lc, through `xkms`.

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::Engine as _;
use model::Secret;
use thiserror::Error;
use xkms::{
    dsig::{KeyError, PublicKey, Signer as _, SigningKey},
    passphrase::{PhraseRejection, Preparation, SharedSecret, revocation_code_identifier},
    xenc::{EncryptedData, EncryptionPolicy, EncryptionRejection, RsaKeyPair},
};
use zeroize::Zeroizing;

use crate::config::{ConfigError, read_bounded};

/// Longest key file, bytes.
const KEY_FILE: u64 = 16 << 10;

/// Why a key or phrase cannot be used.
#[derive(Debug, Error)]
pub enum AlgorithmError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ConfigError),
    /// The file cannot be written.
    #[error("cannot write the key")]
    Write(#[source] std::io::Error),
    /// It is no key.
    #[error("the key cannot be used")]
    Key(#[from] KeyError),
    /// No pass phrase.
    #[error(transparent)]
    Phrase(#[from] PhraseRejection),
    /// What was given back does not open.
    #[error("the private key that came does not open")]
    Sealed(#[from] EncryptionRejection),
}

/// An application's key in its file (PKCS#8, PEM).
#[derive(Debug)]
pub struct KeyFile(SigningKey);

impl KeyFile {
    /// Reads the key.
    ///
    /// # Errors
    /// [`AlgorithmError`].
    pub fn read(path: &Path) -> Result<Self, AlgorithmError> {
        let text = Zeroizing::new(read_bounded(path, KEY_FILE)?);
        let der = from_pem(&text).ok_or(KeyError::Malformed)?;
        Ok(Self(SigningKey::from_pkcs8(&der)?))
    }

    /// Reads the key, or makes one (EC P-256) and writes it for its owner alone.
    ///
    /// # Errors
    /// [`AlgorithmError`].
    pub fn read_or_make(path: &Path) -> Result<Self, AlgorithmError> {
        if path.exists() {
            return Self::read(path);
        }
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new());
        let made = made.map_err(|_| KeyError::Malformed)?;
        write_key(path, "PRIVATE KEY", made.as_ref())?;
        Ok(Self(SigningKey::from_pkcs8(made.as_ref())?))
    }

    /// Signs with it.
    #[must_use]
    pub const fn signer(&self) -> &SigningKey {
        &self.0
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> Option<PublicKey> {
        self.0.public_key()
    }
}

/// A pass phrase.
#[derive(Debug)]
pub struct Phrase(SharedSecret);

impl Phrase {
    /// Prepares it.
    ///
    /// # Errors
    /// [`AlgorithmError::Phrase`].
    pub fn new(text: &str) -> Result<Self, AlgorithmError> {
        Ok(Self(SharedSecret::new(text.trim(), Preparation::Saslprep)?))
    }

    /// The key of the MAC that authorizes an order.
    #[must_use]
    pub fn authentication(&self) -> SigningKey {
        SigningKey::mac(&self.0.authentication_key())
    }

    /// The code that revokes what is registered with this phrase.
    #[must_use]
    pub fn revocation_code(&self) -> Secret<Vec<u8>> {
        self.0.revocation_code()
    }

    /// By what that code is known before it is told.
    #[must_use]
    pub fn revocation_identifier(&self) -> Vec<u8> {
        revocation_code_identifier(self.0.revocation_code().expose())
    }

    /// Opens a private key that came back, and writes it for its owner alone (PKCS#1, PEM).
    ///
    /// # Errors
    /// [`AlgorithmError`].
    pub fn open_private_key(
        &self,
        sealed: &EncryptedData,
        into: &Path,
    ) -> Result<(), AlgorithmError> {
        let plain = sealed.open(&self.0.private_key_key(32), EncryptionPolicy::default())?;
        let pair = RsaKeyPair::from_xml(&plain)?;
        write_key(into, "RSA PRIVATE KEY", pair.to_pkcs1().expose())
    }
}

fn write_key(path: &Path, label: &str, der: &[u8]) -> Result<(), AlgorithmError> {
    let engine = base64::engine::general_purpose::STANDARD;
    let body = Zeroizing::new(engine.encode(der));
    let mut text = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(AlgorithmError::Write)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(AlgorithmError::Write)
}

/// The first block of a PEM file, whatever its label.
pub(crate) fn from_pem(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    blocks(text).into_iter().next()
}

/// Every block of a PEM file.
pub(crate) fn blocks(text: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let Ok(text) = std::str::from_utf8(text) else { return Vec::new() };
    let mut found = Vec::new();
    let mut body: Option<Zeroizing<String>> = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with("-----BEGIN ") {
            body = Some(Zeroizing::default());
        } else if line.starts_with("-----END ") {
            let der = body.take().and_then(|body| {
                base64::engine::general_purpose::STANDARD.decode(body.as_bytes()).ok()
            });
            found.extend(der.map(Zeroizing::new));
        } else if let Some(body) = &mut body {
            body.push_str(line);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let made = KeyFile::read_or_make(&path).unwrap();
        let read = KeyFile::read_or_make(&path).unwrap();
        assert_eq!(made.public(), read.public());
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(dir.path().join("x"), "-----BEGIN X-----\nAAAA\n").unwrap();
        assert!(matches!(KeyFile::read(&dir.path().join("x")), Err(AlgorithmError::Key(_))));
    }
}
