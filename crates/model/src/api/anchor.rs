//! The counts of a VM's vault volumes between the host that keeps them and the authority that
//! records them; the rules are [`crate::anchor::record`]'s.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::grant::GrantPurpose;
use crate::{
    Digest, Epoch, HostId,
    anchor::record::{Report, Start},
};

/// `POST /v1/vms/{vm}/anchor` (host): what a vault volume counts now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnchorReport {
    /// The epoch the host acts in.
    pub epoch: Epoch,
    /// The volume that these keys open.
    pub volume: GrantPurpose,
    /// Its count.
    pub count: u64,
    /// SHA-256 of the header with that count.
    pub head: Digest,
    /// It was detached: nothing is written to it until it is opened again.
    pub rest: bool,
}

impl AnchorReport {
    /// As the rules take it.
    #[must_use]
    pub const fn report(&self) -> Report {
        Report { count: self.count, head: self.head, rest: self.rest }
    }
}

/// The authority's record of a volume's count, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// The volume that these keys open.
    pub volume: GrantPurpose,
    /// The highest count that was reported.
    pub count: u64,
    /// SHA-256 of the header with that count.
    pub head: Digest,
    /// The host that reported it.
    pub host: HostId,
    /// When, Unix milliseconds.
    pub at: u64,
    /// The host that may have it in use, and has not reported the end of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<HostId>,
}

/// The record's count in a grant: the volume is refused if the host's own table counts less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnchorStart {
    /// The highest count that was reported.
    pub count: u64,
    /// It is the last word of another host, or of a TPM that was replaced: the volume is opened
    /// at it, and no count of this host's own is needed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_over: bool,
}

impl From<AnchorStart> for Start {
    fn from(start: AnchorStart) -> Self {
        Self { count: start.count, handed_over: start.handed_over }
    }
}

impl From<Start> for AnchorStart {
    fn from(start: Start) -> Self {
        Self { count: start.count, handed_over: start.handed_over }
    }
}
