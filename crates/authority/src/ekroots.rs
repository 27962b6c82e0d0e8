//! The TPM makers whose EK certificates are taken, as `ek_roots` named them when this process began.

use std::path::PathBuf;

use model::api::Bytes;
use pki::{Anchors, CertRejection};
use serve::pem::{self, PemError};
use thiserror::Error;

/// Why there are none.
#[derive(Debug, Error)]
pub(crate) enum EkRootsError {
    /// They are no trust anchors.
    #[error("ek_roots cannot be used")]
    Anchors(#[source] CertRejection),
    /// A file.
    #[error(transparent)]
    Pem(#[from] PemError),
}

/// The makers' CA certificates.
#[derive(Debug)]
pub(crate) struct EkRoots {
    /// To judge by.
    pub(crate) anchors: Anchors,
    /// To show, DER.
    pub(crate) certificates: Vec<Bytes>,
}

impl EkRoots {
    /// Reads them.
    ///
    /// # Errors
    /// [`EkRootsError`].
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self, EkRootsError> {
        let mut certificates = Vec::new();
        for file in files {
            certificates.extend(pem::read_certificates(file)?);
        }
        let anchors = Anchors::new(&certificates).map_err(EkRootsError::Anchors)?;
        Ok(Self { anchors, certificates: certificates.into_iter().map(Bytes).collect() })
    }
}
