//! The configuration file. Without one, every setting has its default, and the service is reached
//! over the VM's port.

use std::path::{Path, PathBuf};

use model::VmId;
use serde::Deserialize;
use thiserror::Error;

/// Longest configuration file, bytes.
const LIMIT: u64 = 64 << 10;

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// CA certificates (PEM) that the VM's owner trusts to certify trust services.
    pub ca: PathBuf,
    /// The port: a device, or a unix socket. Without it, the device is looked for by its name.
    pub port: Option<PathBuf>,
    /// The service's URL (`https://..` or `http://..`) where there is a network. Then no port.
    pub url: Option<String>,
    /// Over a network: this VM's name. Then `url` is that of the service's listener for guests, and the
    /// VM is proven there as it is on the port.
    pub vm: Option<VmId>,
    /// Over a network without a proof: the certificate (PEM) of the key that signs the service's
    /// answers.
    pub message_certificate: Option<PathBuf>,
    /// The TPM: `device:PATH`, `unix:PATH` or `tcp:127.0.0.1:PORT`.
    pub tpm: String,
    /// IMA's list.
    pub ima_log: PathBuf,
    /// Longest wait for the service, seconds.
    pub patience_s: u64,
    /// How old the service's knowledge may be, seconds; none: any age.
    pub max_age_s: Option<u32>,
    /// CA certificates (PEM) whose revocation lists are to bear out what the service calls valid.
    pub crl_issuers: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ca: "/vouchsafe/ca.pem".into(),
            port: None,
            url: None,
            vm: None,
            message_certificate: None,
            tpm: "device:/dev/tpmrm0".to_owned(),
            ima_log: "/sys/kernel/security/ima/binary_runtime_measurements".into(),
            patience_s: 60,
            max_age_s: None,
            crl_issuers: None,
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its content.
    #[error("the configuration is malformed")]
    Malformed(#[source] Box<toml::de::Error>),
}

impl Config {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_bounded(path, LIMIT)?;
        let text = String::from_utf8_lossy(&text);
        toml::from_str(&text).map_err(|error| ConfigError::Malformed(Box::new(error)))
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ConfigError> {
    use std::io::Read as _;
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_settings_are_refused_and_the_rest_has_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "patience_s = 5\n").unwrap();
        let config = Config::load(&file).unwrap();
        assert_eq!((config.patience_s, config.url), (5, None));
        std::fs::write(&file, "patient_s = 5\n").unwrap();
        assert!(matches!(Config::load(&file), Err(ConfigError::Malformed(_))));
        assert!(matches!(read_bounded(&file, 3), Err(ConfigError::Read { .. })));
    }
}
