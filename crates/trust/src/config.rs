//! The configuration file. Unknown keys are refused; relative paths are relative to the file.
//! `config/trust.toml` is a complete example.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anchor::{AnchorSettings, Bound};
use serde::{Deserialize, Serialize};
use serve::telemetry::Log;
use thiserror::Error;
use trust::{
    keeper::{self, guest::GuestSettings},
    peer::PeerSettings,
};

/// NV index of the counter, where a TPM is configured.
const NV_INDEX: u32 = 0x0180_5611;

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Everything that the keeper makes and keeps.
    pub(crate) state_dir: PathBuf,
    /// Where to listen; port 0 lets the kernel choose.
    pub(crate) listen: SocketAddr,
    /// Where the bound address is written once the server answers.
    pub(crate) address_file: Option<PathBuf>,
    /// The URI that requests must be addressed to; without it, `/xkms` at the bound address.
    pub(crate) service: Option<String>,
    /// The socket of this server's agent, which gets passports and knows guests: `keeper.centre`,
    /// `guest` and `peer` need it.
    pub(crate) agent_socket: Option<PathBuf>,
    /// Certificate and key of the server; without it, it speaks plain HTTP.
    pub(crate) tls: Option<Tls>,
    /// What strangers may ask, and how.
    #[serde(default)]
    pub(crate) front: Front,
    /// The library, the CA, and what it certifies.
    #[serde(default)]
    pub(crate) keeper: keeper::Settings,
    /// What an older copy of the state is refused by; needed where there is no `agent_socket`.
    #[serde(default)]
    pub(crate) anchor: AnchorSettings,
    /// Guests on the ports of their VMs; without it, none is served.
    pub(crate) guest: Option<GuestSettings>,
    /// Trust services of other servers; without it, no keys move.
    pub(crate) peer: Option<PeerSettings>,
    /// Logging.
    #[serde(default)]
    pub(crate) log: Log,
}

/// Certificate and key of the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// Chain, leaf first, PEM.
    pub(crate) certificates: PathBuf,
    /// Key, PKCS#8 PEM, closed to others.
    pub(crate) key: PathBuf,
}

/// When orders take two phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TwoPhase {
    /// Each time.
    #[default]
    Always,
    /// When the client offers it, and above `orders_per_second` from everyone.
    UnderLoad,
    /// Never.
    Never,
}

