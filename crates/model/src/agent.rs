//! What the host agent answers on its own unix socket (HTTP, JSON): how its VMs stand, a start
//! while the authority is away, a VM's console. Only processes of the agent's user may connect.
//!
//! | route | answer |
//! |---|---|
//! | `GET /v1/status` | [`AgentStatus`] |
//! | `GET /v1/vms/{vm}` | [`AgentVm`] |
//! | `POST /v1/vms/{vm}/start` | [`AgentVm`]; the start goes on, poll until `last` has an outcome |
//! | `POST /v1/vms/{vm}/stop` | [`AgentVm`]; likewise |
//! | `GET /v1/vms/{vm}/console` | [`Console`] |
//! | `GET /v1/vms/{vm}/measured` | [`Measured`](crate::guest::Measured): what the agent saw of the guest |
//! | `POST /v1/services/{service}/certify` | [`Certified`](crate::api::service::Certified): a passport for a service of this host |
//! | `GET /v1/standing/{host}` | [`HostStanding`](crate::api::service::HostStanding): whether another host's services are to be trusted now |
//! | `POST /v1/counters/{service}/{store}/begin` | [`CounterValue`]: the counter that a service's store is anchored in; made if it is not there |
//! | `GET /v1/counters/{service}/{store}` | [`CounterValue`] |
//! | `POST /v1/counters/{service}/{store}/advance` | [`CounterValue`]: counted on, if it was at [`CounterAdvance::from`] |
//! | `POST /v1/counters/{service}/{store}/refused` | `null`: [`RefusedStore`] goes to the authority's audit log |
//! | `POST /v1/keys`, `/v1/keys/…` | [`resident`]: keys that live in the host's TPM |
//! | `POST /v1/reattest` | [`AgentSession`]: a new session from a new quote |

pub mod resident;

use serde::{Deserialize, Serialize};

use crate::{
    Epoch, HostId, OperationId, VmId,
    api::{
        enrol::HostMode,
        operate::{Action, Outcome},
    },
};

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentStatus {
    /// Version of the agent.
    pub version: String,
    /// The host's name.
    pub host: HostId,
    /// Process id of the agent.
    pub pid: i32,
    /// `kvm` or `tcg`, once probed.
    pub accel: Option<String>,
    /// `software` if the host TPM is one, else `hardware`.
    pub assurance: String,
    /// Mode at the authority, as last heard; absent before enrolment.
    pub mode: Option<HostMode>,
    /// The present session with the authority.
    pub session: Option<AgentSession>,
    /// Why there is no session, in words.
    pub session_error: Option<String>,
    /// Name of the refusal that keeps the host from a session, if it is one.
    pub session_refused: Option<String>,
    /// Until when cached keys may be used without the authority, Unix milliseconds.
    pub lease_until: u64,
    /// Refusals and events that the authority has not yet taken.
    pub spooled: u64,
    /// VMs that have files on this host.
    pub vms: Vec<AgentVm>,
}

/// A session with the authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSession {
    /// The host's mode when it was issued.
    pub mode: HostMode,
    /// When it was issued, Unix milliseconds.
    pub issued_at: u64,
    /// End of the session certificate.
    pub expires_at: u64,
    /// Until when cached keys may be used without the authority.
    pub lease_until: u64,
}

/// Where a VM stands on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentPhase {
    /// Nothing runs.
    Stopped,
    /// On the way to a running QEMU.
    Launching,
    /// QEMU runs.
    Running,
    /// QEMU is there and its CPUs are stopped.
    Paused,
    /// On the way to nothing running.
    Stopping,
}

/// One VM on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentVm {
    /// The VM.
    pub vm: VmId,
    /// Where it stands.
    pub phase: AgentPhase,
    /// What is being done, or why it stands as it does, in words.
    pub detail: String,
    /// The epoch of its keys.
    pub epoch: Epoch,
    /// The last verdict on the guest of this launch.
    pub trusted: Option<bool>,
    /// Its processes.
    pub pids: AgentPids,
    /// The operation under way, or the last one.
    pub last: Option<AgentOperation>,
}

/// Process ids of a VM's processes, those that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentPids {
    /// `vouchsafe-vtpm`.
    pub vtpm: Option<i32>,
    /// `vouchsafe-disk` of the boot volume.
    pub disk_boot: Option<i32>,
    /// `vouchsafe-disk` of the data volume.
    pub disk_data: Option<i32>,
    /// QEMU.
    pub qemu: Option<i32>,
}

/// An operation as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentOperation {
    /// Its id; the agent makes one for a local request.
    pub id: OperationId,
    /// What.
    pub action: Action,
    /// Asked for on this socket, not by the authority.
    pub local: bool,
    /// Present phase.
    pub phase: String,
    /// Finished phases, milliseconds each.
    pub timings: Vec<(String, u64)>,
    /// The end, once it has come.
    pub outcome: Option<Outcome>,
}

/// `GET /v1/vms/{vm}/console`: what the serial console said and the agent still has, at most 1 MiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// A counter that a service's store is anchored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterValue {
    /// Its value; each begins at 0.
    pub count: u64,
}

/// Counts on, if nobody else did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterAdvance {
    /// The value before.
    pub from: u64,
}

/// A service's start that was refused for its store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedStore {
    /// The refusal's name.
    pub refused: String,
    /// Why, in words.
    pub detail: String,
}
