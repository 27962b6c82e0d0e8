//! What operators set: how long things live, and what happens to a guest that turns out bad.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the host does with a VM whose guest verdict is bad. Its data volume stays closed in any
/// case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadGuest {
    /// The VM is paused.
    #[default]
    Pause,
    /// It goes on; the verdict is reported.
    Report,
    /// It is ended at once, without being asked.
    Stop,
}

/// The authority's policy. Every field has a default, so that a configuration file names only what
/// it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// How far a host's clock may be from the authority's, seconds.
    pub clock_skew_s: u64,
    /// How long a nonce waits for its evidence, seconds.
    pub nonce_life_s: u64,
    /// How long a host's good verdict and session certificate last, seconds.
    pub session_life_s: u64,
    /// How long a host may use keys that it caches without the authority, seconds.
    pub lease_s: u64,
    /// How long a grant waits for its host to open it, seconds.
    pub grant_life_s: u64,
    /// How long an enrolment token waits, seconds.
    pub token_life_s: u64,
    /// How old a good guest verdict may be when it opens a data volume, seconds.
    pub guest_verdict_life_s: u64,
    /// What happens to a VM whose guest verdict is bad.
    pub on_bad_guest: OnBadGuest,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            clock_skew_s: 30,
            nonce_life_s: 60,
            session_life_s: 600,
            lease_s: 1800,
            grant_life_s: 60,
            token_life_s: 3600,
            guest_verdict_life_s: 300,
            on_bad_guest: OnBadGuest::Pause,
        }
    }
}

/// `GET /v1/hosts/{host}/trace`, `GET /v1/vms/{vm}/trace` (operator): what decides, rule by rule,
/// whether this host or guest gets keys now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// `host:a`, `vm:v1`.
    pub subject: String,
    /// Whether it gets keys.
    pub allowed: bool,
    /// The first rule that says no; absent if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// When the last evidence was appraised, Unix milliseconds.
    pub appraised_at: Option<u64>,
    /// Generation of the policy that the rules were read from.
    pub generation: u64,
    /// The rules, in the order in which they are asked.
    pub rules: Vec<TracedRule>,
}

/// One rule and what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TracedRule {
    /// Its name; a refusal's name if it says no.
    pub rule: String,
    /// Whether it says yes.
    pub passed: bool,
    /// The line of the policy, the reference values or the record that it rests on.
    pub rests_on: String,
    /// Why, in words.
    pub reason: String,
}

/// `GET /v1/policy` (operator), and its change by `PUT /v1/policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyView {
    /// Counts the changes. A change must name the generation that it replaces.
    pub generation: u64,
    /// The policy.
    pub policy: Policy,
}
