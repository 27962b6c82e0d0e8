//! The phases of a VM on its host.

use model::api::policy::OnBadGuest;
use serde::{Deserialize, Serialize};

use super::step::Reason;

/// What is going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// Nothing runs.
    Stopped(Stopped),
    /// On the way to a running QEMU.
    Launching(Launching),
    /// QEMU runs.
    Live(Live),
    /// On the way to nothing running.
    Stopping(Stopping),
    /// The host's copies are destroyed; the record goes once the outcome is delivered.
    Gone,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Stopped(Stopped::default())
    }
}

/// Nothing runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stopped {
    /// Why, in words.
    pub(crate) detail: String,
}

/// Processes are being started, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Launching {
    /// How often this guest has reset itself since it was started.
    pub(crate) resets: u32,
    /// How many of its processes have died on the way.
    pub(crate) mishaps: u32,
}

/// QEMU runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Live {
    /// How often this guest has reset itself since it was started.
    pub(crate) resets: u32,
    /// How often evidence could not be taken or judged since it was last.
    pub(crate) mishaps: u32,
    /// Its boot is over: its logs are there, or it was given up waiting for them.
    pub(crate) booted: bool,
    /// Evidence is to be taken.
    pub(crate) appraise: bool,
    /// The last verdict on this launch.
    pub(crate) verdict: Option<Verdict>,
    /// The data volume is plugged in.
    pub(crate) plugged: bool,
    /// Why the data volume could not be opened, although the verdict is good.
    pub(crate) data_failed: Option<Reason>,
    /// The CPUs stand still at our wish.
    pub(crate) paused: bool,
    /// The CPUs stand still because a volume failed.
    pub(crate) io_stopped: bool,
}

/// A verdict on the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verdict {
    /// Whether it is good.
    pub(crate) trusted: bool,
    /// If not, the refusal and what it was about.
    pub(crate) reason: Option<Reason>,
    /// What the policy says of a bad one, if the authority told it with the verdict.
    #[serde(default)]
    pub(crate) act: Option<OnBadGuest>,
    /// Length of the observed list that was appraised.
    #[serde(default)]
    pub(crate) entries: u64,
}

/// Processes are being ended, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stopping {
    /// The guest is to be asked to power off first.
    pub(crate) ask: bool,
    /// What comes after.
    pub(crate) then: Then,
    /// Why, in words.
    pub(crate) detail: String,
}

/// What comes after the last process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Then {
    /// Nothing.
    Stopped,
    /// Another launch: the guest has reset itself.
    Relaunch {
        /// How often it has, this time included.
        resets: u32,
    },
    /// The host's copies are destroyed.
    Destroy,
}
