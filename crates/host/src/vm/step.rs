//! What the machine asks its driver to do, and what the driver tells the machine.

use model::{
    OperationId,
    api::{Bytes, grant::GrantPurpose, operate::Outcome, policy::OnBadGuest, vm::VtpmPublics},
};
use serde::{Deserialize, Serialize};
use serve::process::ProcessId;

use super::{
    phase::Verdict,
    record::{Job, Processes},
};
use crate::{
    plan::{Role, Volume},
    qmp::RunState,
};

/// One step. Each is idempotent: done again after a crash in its middle, it finishes what was
/// begun or finds it done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Put the files of an earlier epoch aside.
    SetAside,
    /// Make the master key's KMI.
    NameKey,
    /// Generate the master key, if it is made here, and deposit what was made here.
    Deposit,
    /// Get the keys of this purpose into memory.
    Keys(Volume),
    /// Make a volume.
    Create(Volume),
    /// Start this process, or find it running.
    Spawn(Role),
    /// Make the vTPM's identity, from nothing.
    Manufacture,
    /// Get the vTPM's certificates and install them.
    Certify,
    /// Connect to a QEMU that was started earlier.
    Attach,
    /// Wait until the guest has booted.
    AwaitBoot,
    /// Take the guest's evidence and get a verdict.
    Appraise,
    /// Plug the data volume in.
    Plug,
    /// Find out which data key of this volume comes next.
    NextKey(Volume),
    /// Have this volume sealed anew under that data key, while the guest goes on.
    Rekey(Volume),
    /// Stop the CPUs.
    Pause,
    /// Let the CPUs run.
    Continue,
    /// Ask the guest to power off and wait for it.
    PowerOff,
    /// End this process.
    End(Role),
    /// Destroy the host's copies.
    Destroy,
}

impl Step {
    /// The phase of an operation that the step belongs to.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::SetAside => "set-aside",
            Self::NameKey | Self::Deposit => "key",
            Self::Keys(Volume::Boot) => "grant",
            Self::Create(Volume::Boot) => "volume",
            Self::Spawn(Role::Vtpm) | Self::Manufacture | Self::Certify => "vtpm",
            Self::Spawn(Role::Disk(Volume::Boot)) => "disk",
            Self::Spawn(Role::Qemu) | Self::Attach => "qemu",
            Self::AwaitBoot => "boot",
            Self::Appraise => "appraise",
            Self::Keys(Volume::Data)
            | Self::Create(Volume::Data)
            | Self::Spawn(Role::Disk(Volume::Data))
            | Self::Plug => "data",
            Self::NextKey(_) | Self::Rekey(_) => "rekey",
            Self::Pause => "pause",
            Self::Continue => "continue",
            Self::PowerOff => "power-off",
            Self::End(_) => "tidy",
            Self::Destroy => "destroy",
        }
    }

    /// Whether events are looked at while the step is under way, which may then be dropped.
    pub(crate) const fn is_long(self) -> bool {
        matches!(self, Self::Create(_) | Self::AwaitBoot | Self::Rekey(_) | Self::PowerOff)
    }
}

impl From<Volume> for GrantPurpose {
    fn from(volume: Volume) -> Self {
        match volume {
            Volume::Boot => Self::Boot,
            Volume::Data => Self::Data,
        }
    }
}

/// Why a step was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Name of the refusal, if a rule said no.
    pub(crate) refused: Option<String>,
    /// What happened, in words.
    pub(crate) detail: String,
    /// What to do next.
    pub(crate) hint: String,
}

impl Reason {
    /// A rule said no.
    pub(crate) fn refused(
        name: impl Into<String>,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { refused: Some(name.into()), detail: detail.into(), hint: hint.into() }
    }

    /// It could not be done.
    pub(crate) fn failed(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { refused: None, detail: detail.into(), hint: hint.into() }
    }

    /// Whether it says that the VM is not this host's any more: its home was taken away.
    pub(crate) fn disowns(&self) -> bool {
        matches!(self.refused.as_deref(), Some("grant-epoch-moved" | "vm-homed-elsewhere"))
    }

    /// As the outcome of an operation.
    pub(crate) fn outcome(&self) -> Outcome {
        let (detail, hint) = (self.detail.clone(), self.hint.clone());
        match &self.refused {
            Some(name) => Outcome::Refused { name: name.clone(), detail, hint },
            None => Outcome::Failed { detail, hint },
        }
    }
}

/// What a finished step found out.
#[derive(Clone, Debug)]
pub(crate) enum Result {
    /// Nothing but that it is done.
    Done,
    /// The process runs.
    Runs(Role, ProcessId),
    /// The `key_id` of the master key's KMI.
    KeyId(model::Digest),
    /// The vTPM's public areas.
    Publics(VtpmPublics),
    /// The vTPM's certificates, DER.
    Certificates {
        /// Of the host-owned AK.
        ak: Bytes,
        /// Of the EK.
        ek: Bytes,
    },
    /// QEMU is attached and its CPUs stand so.
    Attached(RunState),
    /// The guest's verdict.
    Verdict(Verdict),
    /// The epoch of the volume's next data key.
    NextKey(Volume, u32),
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// An operation was ordered.
    Ordered(Box<Ordered>),
    /// The step under way is done.
    Done(Step, Result),
    /// It is not.
    Failed {
        /// Which step.
        step: Step,
        /// Why.
        reason: Reason,
        /// The authority cannot be reached now; trying again later may do.
        away: bool,
    },
    /// After a restart of the agent: what is alive.
    Found(Processes),
    /// A process has ended.
    Exited(Role, ProcessId),
    /// The CPUs stand so.
    Cpus(RunState),
    /// The guest has powered off or reset itself; QEMU ends.
    PoweredOff {
        /// It was a reset.
        reset: bool,
    },
    /// The lease has ended, or has been renewed.
    Lease {
        /// Whether it has ended.
        ended: bool,
    },
    /// A running guest is to be appraised again: it has measured more, or it is time.
    Reappraise,
    /// The VM is not this host's any more.
    Disowned(Reason),
    /// What had to wait may be tried again.
    Retry,
    /// The authority has taken the outcome of this operation.
    Delivered(OperationId),
}

/// An operation as the machine takes it.
#[derive(Clone, Debug)]
pub(crate) struct Ordered {
    /// The operation.
    pub(crate) job: Job,
    /// The VM as the authority knows it; absent for local requests.
    pub(crate) view: Option<View>,
}

/// What an order says of its VM.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// What was asked for.
    pub(crate) spec: model::api::vm::VmSpec,
    /// The present epoch.
    pub(crate) epoch: model::Epoch,
    /// Finds the keys.
    pub(crate) kmi: model::Kmi,
    /// What a bad verdict does to the running guest.
    pub(crate) on_bad_guest: OnBadGuest,
}
