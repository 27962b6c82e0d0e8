//! Operations: an operator's wish, carried out by a host that polls for its orders, followed by
//! both until its outcome. An accepted operation is durable: it survives the death of either side.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Bytes, vm::VmView};
use crate::{HostId, OperationId, VmId};

/// What is to be done to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Provision if new, then boot.
    Start,
    /// Power off, then close volume and vTPM.
    Stop,
    /// Take evidence of the running guest now.
    Attest,
    /// Seal the volumes of the running VM anew under fresh data keys.
    Rekey,
    /// Destroy the host's copies (volume, vTPM state, cached keys).
    Delete,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "result")]
pub enum Outcome {
    /// Done.
    Done,
    /// A rule said no.
    Refused {
        /// The rejection's name.
        name: String,
        /// What happened, in words.
        detail: String,
        /// What to do next.
        hint: String,
    },
    /// It could not be done.
    Failed {
        /// Why.
        detail: String,
        /// What to do next.
        hint: String,
    },
}

/// One operation (`GET /v1/operations/{id}`; answers of start, stop, attest, rekey, delete).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The VM.
    pub vm: VmId,
    /// What.
    pub action: Action,
    /// On which host.
    pub host: HostId,
    /// When it was accepted.
    pub accepted_at: u64,
    /// What the host is doing (`volume`, `vtpm`, `boot`, `appraise`, ...), with percent if known.
    pub phase: String,
    /// Percent of the phase, if known.
    pub percent: Option<u8>,
    /// How long each finished phase took, milliseconds.
    pub timings: Vec<(String, u64)>,
    /// The end, once it has come.
    pub outcome: Option<Outcome>,
}

/// `POST /v1/operations/{id}` (host).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationUpdate {
    /// Present phase.
    pub phase: String,
    /// Percent of it.
    pub percent: Option<u8>,
    /// Finished phases, milliseconds each.
    pub timings: Vec<(String, u64)>,
    /// Set once, last.
    pub outcome: Option<Outcome>,
}

/// `GET /v1/orders?after=N&wait=SECONDS` (host): everything open for this host. Returns at once if
/// the list has changed since revision `after`, else waits.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// To pass as `after` next time.
    pub revision: u64,
    /// Open operations, oldest first.
    pub orders: Vec<Order>,
    /// HPKE public key that key deposits are sealed to.
    pub deposit_key: Bytes,
}

/// One order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The operation.
    pub operation: Operation,
    /// The VM as the authority knows it.
    pub vm: VmView,
    /// Whether the host must first generate and deposit what the VM's key origin and KMI origin
    /// leave to it.
    pub deposit: bool,
    /// What to do with the VM if its guest verdict is bad.
    #[serde(default)]
    pub on_bad_guest: super::policy::OnBadGuest,
}

/// `POST /v1/audit` (host): refusals and events that the host spooled while it acted alone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostEvents {
    /// Oldest first, at most 256.
    pub events: Vec<HostEvent>,
}

/// One spooled event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostEvent {
    /// Sequence number in the host's spool; a repeated one is accepted and ignored.
    pub seq: u64,
    /// When, by the host's clock.
    pub at: u64,
    /// The VM, if one is meant.
    pub vm: Option<VmId>,
    /// Kebab-case name of the event.
    pub event: String,
    /// Name of the rejection, if it was one.
    pub refused: Option<String>,
    /// In words.
    pub detail: String,
}

/// `GET /v1/status` (operator).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorityStatus {
    /// Version of the program.
    pub version: String,
    /// The store's incarnation.
    pub incarnation: u64,
    /// The store's revision.
    pub revision: u64,
    /// Entries in the audit log.
    pub audit_entries: u64,
    /// Value of the TPM counter that anchors the store.
    pub anchor: u64,
    /// `software` in the lab.
    pub assurance: String,
    /// Numbers of hosts and VMs.
    pub hosts: u64,
    /// VMs that are not retired.
    pub vms: u64,
    /// After an explicit restore: until when nothing is granted, because leases of the lost
    /// authority may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_until: Option<u64>,
}
