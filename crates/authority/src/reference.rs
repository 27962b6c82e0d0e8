//! Reference values of hosts: read from their file, verified against the endorsers' keys, and read
//! again when the file changes. A file that does not verify is not used, and neither is the one
//! before it: then no host is appraised.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use attest::{
    envelope::{Envelope, EnvelopeRejection, Kind, TrustedKeys},
    reference::{HostReference, ReferenceUnusable, ReferenceValues},
};
use serve::{fsfile, pem};
use thiserror::Error;

use crate::config::Config;

/// Longest file of reference values.
const MAX_FILE: usize = 2 << 20;
/// Longest key file.
const MAX_KEY_FILE: usize = 16 << 10;

/// Reference values cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ReferenceError {
    /// The file.
    #[error("the reference values cannot be read")]
    File(#[from] fsfile::FileError),
    /// The file's date.
    #[error("the reference values cannot be inspected")]
    Inspect(#[from] std::io::Error),
    /// Not P-256 in SubjectPublicKeyInfo PEM.
    #[error("{0} is not a P-256 public key in PEM")]
    Endorser(String),
    /// Not signed by enough endorsers.
    #[error("the reference values are not signed as the configuration demands")]
    Envelope(#[from] EnvelopeRejection),
    /// Signed, but of no use.
    #[error("the reference values cannot be used")]
    Unusable(#[from] ReferenceUnusable),
}

/// Length and date of a file: another version has another.
type Stamp = (u64, SystemTime);

/// The reference values in use.
#[derive(Debug)]
pub(crate) struct References {
    path: PathBuf,
    endorsers: TrustedKeys,
    needed: usize,
    held: Mutex<Option<(Stamp, Arc<HostReference>)>>,
}

impl References {
    /// Reads the endorsers' keys; the reference values are read when they are needed.
    ///
    /// # Errors
    /// [`ReferenceError`].
    pub(crate) fn new(config: &Config) -> Result<Self, ReferenceError> {
        let mut keys = Vec::new();
        for path in &config.endorsers.keys {
            let text = fsfile::read_limited(path, MAX_KEY_FILE)?;
            let wrong = || ReferenceError::Endorser(path.display().to_string());
            keys.push(pem::parse_public_key(&text).ok_or_else(wrong)?);
        }
        let wrong = |_| ReferenceError::Endorser("an endorser's key".to_owned());
        let endorsers = TrustedKeys::new(keys).map_err(wrong)?;
        let path = config.reference_values.clone();
        Ok(Self { path, endorsers, needed: config.endorsers.needed, held: Mutex::new(None) })
    }

    /// The present reference values.
    ///
    /// # Errors
    /// [`ReferenceError`]: nothing can be appraised.
    pub(crate) fn present(&self) -> Result<Arc<HostReference>, ReferenceError> {
        let facts = std::fs::metadata(&self.path)?;
        let stamp = (facts.len(), facts.modified()?);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, values)) = &*held
            && *at == stamp
        {
            return Ok(Arc::clone(values));
        }
        *held = None;
        let values = Arc::new(self.read()?);
        *held = Some((stamp, Arc::clone(&values)));
        Ok(values)
    }

    fn read(&self) -> Result<HostReference, ReferenceError> {
        let envelope = Envelope::parse(&fsfile::read_limited(&self.path, MAX_FILE)?)?;
        let signed = envelope.verify::<ReferenceValues>(
            &self.endorsers,
            Kind::ReferenceValues,
            self.needed,
        )?;
        Ok(HostReference::new(&[signed], &[])?)
    }
}
