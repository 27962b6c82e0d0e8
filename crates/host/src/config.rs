//! The agent's configuration: one TOML file, unknown keys refused, checked before anything is
//! opened. `config/host.toml` is a complete example.

use std::path::PathBuf;

use model::HostId;
use serde::Deserialize;
use serve::telemetry::Log;

use crate::trouble::Trouble;

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The host's name at the authority.
    pub(crate) name: HostId,
    /// What must survive a restart of the machine.
    pub(crate) state_dir: PathBuf,
    /// Sockets and locks, of this boot only.
    pub(crate) run_dir: PathBuf,
    /// Where the local API listens; `<run_dir>/agent.sock` if it is not set.
    #[serde(default)]
    pub(crate) agent_socket: Option<PathBuf>,
    /// The host's TPM: `device:/dev/tpmrm0`, or in the lab `unix:PATH` or `tcp:127.0.0.1:PORT`.
    pub(crate) tpm: String,
    /// The host's TCG2 event log.
    #[serde(default = "default_event_log")]
    pub(crate) event_log: PathBuf,
    /// Intermediate certificates of the EK, DER files, leaf side first.
    #[serde(default)]
    pub(crate) ek_intermediates: Vec<PathBuf>,
    /// The EK's certificate if the TPM's NV holds none, a DER file.
    #[serde(default)]
    pub(crate) ek_certificate: Option<PathBuf>,
    /// Where the authority is.
    pub(crate) authority: Authority,
    /// File with the one-time enrolment token; removed once it is used.
    #[serde(default)]
    pub(crate) token_file: Option<PathBuf>,
    /// How virtual CPUs are run.
    #[serde(default)]
    pub(crate) accel: AccelChoice,
    /// Programs.
    #[serde(default)]
    pub(crate) binaries: Binaries,
    /// The guests' firmware.
    #[serde(default)]
    pub(crate) firmware: Firmware,
    /// Bounds.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// Logs.
    #[serde(default)]
    pub(crate) log: Log,
}

/// Where the authority is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authority {
    /// `https://name:port`.
    pub(crate) url: String,
    /// Its CA's certificate, PEM.
    pub(crate) ca_file: PathBuf,
}

/// The accelerator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AccelChoice {
    /// KVM if a guest really runs under it, else TCG.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// TCG.
    Tcg,
}

/// Programs that the agent starts. Our own default to the agent's directory.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Binaries {
    /// `vouchsafe-vtpm`.
    vtpm: Option<PathBuf>,
    /// `vouchsafe-disk`.
    disk: Option<PathBuf>,
    /// `qemu-system-x86_64`.
    qemu: Option<PathBuf>,
    /// `swtpm`.
    pub(crate) swtpm: Option<PathBuf>,
}

/// The guests' firmware (OVMF).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Firmware {
    /// Code.
    pub(crate) code: PathBuf,
    /// Empty variable store, copied for each VM.
    pub(crate) vars: PathBuf,
}

/// Bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// VMs with files on this host.
    pub(crate) vms: usize,
    /// Extends of one boot that a vTPM's list keeps; more is `log-overflow`.
    pub(crate) max_extends: u32,
    /// How long a guest may take until its evidence arrives, seconds.
    pub(crate) boot_seconds: u64,
    /// How long a guest may take to power off before it is cut, seconds.
    pub(crate) stop_seconds: u64,
    /// How often a running guest is appraised again, seconds.
    pub(crate) reappraise_seconds: u64,
    /// How often it is looked whether a running guest has measured more or met damage, seconds.
    pub(crate) watch_seconds: u64,
    /// How often the volumes of running guests that were written to are advanced, seconds: what a
    /// guest wrote since can be put back. All of a host's volumes cost one increment of its TPM.
    pub(crate) advance_seconds: u64,
}

impl Default for Firmware {
    fn default() -> Self {
        Self {
            code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            vars: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            vms: 512,
            max_extends: 20_000,
            boot_seconds: 300,
            stop_seconds: 60,
            reappraise_seconds: 300,
            watch_seconds: 10,
            advance_seconds: 900,
        }
    }
}

