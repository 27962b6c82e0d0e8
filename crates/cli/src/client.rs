//! Whom the shell talks to: the authority (HTTPS with an operator's certificate) and, in a lab, an
//! agent's local socket.

use std::path::{Path, PathBuf};

use model::HostId;
use serde::Deserialize;
use serve::{
    client::{Client, ClientLimits, Identity},
    clock::SystemClock,
    pem,
};

use crate::{
    lab::{layout::Layout, record::LabRecord},
    output::Failure,
};

/// Where a client configuration is looked for when nothing is said.
const DEFAULT_CONFIG: &str = "/etc/vouchsafe/client.toml";

/// `client.toml`: one authority.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// `https://name:port`.
    pub url: String,
    /// The authority's CA, PEM.
    pub ca_file: PathBuf,
    /// The operator's certificate, PEM.
    pub client_cert: PathBuf,
    /// Its key, PKCS#8 PEM.
    pub client_key: PathBuf,
}

/// The system acted on.
#[derive(Clone, Debug)]
pub struct Target {
    authority: ClientFile,
    lab: Option<Layout>,
}

impl Target {
    /// The lab in `lab`, or the authority named in `config` or the default file.
    ///
    /// # Errors
    /// [`Failure`] if there is no such lab or file, or it is malformed.
    pub fn find(lab: Option<&Path>, config: Option<&Path>) -> Result<Self, Failure> {
        if let Some(dir) = lab {
            let layout = Layout::open(dir)?;
            let record = LabRecord::read(&layout)?;
            return Ok(Self { authority: record.authority.as_client_file(), lab: Some(layout) });
        }
        let path = config.unwrap_or_else(|| Path::new(DEFAULT_CONFIG));
        if config.is_none() && !path.exists() {
            return Err(Failure::Usage(format!(
                "say where to act: --lab DIR, --config FILE, or write {DEFAULT_CONFIG}"
            )));
        }
        let authority = serve::config::load::<ClientFile>(path)?;
        Ok(Self { authority, lab: None })
    }

    /// The authority of `file`, no lab.
    #[must_use]
    pub const fn at(file: ClientFile) -> Self {
        Self { authority: file, lab: None }
    }

    /// A client of the authority.
    ///
    /// # Errors
    /// [`Failure`] if the credentials cannot be read.
    pub fn authority(&self) -> Result<Client, Failure> {
        let file = &self.authority;
        let identity = Identity::read(&file.client_cert, &file.client_key)?;
        let anchors = pem::read_certificates(&file.ca_file)?;
        let (clock, limits) = (SystemClock::shared(), ClientLimits::default());
        Ok(Client::https(&file.url, &anchors, Some(&identity), clock, limits)?)
    }

    /// Where a lab's authority keeps its state; `None` if this is no lab.
    #[must_use]
    pub fn lab_state(&self) -> Option<PathBuf> {
        self.lab.as_ref().map(|layout| layout.authority().join("state"))
    }

    /// The lab's directory; `None` if this is no lab.
    #[must_use]
    pub fn lab_dir(&self) -> Option<&Path> {
        self.lab.as_ref().map(|layout| layout.dir.as_path())
    }

    /// A client of a lab host's agent.
    ///
    /// # Errors
    /// [`Failure`] if this is no lab.
    pub fn agent(&self, host: &HostId) -> Result<Client, Failure> {
        let layout = self.lab.as_ref().ok_or_else(|| {
            Failure::Usage("only a lab's hosts are asked directly: use --lab DIR".to_owned())
        })?;
        Ok(Client::unix(&layout.agent_socket(host), ClientLimits::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_is_valid() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/client.toml");
        let file: ClientFile = serve::config::load(&path).unwrap();
        assert_eq!(file.ca_file, Path::new("/etc/vouchsafe/ca.pem"));
    }
}
