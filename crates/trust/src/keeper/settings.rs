//! What can be set about the keeper: the table `[keeper]` of the configuration.

use std::path::{Path, PathBuf};

use model::{Domain, Tenant};
use serde::Deserialize;
use serve::config::SecretSource;
use token::TokenSettings;

/// Who certifies, and what is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// A CA of its own: everything is done here.
    Full,
    /// Questions are answered from the library; what needs a CA is ordered from the centre.
    Hybrid,
    /// Requests are authenticated and passed on to the centre.
    Proxy,
}

/// Where private halves of keys that were made here for owners are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Under the escrow key.
    #[default]
    Store,
    /// Under a key of the owner that lives in the host's TPM.
    Tpm,
}

impl Manner {
    /// Kebab-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Hybrid => "hybrid",
            Self::Proxy => "proxy",
        }
    }
}

/// The key-management centre: the table `[keeper.centre]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtCentre {
    /// Where it is: `https://HOST:PORT`.
    pub url: String,
    /// Whose orders ours are.
    pub tenant: Tenant,
    /// The PKI that certifies.
    pub domain: Domain,
    /// How old what is known of revocations may be, seconds; then it is open again.
    #[serde(default = "max_age_s")]
    pub max_age_s: u64,
    /// How long it is remembered that the centre knew nothing, seconds.
    #[serde(default = "negative_age_s")]
    pub negative_age_s: u64,
    /// How long clients that cannot wait are kept waiting, seconds.
    #[serde(default = "wait_s")]
    pub wait_s: u64,
    /// Questions to the centre at once; fewer than `front.channels`, so that the library is never
    /// behind them.
    #[serde(default = "questions_at_once")]
    pub questions_at_once: usize,
}

const fn max_age_s() -> u64 {
    300
}

const fn negative_age_s() -> u64 {
    10
}

const fn wait_s() -> u64 {
    8
}

const fn questions_at_once() -> usize {
    6
}

/// Whether an operator must agree to what is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// A right pass phrase is enough.
    #[default]
    None,
    /// Register and reissue orders wait until an operator decides them.
    Operator,
}

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Who certifies; without it the centre's PKI where there is a centre (`hybrid`), else we do.
    pub manner: Option<Manner>,
    /// The key-management centre, in the manners other than `full`.
    pub centre: Option<AtCentre>,
    /// Common name of the CA, when it is made.
    pub ca_name: String,
    /// The token that the CA's key is in; without it, the key is sealed in the store.
    pub token: Option<TokenSettings>,
    /// Whether operators may hand out pass phrases for registrations.
    pub pass_phrases: bool,
    /// How long a pass phrase stands, seconds.
    pub phrase_life_s: u64,
    /// After so many wrong tries a pass phrase is over.
    pub phrase_tries: u32,
    /// Whether a pass phrase that names no application allows any.
    pub any_use_with: bool,
    /// Whether an operator must agree to registrations.
    pub approval: Approval,
    /// How long orders that waited are remembered, seconds.
    pub order_life_s: u64,
    /// Whether keys are made here for those who ask without one.
    pub generate_keys: bool,
    /// Whether the private halves of keys that were made here are kept, to be recovered.
    pub escrow: bool,
    /// Where private halves that were made here for owners are kept.
    pub keep: Keep,
    /// How many operators must approve a recovery.
    pub recovery_operators: u32,
    /// Longest life of a certificate, seconds.
    pub key_life_s: u64,
    /// How long a CRL stands, seconds; a new one is published at half of it.
    pub crl_life_s: u64,
    /// How long an OCSP answer stands, seconds.
    pub ocsp_life_s: u64,
    /// Where the CRL is, for certificates to say.
    pub crl_url: Option<String>,
    /// Where the OCSP responder is, for certificates to say.
    pub ocsp_url: Option<String>,
    /// CAs (PEM) whose certificates are judged too, besides our own.
    pub anchors: Vec<PathBuf>,
    /// Certificates (PEM) that paths to those may lead over.
    pub intermediates: Vec<PathBuf>,
    /// Their CRLs (DER); read again when they change.
    pub crls: Vec<PathBuf>,
    /// Refusals that are audited in a minute, of each kind; what is over is counted only.
    pub refusals_per_minute: u32,
    /// How often a checkpoint of an audit log that has grown is signed, seconds.
    pub checkpoint_s: u64,
    /// 32 octets from which the store is sealed; `root.key` in the state directory by default.
    pub root_key: Option<SecretSource>,
    /// The key that opens escrowed keys; `escrow.key` in the state directory by default.
    pub escrow_key: Option<SecretSource>,
}

