//! The configuration file. Unknown keys are refused; relative paths are relative to the file.
//! `config/authority.toml` is a complete example.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use model::api::policy::Policy;
use serde::Deserialize;
use serve::telemetry::Log;
use thiserror::Error;
use tpm::Address;

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Everything that `init` makes and the server keeps.
    pub(crate) state_dir: PathBuf,
    /// Where to listen; port 0 lets the kernel choose.
    pub(crate) listen: SocketAddr,
    /// DNS names and IP addresses in the server's certificate.
    #[serde(default = "default_names")]
    pub(crate) names: Vec<String>,
    /// Where the bound address is written once the server answers.
    pub(crate) address_file: Option<PathBuf>,
    /// The TPM that seals the root key and anchors the store: `device:`, `unix:` or `tcp:`.
    pub(crate) tpm: String,
    /// PCRs (SHA-256 bank) that the root key is sealed to; none binds it to the TPM only.
    #[serde(default)]
    pub(crate) seal_pcrs: Vec<u8>,
    /// CA certificates (PEM) of the TPM makers whose EKs are taken.
    pub(crate) ek_roots: Vec<PathBuf>,
    /// Whether hosts with software TPMs may be trusted: for the lab only.
    #[serde(default)]
    pub(crate) allow_software_tpm: bool,
    /// Signed reference values of hosts (a DSSE envelope); read again when the file changes.
    pub(crate) reference_values: PathBuf,
    /// Who may sign reference values.
    pub(crate) endorsers: Endorsers,
    /// Shares of the root key, shown once by `init`.
    #[serde(default)]
    pub(crate) recovery: Recovery,
    /// A second place for the store's signed head, best on another machine.
    pub(crate) witness: Option<PathBuf>,
    /// The first policy; afterwards `PUT /v1/policy` changes it.
    #[serde(default)]
    pub(crate) policy: Policy,
    /// Bounds.
    #[serde(default)]
    pub(crate) limits: Limits,
    /// Logging.
    #[serde(default)]
    pub(crate) log: Log,
}

/// Who may sign reference values.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Endorsers {
    /// Public keys (SubjectPublicKeyInfo, PEM).
    pub(crate) keys: Vec<PathBuf>,
    /// How many of them must sign.
    #[serde(default = "one")]
    pub(crate) needed: usize,
}

/// Shares of the root key.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Recovery {
    /// How many are made.
    pub(crate) shares: u8,
    /// How many bring the root key back.
    pub(crate) threshold: u8,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { shares: 5, threshold: 3 }
    }
}

/// Bounds on what callers can make the authority do.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Longest body of a request that carries a host's evidence, in bytes: anyone may send it.
    pub(crate) evidence_bytes: usize,
    /// Longest body of a request that carries a guest's evidence, in bytes: hosts in session only.
    pub(crate) guest_evidence_bytes: usize,
    /// Longest body of any other request, in bytes.
    pub(crate) body_bytes: usize,
    /// Connections open at once.
    pub(crate) connections: usize,
    /// Requests without a certificate from one address in a minute.
    pub(crate) anonymous_per_minute: u32,
    /// Refusals of one host that are audited in a minute; what is over is refused as
    /// `rate-limited`.
    pub(crate) refusals_per_minute: u32,
    /// Enrolments under way at once.
    pub(crate) enrolments: usize,
    /// Longest wait of a poll for orders, seconds.
    pub(crate) poll_s: u64,
    /// How long nothing is heard of a host before an operator's word that it is off is taken,
    /// seconds; longer than a poll.
    pub(crate) fence_silence_s: u64,
    /// How often a checkpoint of an audit log that has grown is signed, seconds.
    pub(crate) checkpoint_s: u64,
    /// How often a store that changed is anchored in the TPM, milliseconds. What must never be
    /// forgotten is anchored at once; each time wears the TPM's memory a little.
    pub(crate) anchor_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            evidence_bytes: 2 << 20,
            guest_evidence_bytes: 16 << 20,
            body_bytes: 256 << 10,
            connections: 1024,
            anonymous_per_minute: 240,
            refusals_per_minute: 600,
            enrolments: 256,
            poll_s: 55,
            fence_silence_s: 90,
            checkpoint_s: 60,
            anchor_ms: 60_000,
        }
    }
}

