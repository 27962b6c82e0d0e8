//! What a service's configuration says of its CA's key in a token, and the CA with it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use model::Secret;
use pki::{Ca, CaSpec, IssueError};
use serde::Deserialize;
use serve::config::{SecretError, SecretSource};
use thiserror::Error;

use crate::{Token, TokenConfig, TokenError};

/// Longest PIN.
const MAX_PIN: usize = 256;

/// Where the key of a service's own CA is: the table `token` beside the CA's name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// The PKCS #11 module's shared library.
    pub module: PathBuf,
    /// The token's label.
    pub label: String,
    /// The label of the key pair; it is made there at the first start if it is missing.
    pub key: String,
    /// The user's PIN.
    pub pin: SecretSource,
    /// How long one answer of the token may take, seconds.
    #[serde(default = "timeout_s")]
    pub timeout_s: u64,
    /// Folders that the module reads and writes, besides its own: the service is confined.
    #[serde(default)]
    pub folders: Vec<PathBuf>,
}

const fn timeout_s() -> u64 {
    10
}

/// The CA whose key is in a token cannot be used.
#[derive(Debug, Error)]
pub enum TokenCaError {
    /// The certificate, or that it does not go with the key.
    #[error("the CA's certificate does not serve")]
    Certificate(#[source] IssueError),
    /// The store has the key itself, or it names a token and the configuration does not.
    #[error(
        "the CA was made with its key elsewhere: `token` is neither added nor taken away later"
    )]
    Elsewhere,
    /// The PIN.
    #[error("the PIN of the token cannot be read")]
    Pin(#[from] SecretError),
    /// The token.
    #[error("{}", .0.code())]
    Token(#[from] TokenError),
}

impl TokenSettings {
    /// Takes relative paths from `base`, the configuration's directory.
    pub fn resolve(&mut self, base: &Path) {
        let pin = if let SecretSource::Path(path) = &mut self.pin { Some(path) } else { None };
        for path in self.folders.iter_mut().chain([&mut self.module]).chain(pin) {
            *path = base.join(&*path);
        }
    }

    /// What is wrong with the values, if anything.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        if self.label.is_empty() || self.key.is_empty() {
            Some("`token` must have a `label` and a `key`")
        } else if !(1..=300).contains(&self.timeout_s) {
            Some("`token.timeout_s` must be between 1 and 300")
        } else {
            None
        }
    }

    /// The files that are read.
    #[must_use]
    pub fn files(&self) -> Vec<&Path> {
        let pin = if let SecretSource::Path(path) = &self.pin { Some(path) } else { None };
        [&self.module].into_iter().chain(pin).map(PathBuf::as_path).collect()
    }

    /// A new root for the key that is in the token, or else for a new one.
    fn create_root(&self, spec: &CaSpec) -> Result<Ca, TokenCaError> {
        let pin = self.pin.read(MAX_PIN)?;
        let again = || Secret::new(pin.expose().clone());
        let token = match Token::open(self.place(), again()) {
            Err(TokenError::KeyMissing) => Token::generate(self.place(), again())?,
            opened => opened?,
        };
        Ca::create_root_for(spec, Box::new(token)).map_err(TokenCaError::Certificate)
    }

    fn place(&self) -> TokenConfig {
        TokenConfig {
            module: self.module.clone(),
            token: self.label.clone(),
            key: self.key.clone(),
            timeout: Duration::from_secs(self.timeout_s),
        }
    }
}

/// A new root; its key (PKCS #8) is to be guarded by the caller, and is empty if it is in `token`.
///
/// # Errors
/// [`TokenCaError`].
pub fn create_root(
    token: Option<&TokenSettings>,
    spec: &CaSpec,
) -> Result<(Ca, Secret<Vec<u8>>), TokenCaError> {
    match token {
        Some(token) => Ok((token.create_root(spec)?, Secret::new(Vec::new()))),
        None => Ca::create_root(spec).map_err(TokenCaError::Certificate),
    }
}

/// The CA of this certificate (DER), with the key that [`create_root`] gave for it.
///
/// # Errors
/// [`TokenCaError`].
pub fn load(
    token: Option<&TokenSettings>,
    certificate: Vec<u8>,
    key: &Secret<Vec<u8>>,
) -> Result<Ca, TokenCaError> {
    let ca = match token {
        Some(token) if key.expose().is_empty() => {
            let token = Token::open(token.place(), token.pin.read(MAX_PIN)?)?;
            Ca::load_for(certificate, Box::new(token))
        }
        None if !key.expose().is_empty() => Ca::load(certificate, key),
        Some(_) | None => return Err(TokenCaError::Elsewhere),
    };
    ca.map_err(TokenCaError::Certificate)
}
