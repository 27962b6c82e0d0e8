//! Reference values of hosts: read from their file, verified against the endorsers' keys, and read
//! again when the file changes. A file that does not verify is not used, and neither is the one
//! before it: then no host is appraised.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use attest::{
    envelope::{Envelope, EnvelopeRejection, Kind, TrustedKeys},
    reference::{HostReference, ReferenceUnusable, ReferenceValues},
};
use model::Digest;
use serde::Serialize;
use serve::{fsfile, pem};
use thiserror::Error;

use crate::{command::Told, config::Config};

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

impl ReferenceError {
    /// The refusal's name and hint, if a rule said no: exit status 3.
    pub(crate) const fn refusal(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Envelope(rejection) => Some((rejection.code(), rejection.hint())),
            Self::Unusable(why) => {
                Some((why.code(), "mend the draft and have it signed again; see `reference show`"))
            }
            Self::File(_) | Self::Inspect(_) | Self::Endorser(_) => None,
        }
    }
}

/// Reference values that were put in place.
#[derive(Debug, Serialize)]
pub(crate) struct Installed {
    reference_values: PathBuf,
    digest: Digest,
    pcrs: Vec<u8>,
}

impl Told for Installed {
    fn in_words(&self) -> String {
        format!(
            "{} is signed as the configuration demands and in its place (PCRs {:?}, policy {})\n\
             hosts are appraised by it from their next evidence on; `vouchsafe host list` says how \
             they stand",
            self.reference_values.display(),
            self.pcrs,
            self.digest,
        )
    }
}

/// Verifies a document as the server does, and puts it where the server reads it.
///
/// # Errors
/// [`ReferenceError`]; then the present reference values stay.
pub(crate) fn install(config: &Config, document: &Path) -> Result<Installed, ReferenceError> {
    let content = fsfile::read_limited(document, MAX_FILE)?;
    let values = References::new(config)?.parse(&content)?;
    let reference_values = config.reference_values.clone();
    fsfile::write_atomic(&reference_values, &content, 0o644)?;
    Ok(Installed { reference_values, digest: values.digest(), pcrs: values.pcrs().to_vec() })
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
        let values = Arc::new(self.parse(&fsfile::read_limited(&self.path, MAX_FILE)?)?);
        tracing::info!(policy = %values.digest(), "reference values are in use");
        *held = Some((stamp, Arc::clone(&values)));
        Ok(values)
    }

    fn parse(&self, content: &[u8]) -> Result<HostReference, ReferenceError> {
        let envelope = Envelope::parse(content)?;
        let signed = envelope.verify::<ReferenceValues>(
            &self.endorsers,
            Kind::ReferenceValues,
            self.needed,
        )?;
        Ok(HostReference::new(&[signed], &[])?)
    }
}
