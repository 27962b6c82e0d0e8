//! What a lab writes down: `lab.json` for everybody, `processes.json` for itself.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use model::HostId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serve::process::ProcessId;

use super::layout::Layout;
use crate::{
    args::{Accel, Manner},
    client::ClientFile,
    output::{Failure, quoted},
};

/// Longest of these files, bytes.
const LONGEST: usize = 1 << 20;

/// `lab.json`. Outside tools rely on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabRecord {
    /// The authority.
    pub authority: AuthorityRecord,
    /// The hosts.
    pub hosts: Vec<HostRecord>,
    /// The key-management centre, in a lab that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centre: Option<CentreRecord>,
}

/// The key-management centre's entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CentreRecord {
    /// `https://127.0.0.1:PORT`, for trust services only.
    pub url: String,
    /// Its files: configuration, `state`.
    pub dir: PathBuf,
    /// Its process.
    pub pid: i32,
}

/// The authority's entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityRecord {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// Its CA, PEM.
    pub ca_file: PathBuf,
    /// An operator's certificate, PEM.
    pub client_cert: PathBuf,
    /// Its key, PKCS#8 PEM.
    pub client_key: PathBuf,
    /// Its process.
    pub pid: i32,
}

impl AuthorityRecord {
    /// As a client configuration.
    #[must_use]
    pub fn as_client_file(&self) -> ClientFile {
        ClientFile {
            url: self.url.clone(),
            ca_file: self.ca_file.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
        }
    }
}

/// A host's entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRecord {
    /// Its name.
    pub name: HostId,
    /// Its files.
    pub dir: PathBuf,
    /// The agent's local API.
    pub agent_socket: PathBuf,
    /// Data socket of its software TPM.
    pub tpm_socket: PathBuf,
    /// The agent's process.
    pub pid: i32,
    /// Its trust service: where XKMS requests are posted to.
    pub xkms_url: String,
    /// The trust service's CA, PEM.
    pub xkms_ca_file: PathBuf,
}

impl LabRecord {
    /// Reads `lab.json`.
    ///
    /// # Errors
    /// [`Failure`] if the lab is not up.
    pub fn read(layout: &Layout) -> Result<Self, Failure> {
        let path = layout.lab_json();
        read(&path)?.ok_or_else(|| {
            Failure::error(
                format!("{} is missing: the lab is not up", path.display()),
                format!("`vouchsafe lab up --dir {}`", quoted(&layout.dir)),
            )
        })
    }

    /// Writes `lab.json`.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be written.
    pub fn write(&self, layout: &Layout) -> Result<(), Failure> {
        write(&layout.lab_json(), self)
    }
}

/// How the lab was wished at its last `up`: a later one that does not say keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Accelerator of the VMs.
    pub accel: Accel,
    /// Lease of a verdict in seconds.
    pub lease_seconds: u64,
    /// Who certifies keys.
    pub manner: Manner,
}

impl Settings {
    /// Reads `settings.json`; `None` if the lab is new.
    ///
    /// # Errors
    /// [`Failure`] if it is malformed.
    pub fn read(layout: &Layout) -> Result<Option<Self>, Failure> {
        read(&layout.settings())
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be written.
    pub fn write(&self, layout: &Layout) -> Result<(), Failure> {
        write(&layout.settings(), self)
    }
}

/// The processes that `up` started, by role: `authority`, `authority-tpm`, `host-a`, `host-a-tpm`,
/// `trust-a`, `centre`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Processes(pub BTreeMap<String, ProcessId>);

impl Processes {
    /// Reads `processes.json`; none if it is missing.
    ///
    /// # Errors
    /// [`Failure`] if it is malformed.
    pub fn read(layout: &Layout) -> Result<Self, Failure> {
        Ok(read(&layout.processes())?.unwrap_or_default())
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be written.
    pub fn write(&self, layout: &Layout) -> Result<(), Failure> {
        write(&layout.processes(), self)
    }

    /// The live process of a role.
    #[must_use]
    pub fn alive(&self, role: &str) -> Option<ProcessId> {
        self.0.get(role).copied().filter(ProcessId::is_alive)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    match serve::fsfile::read_limited(path, LONGEST) {
        Ok(content) => serde_json::from_slice(&content).map(Some).map_err(|error| {
            Failure::error(
                format!("{}: {error}", path.display()),
                "if it is lab.json, `vouchsafe lab up` writes it anew; else put it right by hand",
            )
        }),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    serve::fsfile::write_atomic(path, &serde_json::to_vec_pretty(value)?, 0o600)?;
    Ok(())
}