impl Config {
    /// What the types cannot say.
    ///
    /// # Errors
    /// [`Trouble`] names the setting.
    pub(crate) fn check(&self) -> Result<(), Trouble> {
        for (name, path) in [("state_dir", &self.state_dir), ("run_dir", &self.run_dir)] {
            if !path.is_absolute() {
                return Err(Trouble::failed(format!("{name} must be an absolute path")));
            }
        }
        let Limits { vms, max_extends, boot_seconds, .. } = self.limits;
        let Limits { reappraise_seconds, watch_seconds, advance_seconds, .. } = self.limits;
        let seconds = [boot_seconds, reappraise_seconds, watch_seconds, advance_seconds];
        let unset = seconds.contains(&0);
        if vms == 0 || max_extends == 0 || unset {
            return Err(Trouble::failed("no limit may be 0"));
        }
        Ok(())
    }

    /// Where the local API listens.
    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.agent_socket.clone().unwrap_or_else(|| self.run_dir.join("agent.sock"))
    }
}

impl Binaries {
    /// `vouchsafe-vtpm`.
    pub(crate) fn vtpm(&self) -> PathBuf {
        ours(self.vtpm.as_ref(), "vouchsafe-vtpm")
    }

    /// `vouchsafe-disk`.
    pub(crate) fn disk(&self) -> PathBuf {
        ours(self.disk.as_ref(), "vouchsafe-disk")
    }

    /// `qemu-system-x86_64`.
    pub(crate) fn qemu(&self) -> PathBuf {
        self.qemu.clone().unwrap_or_else(|| "qemu-system-x86_64".into())
    }
}

fn ours(set: Option<&PathBuf>, name: &str) -> PathBuf {
    set.cloned().unwrap_or_else(|| {
        let here = std::env::current_exe().unwrap_or_default();
        here.parent().map(|dir| dir.join(name)).unwrap_or_else(|| name.into())
    })
}

fn default_event_log() -> PathBuf {
    "/sys/kernel/security/tpm0/binary_bios_measurements".into()
}

#[cfg(test)]
impl Config {
    /// A configuration with these two directories.
    pub(crate) fn example(state: &str, run: &str) -> Self {
        serde_json::from_value(serde_json::json!({
            "name": "a", "state_dir": state, "run_dir": run, "tpm": "unix:/t",
            "authority": {"url": "https://127.0.0.1:1", "ca_file": "/ca.pem"},
        }))
        .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../config/host.toml");

    fn load(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("host.toml");
        std::fs::write(&file, text).unwrap();
        let config: Config = serve::config::load(&file).unwrap();
        config.check().unwrap();
        config
    }

    #[test]
    fn the_shipped_example_is_valid_and_says_the_defaults() {
        let config = load(EXAMPLE);
        let default = (Firmware::default(), Limits::default());
        assert_eq!(format!("{:?}", (config.firmware, config.limits)), format!("{default:?}"));
    }

    #[test]
    fn what_the_example_comments_out_is_the_default() {
        let setting =
            |line: &&str| line.strip_prefix("# ").is_some_and(|line| line.contains(" = "));
        let all: Vec<&str> = EXAMPLE.lines().filter(setting).collect();
        assert_eq!(all.len(), 9, "{all:?}");
        let text: String = EXAMPLE
            .lines()
            .map(|line| if all.contains(&line) { line.trim_start_matches("# ") } else { line })
            .flat_map(|line| [line, "\n"])
            .collect();
        let (written, unwritten) = (load(&text), load(EXAMPLE));
        assert_eq!(written.agent_socket(), unwritten.agent_socket());
        assert_eq!(written.event_log, unwritten.event_log);
        assert_eq!(written.accel, unwritten.accel);
        assert_eq!(written.ek_intermediates, unwritten.ek_intermediates);
        assert_eq!(written.binaries.qemu(), unwritten.binaries.qemu());
    }

    #[test]
    fn unknown_keys_are_refused_and_defaults_are_strict() {
        let config = Config::example("/s", "/r");
        assert_eq!(config.accel, AccelChoice::Auto);
        assert_eq!(config.agent_socket(), PathBuf::from("/r/agent.sock"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("host.toml");
        let text = "name = \"a\"\nstate_dir = \"/s\"\nrun_dir = \"/r\"\ntpm = \"unix:/t\"\n\
                    skip = 1\n[authority]\nurl = \"u\"\nca_file = \"c\"\n";
        std::fs::write(&file, text).unwrap();
        let error = serve::config::load::<Config>(&file).unwrap_err().to_string();
        assert!(error.contains("skip"), "{error}");
        std::fs::write(&file, text.replace("skip = 1\n", "")).unwrap();
        assert!(serve::config::load::<Config>(&file).is_ok());
    }
}
