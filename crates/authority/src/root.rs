//! The root key: 32 random bytes from which all keys at rest derive. The TPM seals it; k of n shares
//! bring it back if the TPM is lost.
//!
//! ```text
//! root key ─ HKDF ─► "store"     seals the records
//!                ├─► "vmk-wrap"  wraps VM master keys
//!                └─► "files"     seals the private keys in the state directory
//! ```
//! **Invariant:** the root key is on disk only as the TPM's blob, and its shares are nowhere.

use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use model::{Secret, api::Bytes};
use serde::{Deserialize, Serialize};
use serve::{fsfile, random};
use thiserror::Error;
use tpm::KeyBlob;
use zeroize::Zeroize as _;

use crate::{
    shares::{self, SharesError},
    tpmlink::{LinkError, TpmLink},
    vmkey::{self, KEY, KeyError},
};

const SALT: &[u8] = b"vouchsafe:root:v1";
/// Longest sealed file.
const MAX_FILE: usize = 64 << 10;

/// The root key or a file under it cannot be used.
#[derive(Debug, Error)]
pub(crate) enum RootError {
    /// Derivation failed.
    #[error(transparent)]
    Derive(#[from] KeyError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fsfile::FileError),
    /// The sealed root key's file is malformed.
    #[error("the file of the sealed root key is malformed")]
    Malformed,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] random::RandomError),
    /// A sealed file was altered or belongs to another root key.
    #[error("{0} was altered or is sealed under another root key")]
    Sealed(String),
    /// Shares that do not give the root key.
    #[error("these shares do not give the root key of this authority")]
    Shares,
    /// No shares at all.
    #[error(transparent)]
    Joining(#[from] SharesError),
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] LinkError),
}

/// The sealed root key's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFile {
    /// TPM2B_PUBLIC and TPM2B_PRIVATE.
    blob: Bytes,
    /// PCRs that it is sealed to.
    pcrs: Vec<u8>,
    /// Derived from the root key; tells whether recovered shares are right.
    check: Bytes,
}

/// The root key in memory.
#[derive(Debug)]
pub(crate) struct RootKey(Secret<[u8; KEY]>);

impl RootKey {
    /// A new root key, sealed into `path`.
    ///
    /// # Errors
    /// [`RootError`].
    pub(crate) async fn create(path: &Path, tpm: &TpmLink, pcrs: &[u8]) -> Result<Self, RootError> {
        let key = Self(random::secret()?);
        key.seal(path, tpm, pcrs).await?;
        Ok(key)
    }

    /// Unseals the root key.
    ///
    /// # Errors
    /// [`RootError`].
    pub(crate) async fn open(path: &Path, tpm: &TpmLink) -> Result<Self, RootError> {
        let file = Self::read(path)?;
        let blob = KeyBlob::parse(&file.blob.0).map_err(|_| RootError::Malformed)?;
        let mut opened = tpm.unseal(blob, file.pcrs).await?;
        let key = <[u8; KEY]>::try_from(opened.expose().as_slice());
        opened.expose_mut().zeroize();
        Ok(Self(Secret::new(key.map_err(|_| RootError::Malformed)?)))
    }

    /// Brings the root key back from shares and seals it anew.
    ///
    /// # Errors
    /// [`RootError::Shares`], or what sealing says.
    pub(crate) async fn recover(
        path: &Path,
        tpm: &TpmLink,
        pcrs: &[u8],
        shares: &[String],
        threshold: u8,
    ) -> Result<Self, RootError> {
        let file = Self::read(path)?;
        let key = Self(shares::join(shares, threshold)?);
        if key.check()?.0 != file.check.0 {
            return Err(RootError::Shares);
        }
        key.seal(path, tpm, pcrs).await?;
        Ok(key)
    }

    /// Splits the root key: each share is hexadecimal text, `threshold` of them bring it back.
    ///
    /// # Errors
    /// [`RootError::Shares`] if the numbers cannot be.
    pub(crate) fn shares(&self, threshold: u8, count: u8) -> Result<Vec<String>, RootError> {
        Ok(shares::split(&self.0, threshold, count)?)
    }

