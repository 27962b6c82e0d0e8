//! An endorser's key: made once, kept where the authority is not.

use std::path::Path;

use attest::envelope::SoftwareKey;
use serve::{fsfile, keys::SigningKey, pem};

use crate::output::Failure;

/// Makes a key (PKCS#8, PEM) that only its owner can read, and its public half.
///
/// # Errors
/// [`Failure::Error`] if it is there already, or cannot be written.
pub fn make_key(key: &Path, public: &Path) -> Result<SoftwareKey, Failure> {
    if key.exists() {
        return Err(Failure::error(
            format!("{} is there already", key.display()),
            "a key that has signed is not overwritten; choose another --name or --out",
        ));
    }
    pem::write_key(key, &SigningKey::generate()?.to_pkcs8()?)?;
    let made = open_key(key)?;
    write_public(&made, public)?;
    Ok(made)
}

/// Writes a key's public half (SubjectPublicKeyInfo, PEM).
///
/// # Errors
/// [`Failure::Error`] if it cannot be written.
pub fn write_public(key: &SoftwareKey, public: &Path) -> Result<(), Failure> {
    let text = pem::encode("PUBLIC KEY", key.spki())?;
    Ok(fsfile::write_atomic(public, text.as_bytes(), 0o644)?)
}

/// Reads an endorser's key.
///
/// # Errors
/// [`Failure::Error`] if it cannot be read, or is no P-256 key.
pub fn open_key(key: &Path) -> Result<SoftwareKey, Failure> {
    let unusable = |why: String| {
        Failure::error(
            format!("{}: {why}", key.display()),
            "give a P-256 key in PKCS#8 PEM, as `vouchsafe reference key` makes it",
        )
    };
    let pkcs8 = pem::read_key(key).map_err(|error| unusable(serve::exit::chain(&error)))?;
    SoftwareKey::from_pkcs8(pkcs8.expose()).map_err(|error| unusable(error.to_string()))
}