/// What strangers may ask, and how.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Front {
    /// Whether questions are answered that no known key signed: for the lab only.
    pub(crate) open_queries: bool,
    /// When orders take two phases.
    pub(crate) two_phase: TwoPhase,
    /// How many orders in a second are taken in one phase, where `two_phase = "under-load"`.
    pub(crate) orders_per_second: u32,
    /// How long a nonce of the first phase counts, seconds.
    pub(crate) nonce_s: u32,
    /// How many nonces are taken back in that time; more are refused.
    pub(crate) nonces: usize,
    /// Whether SHA-1 counts in the MACs of old clients.
    pub(crate) sha1_in_macs: bool,
    /// At most so many bindings in an answer.
    pub(crate) answers: u32,
    /// Longest request, bytes.
    pub(crate) body_bytes: usize,
    /// Connections open at once.
    pub(crate) connections: usize,
    /// How long a client may take for a request, seconds.
    pub(crate) request_s: u64,
    /// Questions worked on at once.
    pub(crate) channels: usize,
    /// Orders worked on at once.
    pub(crate) order_channels: usize,
    /// Refusals of its own that the reader has audited one by one in a second; what is over is
    /// counted.
    pub(crate) refusals_per_second: u32,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            open_queries: false,
            two_phase: TwoPhase::Always,
            orders_per_second: 20,
            nonce_s: 120,
            nonces: 100_000,
            sha1_in_macs: false,
            answers: 64,
            body_bytes: 256 << 10,
            connections: 1024,
            request_s: 10,
            channels: 8,
            order_channels: 8,
            refusals_per_second: 20,
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// The files.
    #[error(transparent)]
    Load(#[from] serve::config::ConfigError),
    /// A bound that lets nothing pass.
    #[error("front.{0} must be at least 1")]
    Zero(&'static str),
    /// A value of the keeper.
    #[error("{0} {1}")]
    Keeper(&'static str, &'static str),
}

impl Config {
    /// Reads `path` and its refinements.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = serve::config::load(path)?;
        // A bare file name has an empty parent, which is no directory to open.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let base = parent.unwrap_or_else(|| Path::new("."));
        let absolute = |path: &mut PathBuf| *path = base.join(&*path);
        absolute(&mut config.state_dir);
        config.address_file.iter_mut().for_each(absolute);
        config.agent_socket.iter_mut().for_each(absolute);
        if let Some(tls) = &mut config.tls {
            absolute(&mut tls.certificates);
            absolute(&mut tls.key);
        }
        if let Some(peer) = &mut config.peer {
            peer.address_file.iter_mut().for_each(absolute);
        }
        if let Some(guest) = &mut config.guest {
            guest.address_file.iter_mut().for_each(absolute);
        }
        config.keeper = config.keeper.resolved(base);
        config.anchor = config.anchor.resolved(base);
        config.check()?;
        Ok(config)
    }

    /// Whether keys may live in the host's TPM: made there, or come there with their owner.
    pub(crate) fn uses_host_tpm(&self) -> bool {
        self.keeper.keep == keeper::Keep::Tpm || self.peer.is_some()
    }

    /// Where the state is anchored.
    ///
    /// # Errors
    /// [`ConfigError::Keeper`].
    pub(crate) fn bound(&self) -> Result<Bound, ConfigError> {
        let bound = self.anchor.bound(self.agent_socket.as_deref(), NV_INDEX);
        bound.map_err(|(key, wrong)| ConfigError::Keeper(key, wrong))
    }

    /// Whether all values can be meant.
    fn check(&self) -> Result<(), ConfigError> {
        let front = &self.front;
        let bounds = [
            ("channels", front.channels),
            ("order_channels", front.order_channels),
            ("connections", front.connections),
            ("body_bytes", front.body_bytes),
            ("nonces", front.nonces),
        ];
        if let Some((name, _)) = bounds.into_iter().find(|(_, bound)| *bound == 0) {
            return Err(ConfigError::Zero(name));
        }
        let centre = self.keeper.centre.as_ref();
        let asks_agent = centre.is_some() || self.guest.is_some() || self.uses_host_tpm();
        if asks_agent && self.agent_socket.is_none() {
            let wrong = "is missing: `keeper.centre`, `keeper.keep`, `guest` and `peer` need it";
            return Err(ConfigError::Keeper("agent_socket", wrong));
        }
        if centre.is_some_and(|centre| centre.questions_at_once >= front.channels) {
            let wrong =
                "must be less than `front.channels`: the library is not to wait behind them";
            return Err(ConfigError::Keeper("keeper.centre.questions_at_once", wrong));
        }
        self.bound()?;
        if let Some((key, wrong)) = self.guest.as_ref().and_then(GuestSettings::problem) {
            return Err(ConfigError::Keeper(key, wrong));
        }
        self.keeper.problem().map_or(Ok(()), |(key, wrong)| Err(ConfigError::Keeper(key, wrong)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trust.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn the_example_is_read_and_says_the_defaults() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/trust.toml");
        let config = Config::load(Path::new(example)).unwrap();
        let defaults = Front::default();
        assert_eq!(format!("{:?}", config.front), format!("{defaults:?}"));
        assert!(!defaults.open_queries && defaults.two_phase == TwoPhase::Always);
    }

    /// Every key of a table of the configuration (`""`: the top), as the parser names them.
    fn keys(table: &str) -> Vec<String> {
        let least = "state_dir = 's'\nlisten = '127.0.0.1:0'\n";
        let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        let error = load(&format!("{least}{header}nobody = 1\n")).unwrap_err().to_string();
        let (_, names) = error.split_once(" field `nobody`, expected ").unwrap();
        let (names, _) = names.split_once(" (at ").unwrap();
        names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_example_has_every_setting_with_its_default() {
        let text = include_str!("../config/trust.toml");
        let (mut shown, mut table) = (Vec::new(), String::new());
        for line in text.lines() {
            let line = line.trim_start_matches("# ");
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                table = name.to_owned();
                shown.push(table.clone());
            } else if let Some((key, _)) = line.split_once(" = ") {
                shown.push(if table.is_empty() {
                    key.to_owned()
                } else {
                    format!("{table}.{key}")
                });
            }
        }
        let tables = ["", "anchor", "tls", "front", "keeper", "keeper.token", "keeper.centre"];
        for table in tables.into_iter().chain(["guest", "peer", "log"]) {
            for key in keys(table) {
                let full = if table.is_empty() { key } else { format!("{table}.{key}") };
                assert!(shown.contains(&full), "{full} is not in config/trust.toml");
            }
        }
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/trust.toml");
        let keeper = Config::load(Path::new(example)).unwrap().keeper;
        assert_eq!(format!("{keeper:?}"), format!("{:?}", keeper::Settings::default()));
        // What is commented out can be meant, too.
        let least = "state_dir = 's'\nlisten = '127.0.0.1:0'\nagent_socket = 'a'\n";
        for (table, manner) in [("keeper.token", "full"), ("keeper.centre", "hybrid")] {
            let from = text.find(&format!("# [{table}]")).unwrap();
            let lines = text[from..].lines().take_while(|line| !line.is_empty());
            let lines: Vec<&str> = lines.map(|line| line.trim_start_matches("# ")).collect();
            let text = format!("{least}[keeper]\nmanner = '{manner}'\n{}\n", lines.join("\n"));
            load(&text).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let bare = "state_dir = 's'\nlisten = '127.0.0.1:0'\n";
        assert!(load(bare).unwrap_err().to_string().contains("anchor.by is missing"));
        let least = &format!("{bare}anchor = {{ by = 'none' }}\n");
        assert!(load(least).unwrap().state_dir.is_absolute());
        for (more, said) in [
            ("[front]\nchannels = 0\n", "front.channels"),
            ("[front]\nopen_querys = true\n", "open_querys"),
            ("[keeper]\nescrow = true\n", "keeper.escrow"),
            (&TOKEN.replace("'k'", "''"), "keeper.token"),
            (&TOKEN.replace("label", "lable"), "lable"),
            ("[front]\ntwo_phase = 'sometimes'\n", "two_phase"),
            ("[guest]\n", "agent_socket is missing"),
            ("[peer]\nlisten = '127.0.0.1:0'\n", "agent_socket is missing"),
            (&format!("[keeper]\nmanner = 'hybrid'\n{CENTRE}"), "agent_socket is missing"),
        ] {
            let error = load(&format!("{least}{more}")).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let least = format!("{least}agent_socket = 'a'\n");
        for (more, said) in [
            ("[guest]\nclient_path = 'b'\n".to_owned(), "guest.client_path"),
            ("[guest]\nagent_socket = 'b'\n".to_owned(), "agent_socket"),
            (format!("{}{TOKEN}", hybrid("")), "keeper.token needs"),
            (hybrid("questions_at_once = 8\n"), "keeper.centre.questions_at_once"),
            (hybrid("questions_at_once = 2\n[front]\nchannels = 2\n"), "questions_at_once"),
        ] {
            let error = load(&format!("{least}{more}")).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let config = load(&format!("{least}{}", hybrid(""))).unwrap();
        assert!(config.agent_socket.unwrap().is_absolute());
    }

    const TOKEN: &str =
        "[keeper.token]\nmodule = 'm'\nlabel = 'l'\nkey = 'k'\npin = { path = 'p' }\n";
    const CENTRE: &str = "[keeper.centre]\nurl = 'https://c:1'\ntenant = 't'\ndomain = 'd'\n";

    fn hybrid(more: &str) -> String {
        // The manner follows from the centre.
        format!("[keeper]\n{CENTRE}{more}")
    }
}