    /// A root key out of a backup.
    pub(crate) const fn from_secret(key: Secret<[u8; KEY]>) -> Self {
        Self(key)
    }

    /// The key itself, for a backup.
    pub(crate) const fn expose(&self) -> &Secret<[u8; KEY]> {
        &self.0
    }

    /// The key for one use.
    ///
    /// # Errors
    /// [`RootError::Derive`].
    pub(crate) fn derive(&self, label: &str) -> Result<Secret<[u8; KEY]>, RootError> {
        Ok(vmkey::hkdf(SALT, &self.0, &[label.as_bytes()])?)
    }

    /// Writes a secret file, sealed; its name is bound.
    ///
    /// # Errors
    /// [`RootError`].
    pub(crate) fn write_file(
        &self,
        path: &Path,
        content: &Secret<Vec<u8>>,
    ) -> Result<(), RootError> {
        let nonce: [u8; NONCE_LEN] = random::bytes()?;
        let mut sealed = content.expose().clone();
        let tag = self
            .file_key()?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(file_name(path)),
                &mut sealed,
            )
            .map_err(|_| KeyError::Crypto)?;
        let whole = [&nonce[..], &sealed, tag.as_ref()].concat();
        Ok(fsfile::write_atomic(path, &whole, 0o600)?)
    }

    /// Reads a secret file.
    ///
    /// # Errors
    /// [`RootError`].
    pub(crate) fn read_file(&self, path: &Path) -> Result<Secret<Vec<u8>>, RootError> {
        let whole = fsfile::read_limited(path, MAX_FILE)?;
        let altered = || RootError::Sealed(file_name(path));
        let (nonce, sealed) = whole.split_at_checked(NONCE_LEN).ok_or_else(altered)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| altered())?;
        let mut content = Secret::new(sealed.to_vec());
        let length = self
            .file_key()?
            .open_in_place(nonce, Aad::from(file_name(path)), content.expose_mut())
            .map_err(|_| altered())?
            .len();
        content.expose_mut().truncate(length);
        Ok(content)
    }

    fn file_key(&self) -> Result<LessSafeKey, RootError> {
        let key = self.derive("files")?;
        let unbound = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| KeyError::Crypto)?;
        Ok(LessSafeKey::new(unbound))
    }

    fn read(path: &Path) -> Result<RootFile, RootError> {
        let content = fsfile::read_limited(path, MAX_FILE)?;
        serde_json::from_slice(&content).map_err(|_| RootError::Malformed)
    }

    fn check(&self) -> Result<Bytes, RootError> {
        Ok(Bytes(self.derive("check")?.expose().to_vec()))
    }

    /// Seals the key to the TPM as it is, in the place of what was there.
    ///
    /// # Errors
    /// [`RootError`].
    pub(crate) async fn seal(
        &self,
        path: &Path,
        tpm: &TpmLink,
        pcrs: &[u8],
    ) -> Result<(), RootError> {
        let key = Secret::new(self.0.expose().to_vec());
        let blob = Bytes(tpm.seal(key, pcrs.to_vec()).await?);
        let file = RootFile { blob, pcrs: pcrs.to_vec(), check: self.check()? };
        let content = serde_json::to_vec_pretty(&file).map_err(|_| RootError::Malformed)?;
        Ok(fsfile::write_atomic(path, &content, 0o600)?)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_opens_under_its_name_and_root_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.sealed"), dir.path().join("b.sealed"));
        let key = RootKey(Secret::new([7; KEY]));
        key.write_file(&path, &Secret::new(b"private".to_vec())).unwrap();
        assert_eq!(key.read_file(&path).unwrap().expose(), b"private");
        std::fs::copy(&path, &other).unwrap();
        assert!(matches!(key.read_file(&other), Err(RootError::Sealed(_))));
        let stranger = RootKey(Secret::new([8; KEY]));
        assert!(matches!(stranger.read_file(&path), Err(RootError::Sealed(_))));
    }
}
