//! Key-management information: what finds a VM's key, and where that key came from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Digest, VmId};

/// Counts the changes of a VM's home; keys of one epoch are useless in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Counts the explicit restores of the authority's store; part of every grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// Who generated a VM's master key (patent claims 6 to 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyOrigin {
    /// The service console: the authority's generator.
    #[default]
    Console,
    /// The secondary TCB: the host agent's generator.
    Tcb,
    /// The host's TPM (`TPM2_GetRandom`).
    Tpm,
}

/// Who makes the key-management information of a VM's master key (patent claims 8 to 10): the
/// `key_id` by which the key is found, independent of who generated the key itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KmiOrigin {
    /// The service console: the authority's generator.
    #[default]
    Console,
    /// The secondary TCB: the host agent's generator; deposited before the first grant.
    Tcb,
    /// The host's TPM (`TPM2_GetRandom`); deposited before the first grant.
    Tpm,
    /// Derived from the VM's identifier, which is stored with the blocks: `key_id` is the SHA-256
    /// of `vouchsafe:kmi:v1:<vm>`. Nothing but the blocks is needed to name the key again.
    VmId,
}

impl KmiOrigin {
    /// Whether the home host makes it and deposits it.
    #[must_use]
    pub const fn is_host(self) -> bool {
        matches!(self, Self::Tcb | Self::Tpm)
    }
}

/// What guards the keys that a host holds for a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// Sealed by the host TPM under its policy; the VM can start until the lease ends while the
    /// authority is away.
    #[default]
    Tpm,
    /// In the agent's memory only; every start needs the authority.
    Tcb,
}

/// Key-management information: identifies exactly one key of one VM, and is stored with the blocks
/// it encrypts (patent claims 2, 10 and 17).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Kmi {
    /// The VM.
    pub vm: VmId,
    /// Which key: made by the VM's [`KmiOrigin`], never computed from the key itself.
    pub key_id: Digest,
    /// Counts re-keyings, from 1.
    pub version: u32,
    /// The epoch in which the key was handed out.
    pub epoch: Epoch,
}
