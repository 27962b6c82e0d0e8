//! The table `[anchor]` of a service's configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tpm::Address;

use crate::task::Pace;

/// Who keeps the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnchorBy {
    /// This server's agent, in the table that the host's TPM anchors.
    Agent,
    /// An NV index of a TPM.
    Tpm,
    /// Nobody: an older copy of the state is not noticed.
    None,
}

/// The table `[anchor]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnchorSettings {
    /// Who keeps the counter; left out, the agent, where one is configured.
    pub by: Option<AnchorBy>,
    /// The TPM: `device:`, `unix:` or `tcp:`.
    pub tpm: Option<String>,
    /// The NV index of the counter, of this service alone.
    pub nv_index: Option<u32>,
    /// What changed is anchored at least so often, seconds.
    pub every_s: u64,
    /// Between two revocations that are anchored before they are answered lies at least so much,
    /// seconds; those in between are anchored together at its end.
    pub rest_s: u64,
    /// Where a copy of each head is left, best on another machine's disk.
    pub witness: Option<PathBuf>,
}

impl Default for AnchorSettings {
    fn default() -> Self {
        Self { by: None, tpm: None, nv_index: None, every_s: 300, rest_s: 30, witness: None }
    }
}

/// Where a store is anchored.
#[derive(Clone, Debug)]
pub enum Bound {
    /// At the agent that listens on this socket.
    Agent(PathBuf),
    /// In this NV index of this TPM.
    Tpm(Address, u32),
    /// Nowhere, and that was said.
    None,
}

/// A setting, and what is wrong with it.
type Problem = (&'static str, &'static str);

impl AnchorSettings {
    /// Relative paths are taken from `base`.
    #[must_use]
    pub fn resolved(mut self, base: &Path) -> Self {
        self.witness = self.witness.map(|path| base.join(path));
        self
    }

    /// Where that is; `index` is the service's NV index unless another is set.
    ///
    /// # Errors
    /// The setting that is wrong or missing, and why.
    pub fn bound(&self, agent: Option<&Path>, index: u32) -> Result<Bound, Problem> {
        if self.every_s == 0 {
            return Err(("anchor.every_s", "must be at least 1"));
        }
        let by = self.by.or(agent.map(|_| AnchorBy::Agent));
        match (by, agent, &self.tpm) {
            (Some(AnchorBy::Agent), Some(agent), None) => Ok(Bound::Agent(agent.to_owned())),
            (Some(AnchorBy::Agent), None, _) => {
                Err(("agent_socket", "is missing: `anchor` needs it"))
            }
            (Some(AnchorBy::Tpm), _, Some(tpm)) => {
                let wrong = ("anchor.tpm", "must begin with `device:`, `unix:` or `tcp:`");
                let address = tpm.parse().map_err(|_| wrong)?;
                Ok(Bound::Tpm(address, self.nv_index.unwrap_or(index)))
            }
            (Some(AnchorBy::Tpm), _, None) => Err(("anchor.tpm", "is missing")),
            (Some(AnchorBy::None), _, None) => Ok(Bound::None),
            (Some(AnchorBy::Agent | AnchorBy::None), _, Some(_)) => {
                Err(("anchor.tpm", "is only for `by = \"tpm\"`"))
            }
            (None, _, _) => Err((
                "anchor.by",
                "is missing: set `agent_socket`, or in `[anchor]` `by = \"tpm\"` and `tpm`, to have \
                 an older copy of the state refused; `by = \"none\"` says that it is not noticed",
            )),
        }
    }

    /// When heads are written.
    #[must_use]
    pub const fn pace(&self) -> Pace {
        Pace { every: Duration::from_secs(self.every_s), rest: Duration::from_secs(self.rest_s) }
    }
}

impl Bound {
    /// The TPM's device, which the sandbox must leave open.
    #[must_use]
    pub fn device(&self) -> Option<&Path> {
        match self {
            Self::Tpm(Address::Device(device), _) => Some(device),
            Self::Agent(_) | Self::Tpm(..) | Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_store_is_anchored_must_be_said() {
        let settings = |by, tpm: Option<&str>| AnchorSettings {
            by,
            tpm: tpm.map(str::to_owned),
            ..AnchorSettings::default()
        };
        let agent = Path::new("/a");
        assert!(matches!(settings(None, None).bound(Some(agent), 1), Ok(Bound::Agent(_))));
        for (by, tpm, agent, wrong) in [
            (None, None, None, "anchor.by"),
            (Some(AnchorBy::Agent), None, None, "agent_socket"),
            (Some(AnchorBy::Tpm), None, None, "anchor.tpm"),
            (Some(AnchorBy::Tpm), Some("x"), None, "anchor.tpm"),
            (Some(AnchorBy::None), Some("unix:/t"), None, "anchor.tpm"),
            (None, Some("unix:/t"), Some(agent), "anchor.tpm"),
        ] {
            assert_eq!(settings(by, tpm).bound(agent, 1).unwrap_err().0, wrong);
        }
        let said = settings(Some(AnchorBy::None), None).bound(None, 1);
        assert!(matches!(said, Ok(Bound::None)));
        let tpm = settings(Some(AnchorBy::Tpm), Some("unix:/t")).bound(None, 7);
        assert!(matches!(tpm, Ok(Bound::Tpm(_, 7))));
    }
}