/// Why a configuration is not used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// Unreadable, malformed, an unknown key or a wrong type.
    #[error(transparent)]
    File(#[from] serve::config::ConfigError),
    /// A value that cannot be meant.
    #[error("the configuration's `{key}` {problem}")]
    Value {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file that must be there before the server starts.
    #[error("the configuration's `{key}` names {}, which is not there: {what}", path.display())]
    Missing {
        /// Which key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What belongs there.
        what: &'static str,
    },
}

impl Config {
    /// Reads and checks a configuration; nothing but the file is touched.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = serve::config::load(path)?;
        let config = config.resolved(path.parent().unwrap_or(Path::new(".")));
        config.check()?;
        Ok(config)
    }

    /// The TPM's address.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(crate) fn tpm_address(&self) -> Result<Address, ConfigError> {
        let problem = "must begin with `device:`, `unix:` or `tcp:`";
        self.tpm.parse().map_err(|_| ConfigError::Value { key: "tpm", problem })
    }

    /// Looks for the files that others bring.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] names the first that is not there, and what belongs there.
    pub(crate) fn must_be_there(&self) -> Result<(), ConfigError> {
        let roots = self.ek_roots.iter().map(|path| {
            ("ek_roots", path, "put the CA certificate (PEM) of your TPMs' maker there")
        });
        let endorsers =
            self.endorsers.keys.iter().map(|path| {
                ("endorsers.keys", path, "`vouchsafe reference key` makes it (NAME.pub)")
            });
        let what = "`vouchsafe reference from-log` and `sign` make it, `reference install` puts it \
                    there";
        let values = std::iter::once(("reference_values", &self.reference_values, what));
        match roots.chain(endorsers).chain(values).find(|(_, path, _)| !path.exists()) {
            None => Ok(()),
            Some((key, path, what)) => Err(ConfigError::Missing { key, path: path.clone(), what }),
        }
    }

    fn resolved(mut self, base: &Path) -> Self {
        let under = |path: &mut PathBuf| *path = base.join(&*path);
        under(&mut self.state_dir);
        under(&mut self.reference_values);
        self.address_file.iter_mut().for_each(under);
        self.witness.iter_mut().for_each(under);
        self.ek_roots.iter_mut().for_each(under);
        self.endorsers.keys.iter_mut().for_each(under);
        self
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |key, problem| Err(ConfigError::Value { key, problem });
        self.tpm_address()?;
        if self.ek_roots.is_empty() {
            return fail("ek_roots", "must name at least one CA certificate");
        }
        if self.names.is_empty() {
            return fail("names", "must have at least one name");
        }
        if self.endorsers.needed == 0 || self.endorsers.needed > self.endorsers.keys.len() {
            return fail("endorsers.needed", "must be between 1 and the number of keys");
        }
        if self.recovery.threshold < 2 || self.recovery.threshold > self.recovery.shares {
            return fail("recovery.threshold", "must be between 2 and the number of shares");
        }
        if self.seal_pcrs.iter().any(|pcr| *pcr > 23) {
            return fail("seal_pcrs", "must be between 0 and 23");
        }
        let Limits { poll_s, anchor_ms, checkpoint_s, .. } = self.limits;
        if poll_s == 0 || anchor_ms == 0 || checkpoint_s == 0 || self.limits.connections == 0 {
            return fail("limits", "must not be zero");
        }
        if self.limits.fence_silence_s <= poll_s {
            return fail("limits.fence_silence_s", "must be longer than `limits.poll_s`");
        }
        check_policy(&self.policy).map_or(Ok(()), |(key, problem)| fail(key, problem))
    }
}

/// What is wrong with a policy, if anything: the key and the problem.
pub(crate) fn check_policy(policy: &Policy) -> Option<(&'static str, &'static str)> {
    const DAY: u64 = 86_400;
    const YEAR: u64 = 365 * DAY;
    let within = |value: u64, most: u64| (1..=most).contains(&value);
    if !within(policy.clock_skew_s, 3600) {
        Some(("policy.clock_skew_s", "must be between 1 and 3600"))
    } else if !within(policy.nonce_life_s, 3600) {
        Some(("policy.nonce_life_s", "must be between 1 and 3600"))
    } else if !within(policy.session_life_s, DAY) {
        Some(("policy.session_life_s", "must be between 1 and 86400"))
    } else if !within(policy.lease_s, YEAR) {
        Some(("policy.lease_s", "must be between 1 and 31536000"))
    } else if !within(policy.grant_life_s, 3600) {
        Some(("policy.grant_life_s", "must be between 1 and 3600"))
    } else if !within(policy.token_life_s, 30 * DAY) {
        Some(("policy.token_life_s", "must be between 1 and 2592000"))
    } else if !within(policy.guest_verdict_life_s, DAY) {
        Some(("policy.guest_verdict_life_s", "must be between 1 and 86400"))
    } else {
        None
    }
}

fn default_names() -> Vec<String> {
    vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
}

const fn one() -> usize {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../config/authority.toml");

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authority.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn the_shipped_example_is_valid_and_says_the_defaults() {
        let config = load(EXAMPLE).unwrap();
        assert_eq!(config.policy, Policy::default());
        assert!(!config.allow_software_tpm);
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(load(&format!("surprise = 1\n{EXAMPLE}")).is_err());
        assert!(load(&EXAMPLE.replace("lease_s", "leash_s")).is_err());
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_named() {
        let error = load(&EXAMPLE.replace("needed = 1", "needed = 9")).unwrap_err();
        assert!(error.to_string().contains("endorsers.needed"), "{error}");
    }
}