impl Default for Settings {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            manner: None,
            centre: None,
            ca_name: "Vouchsafe trust service".to_owned(),
            token: None,
            pass_phrases: false,
            phrase_life_s: 3600,
            phrase_tries: 5,
            any_use_with: false,
            approval: Approval::None,
            order_life_s: 7 * DAY,
            generate_keys: false,
            escrow: false,
            keep: Keep::Store,
            recovery_operators: 2,
            key_life_s: 365 * DAY,
            crl_life_s: DAY,
            ocsp_life_s: 600,
            crl_url: None,
            ocsp_url: None,
            anchors: Vec::new(),
            intermediates: Vec::new(),
            crls: Vec::new(),
            refusals_per_minute: 600,
            checkpoint_s: 60,
            root_key: None,
            escrow_key: None,
        }
    }
}

impl Settings {
    /// The same with relative paths taken from `base`, the configuration's directory.
    #[must_use]
    pub fn resolved(mut self, base: &Path) -> Self {
        let under = |path: &mut PathBuf| *path = base.join(&*path);
        self.anchors.iter_mut().for_each(under);
        self.intermediates.iter_mut().for_each(under);
        self.crls.iter_mut().for_each(under);
        for source in [&mut self.root_key, &mut self.escrow_key].into_iter().flatten() {
            if let SecretSource::Path(path) = source {
                under(path);
            }
        }
        if let Some(token) = &mut self.token {
            token.resolve(base);
        }
        self
    }

    /// Who certifies.
    #[must_use]
    pub fn manner(&self) -> Manner {
        let usual = if self.centre.is_some() { Manner::Hybrid } else { Manner::Full };
        self.manner.unwrap_or(usual)
    }

    /// What is wrong with the values, if anything: the key and the problem.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, &'static str)> {
        const YEAR: u64 = 365 * 86_400;
        let within = |value: u64, least: u64, most: u64| (least..=most).contains(&value);
        let centre = self.centre.as_ref();
        if centre.is_some_and(|at| at.max_age_s < 3 || at.questions_at_once == 0) {
            Some(("keeper.centre", "must have max_age_s >= 3 and questions_at_once >= 1"))
        } else if self.ca_name.is_empty() || self.ca_name.len() > 64 {
            Some(("keeper.ca_name", "must have 1 to 64 characters"))
        } else if !within(self.phrase_life_s, 1, 30 * 86_400) {
            Some(("keeper.phrase_life_s", "must be between 1 and 2592000"))
        } else if !(1..=100).contains(&self.phrase_tries) {
            Some(("keeper.phrase_tries", "must be between 1 and 100"))
        } else if !within(self.order_life_s, 60, YEAR) {
            Some(("keeper.order_life_s", "must be between 60 and 31536000"))
        } else if (self.manner() == Manner::Full) != self.centre.is_none() {
            Some(("keeper.centre", "belongs to the manners `hybrid` and `proxy`, and they need it"))
        } else if self.manner() != Manner::Full && self.generate_keys {
            Some(("keeper.generate_keys", "needs `manner = \"full\"`: no keys are made elsewhere"))
        } else if self.manner() != Manner::Full && self.token.is_some() {
            Some(("keeper.token", "needs `manner = \"full\"`: no CA's key is here otherwise"))
        } else if let Some(problem) = self.token.as_ref().and_then(TokenSettings::problem) {
            Some(("keeper.token", problem))
        } else if self.escrow && !self.generate_keys {
            Some(("keeper.escrow", "needs `generate_keys`: no other private key is ever here"))
        } else if self.escrow && self.recovery_operators < 2 {
            Some(("keeper.recovery_operators", "must be at least 2"))
        } else if !within(self.key_life_s, 60, 10 * YEAR) {
            Some(("keeper.key_life_s", "must be between 60 and 315360000"))
        } else if !within(self.crl_life_s, 2, 30 * 86_400) {
            Some(("keeper.crl_life_s", "must be between 2 and 2592000"))
        } else if !within(self.ocsp_life_s, 1, 7 * 86_400) {
            Some(("keeper.ocsp_life_s", "must be between 1 and 604800"))
        } else if self.checkpoint_s == 0 || self.refusals_per_minute == 0 {
            Some(("keeper", "must not have zero as a bound"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_allow_nothing_that_must_be_chosen() {
        let settings = Settings::default();
        assert_eq!(settings.problem(), None);
        assert!(!settings.escrow && !settings.generate_keys && !settings.pass_phrases);
        assert!(!settings.any_use_with);
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_named() {
        let escrow = Settings { escrow: true, ..Settings::default() };
        assert_eq!(escrow.problem().unwrap().0, "keeper.escrow");
        let alone = Settings {
            escrow: true,
            generate_keys: true,
            recovery_operators: 1,
            ..Settings::default()
        };
        assert_eq!(alone.problem().unwrap().0, "keeper.recovery_operators");
    }
}
