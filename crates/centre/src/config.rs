//! The configuration file.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anchor::{AnchorSettings, Bound};
use anyhow::bail;
use centre::centre::Settings;
use serde::Deserialize;
use serve::telemetry::Log;

/// NV index of the counter, where a TPM is configured.
const NV_INDEX: u32 = 0x0180_5612;

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Address and port for trust services; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Where the address is written once it is bound.
    #[serde(default)]
    pub(crate) address_file: Option<PathBuf>,
    /// Keys, store and audit log.
    pub(crate) state_dir: PathBuf,
    /// The socket of this server's agent: passports come from there.
    pub(crate) agent_socket: PathBuf,
    /// What an older copy of the state is refused by: left out, this server's agent.
    #[serde(default)]
    pub(crate) anchor: AnchorSettings,
    /// Connections open at once.
    #[serde(default = "connections")]
    pub(crate) connections: usize,
    /// Logging.
    #[serde(default)]
    pub(crate) log: Log,
    /// PKIs, tenants, bounds.
    pub(crate) centre: Settings,
}

const fn connections() -> usize {
    512
}

impl Config {
    /// Reads and checks it; relative paths are taken from its directory.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let mut config: Self = serve::config::load(path)?;
        let base = path.parent().unwrap_or(Path::new("."));
        config.state_dir = base.join(&config.state_dir);
        config.agent_socket = base.join(&config.agent_socket);
        config.address_file = config.address_file.map(|file| base.join(file));
        config.centre = config.centre.resolved(base);
        config.anchor = config.anchor.resolved(base);
        config.bound()?;
        if let Some((place, problem)) = config.centre.problem() {
            bail!("{}: {place} {problem}", path.display());
        }
        if config.connections == 0 {
            bail!("{}: connections must not be zero", path.display());
        }
        Ok(config)
    }

    /// Where the state is anchored.
    pub(crate) fn bound(&self) -> anyhow::Result<Bound> {
        let bound = self.anchor.bound(Some(&self.agent_socket), NV_INDEX);
        bound.map_err(|(place, problem)| anyhow::anyhow!("{place} {problem}"))
    }
}
