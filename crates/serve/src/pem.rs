//! Certificates and keys in PEM files (RFC 7468).

use std::path::Path;

use der::pem::LineEnding;
use model::Secret;
use rustls_pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _,
};
use thiserror::Error;
use zeroize::Zeroize as _;

use crate::fsfile::{self, FileError};

/// Longest PEM file.
const LIMIT: usize = 1 << 20;

/// A PEM file cannot be used.
#[derive(Debug, Error)]
pub enum PemError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds no certificate, or something malformed.
    #[error("{0} holds no certificate")]
    Certificate(String),
    /// It holds no PKCS#8 private key.
    #[error("{0} holds no PKCS#8 private key")]
    Key(String),
    /// The value is too long for PEM.
    #[error("cannot write PEM")]
    Encode,
}

/// The certificates of a PEM file, each DER, in their order; at least one.
///
/// # Errors
/// [`PemError`].
pub fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, PemError> {
    let text = fsfile::read_limited(path, LIMIT)?;
    parse_certificates(&text).ok_or_else(|| PemError::Certificate(path.display().to_string()))
}

/// The certificates in a PEM text, each DER; `None` if there is none or one is malformed.
#[must_use]
pub fn parse_certificates(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text).map(|der| der.map(|der| der.to_vec())).collect();
    all.ok().filter(|all| !all.is_empty())
}

/// The public key (SubjectPublicKeyInfo, DER) in a PEM text; `None` if there is none.
#[must_use]
pub fn parse_public_key(text: &[u8]) -> Option<Vec<u8>> {
    SubjectPublicKeyInfoDer::from_pem_slice(text).ok().map(|der| der.to_vec())
}

/// The PKCS#8 key (DER) of a PEM file that belongs to this user and is closed to others.
///
/// # Errors
/// [`PemError`].
pub fn read_key(path: &Path) -> Result<Secret<Vec<u8>>, PemError> {
    let text = fsfile::read_secret(path, LIMIT)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(text.expose())
        .map_err(|_| PemError::Key(path.display().to_string()))?;
    Ok(Secret::new(key.secret_pkcs8_der().to_vec()))
}

/// Writes certificates (DER) to a PEM file that all may read.
///
/// # Errors
/// [`PemError`].
pub fn write_certificates<C: AsRef<[u8]>>(path: &Path, chain: &[C]) -> Result<(), PemError> {
    Ok(fsfile::write_atomic(path, certificates(chain)?.as_bytes(), 0o644)?)
}

/// Certificates (DER) as PEM text.
///
/// # Errors
/// [`PemError::Encode`].
pub fn certificates<C: AsRef<[u8]>>(chain: &[C]) -> Result<String, PemError> {
    chain.iter().map(|der| encode("CERTIFICATE", der.as_ref())).collect()
}

/// Writes a PKCS#8 key (DER) to a PEM file that only this user may read.
///
/// # Errors
/// [`PemError`].
pub fn write_key(path: &Path, key: &Secret<Vec<u8>>) -> Result<(), PemError> {
    let mut text = encode("PRIVATE KEY", key.expose())?;
    let written = fsfile::write_atomic(path, text.as_bytes(), 0o600);
    text.zeroize();
    Ok(written?)
}

/// One value as PEM text under `label`.
///
/// # Errors
/// [`PemError::Encode`].
pub fn encode(label: &str, der: &[u8]) -> Result<String, PemError> {
    der::pem::encode_string(label, LineEnding::LF, der).map_err(|_| PemError::Encode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SigningKey;

    #[test]
    fn a_key_and_a_chain_come_back_from_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let (key_file, chain_file) = (dir.path().join("k.pem"), dir.path().join("c.pem"));
        let key = SigningKey::generate().unwrap().to_pkcs8().unwrap();
        write_key(&key_file, &key).unwrap();
        assert_eq!(read_key(&key_file).unwrap().expose(), key.expose());
        write_certificates(&chain_file, &[vec![1; 70], vec![2; 3]]).unwrap();
        assert_eq!(read_certificates(&chain_file).unwrap(), [vec![1; 70], vec![2; 3]]);
        assert!(read_certificates(&key_file).is_err());
    }
}
