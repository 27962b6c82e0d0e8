//! VMs: what was asked for, where one lives and in which epoch, and how it stands.
//!
//! ```text
//!            start on a host (homes it)          report                stop
//! defined ─────────────────────────► busy ─► running ◄─► paused ─► busy ─► stopped
//!    ▲                                 └─ outcome ─► stopped                  │
//!    └── fence (epoch + 1, home cleared) ─────────────────────────────────────┤
//! retired ◄── delete, revoke (the master key is destroyed) ◄───────────────────┘
//! ```
//! **Invariants:** a VM has at most one home and at most one open operation; the epoch never goes
//! back, also over the life of a name; within an epoch the vTPM that has booted is never replaced;
//! nothing but a fence takes a home away. Transitions are pure and in [`change`]; this file says
//! what a record is and why a transition is refused.

pub(crate) mod anchored;
pub(crate) mod change;
pub(crate) mod fence;
pub(crate) mod reanchor;
#[cfg(test)]
pub(crate) mod tests;

use std::{cmp::Ordering, collections::BTreeMap};

use http::StatusCode;
use model::{
    Digest, Epoch, HostId, Kmi, OperationId,
    api::{
        grant::GrantPurpose,
        operate::Action,
        vm::{ChainLink, Exposure, VmSpec, VmState, VmView, VtpmCertificates, VtpmPublics},
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::{anchored::Anchored, reanchor::Reanchoring};
use crate::refusal::{Refusal, Rejection};

/// A VM as it is stored. Its master key is elsewhere ([`crate::vmkey`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VmRecord {
    /// What was asked for.
    pub(crate) spec: VmSpec,
    /// Where it stands, apart from the open operation.
    pub(crate) state: VmState,
    /// Its home.
    pub(crate) home: Option<HostId>,
    /// Counts the changes of its home.
    pub(crate) epoch: Epoch,
    /// Which key: the digest of its origin record.
    pub(crate) key_id: Digest,
    /// Counts re-keyings.
    pub(crate) key_version: u32,
    /// How far its key is.
    pub(crate) key: KeyState,
    /// The operation under way.
    pub(crate) open: Option<OpenOperation>,
    /// The vTPM of this epoch.
    pub(crate) vtpm: Option<VtpmRecord>,
    /// The last appraisal of the guest in this epoch.
    pub(crate) guest: Option<GuestStanding>,
    /// What the home host last said.
    pub(crate) detail: String,
    /// An operator revoked it.
    pub(crate) revoked: bool,
    /// Its keys were on a host that turned bad.
    #[serde(default)]
    pub(crate) exposed: Option<Exposure>,
    /// A backup of its volumes is to be used.
    #[serde(default)]
    pub(crate) reanchor: Option<Reanchoring>,
    /// What its volumes count, as it was reported in this epoch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) anchors: BTreeMap<GrantPurpose, Anchored>,
}

/// How far a VM's master key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyState {
    /// The host is to generate and deposit it.
    Awaited,
    /// It is there; no grant was made.
    Held,
    /// A grant was made.
    Granted,
    /// It was destroyed.
    Destroyed,
}

/// The operation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenOperation {
    /// Its id.
    pub(crate) id: OperationId,
    /// What it does.
    pub(crate) action: Action,
    /// When it was accepted.
    pub(crate) accepted_at: u64,
}

/// A vTPM that was certified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VtpmRecord {
    /// Its keys.
    pub(crate) publics: VtpmPublics,
    /// Their certificates.
    pub(crate) certificates: VtpmCertificates,
    /// Whether a guest has booted with it: it is final then.
    pub(crate) booted: bool,
}

/// What came of a guest's appraisal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuestStanding {
    /// When.
    pub(crate) at: u64,
    /// In which epoch.
    pub(crate) epoch: Epoch,
    /// The signed attestation result.
    pub(crate) verdict: serde_json::Value,
    /// Digest of its payload.
    pub(crate) digest: Digest,
    /// What was said no to; absent if the verdict is good.
    pub(crate) refused: Option<Refusal>,
    /// From hardware to kernel.
    pub(crate) chain: Vec<ChainLink>,
    /// SHA-256 of the evidence file.
    pub(crate) evidence: Digest,
}

/// Why something is not done to a VM.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum VmRejection {
    /// Another operation is open.
    #[error("operation {0} is under way")]
    Busy(OperationId),
    /// The caller acts in an epoch that is not known here.
    #[error("the VM is in epoch {now} here, the request is for {asked}", now = now.0, asked = asked.0)]
    EpochAhead {
        /// The present epoch.
        now: Epoch,
        /// The caller's.
        asked: Epoch,
    },
    /// The caller acts in an epoch that has passed.
    #[error("the VM is in epoch {now}, the request is for {asked}", now = now.0, asked = asked.0)]
    EpochMoved {
        /// The present epoch.
        now: Epoch,
        /// The caller's.
        asked: Epoch,
    },
    /// The name is taken.
    #[error("a VM of this name exists")]
    Exists,
    /// Its home is another host.
    #[error("the VM is homed on {home} and {state}")]
    HomedElsewhere {
        /// Its home.
        home: HostId,
        /// What it does there.
        state: &'static str,
    },
    /// The home host has not deposited the master key yet.
    #[error("the VM's master key is not there yet")]
    KeyAwaited,
    /// A master key was deposited, or is not to be deposited.
    #[error("the VM's master key cannot be replaced by a deposit")]
    KeyDeposited,
    /// Its volumes have no data keys that could be exchanged.
    #[error("the VM's volumes are of a format whose data keys cannot be exchanged")]
    NotVault,
    /// It does not run.
    #[error("the VM does not run")]
    NotRunning,
    /// An operator revoked it.
    #[error("the VM was revoked; its keys are destroyed")]
    Revoked,
    /// It runs.
    #[error("the VM runs")]
    Running,
    /// There is none.
    #[error("there is no VM of this name here")]
    Unknown,
    /// Its vTPM has booted and is final.
    #[error("the VM's vTPM of this epoch has booted; another one is not certified")]
    VtpmCertified,
}

impl Rejection for VmRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::Busy(_) => "vm-busy",
            Self::EpochAhead { .. } => "vm-epoch-ahead",
            Self::EpochMoved { .. } => "grant-epoch-moved",
            Self::Exists => "vm-exists",
            Self::HomedElsewhere { .. } => "vm-homed-elsewhere",
            Self::KeyAwaited => "key-awaited",
            Self::KeyDeposited => "key-already-deposited",
            Self::NotVault => "not-vault",
            Self::NotRunning => "vm-not-running",
            Self::Revoked => "vm-revoked",
            Self::Running => "vm-running",
            Self::Unknown => "vm-unknown",
            Self::VtpmCertified => "vtpm-already-certified",
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Busy(_) => "wait for its outcome, or stop the VM",
            Self::EpochAhead { .. } => {
                "this authority was restored from before: `vouchsafe vm fence NAME` gives it a home anew"
            }
            Self::EpochMoved { .. } => "the host ends what it runs of the old epoch",
            Self::Exists => "use another name, or delete the VM first",
            Self::HomedElsewhere { .. } => {
                "start it on its home; if that host is off for good, `vouchsafe vm fence NAME \
                 --powered-off --reason WHY`"
            }
            Self::KeyAwaited => "the home host deposits the key before it asks for a grant",
            Self::KeyDeposited => "a VM's key is deposited once, before its first grant",
            Self::NotVault => "only VMs of `--format vault` can be re-keyed",
            Self::NotRunning => "`vouchsafe vm start NAME --host HOST`",
            Self::Revoked => "create a new VM",
            Self::Running => "`vouchsafe vm stop NAME` first",
            Self::Unknown => "`vouchsafe vm list`",
            Self::VtpmCertified => {
                "its vTPM state is lost or foreign; `vouchsafe vm delete NAME` ends the VM"
            }
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Busy(_)
            | Self::Exists
            | Self::HomedElsewhere { .. }
            | Self::KeyAwaited
            | Self::KeyDeposited
            | Self::NotRunning
            | Self::NotVault
            | Self::Running
            | Self::VtpmCertified => StatusCode::CONFLICT,
            Self::EpochAhead { .. } | Self::EpochMoved { .. } | Self::Revoked => {
                StatusCode::FORBIDDEN
            }
        }
    }
}

impl VmRecord {
    /// The VM's key-management information in the present epoch.
    pub(crate) fn kmi(&self) -> Kmi {
        Kmi {
            vm: self.spec.name.clone(),
            key_id: self.key_id,
            version: self.key_version,
            epoch: self.epoch,
        }
    }

    /// The VM as operators and its host see it.
    pub(crate) fn view(&self) -> VmView {
        let busy = self.open.is_some() && self.state != VmState::Retired;
        VmView {
            spec: self.spec.clone(),
            state: if busy { VmState::Busy } else { self.state },
            home: self.home.clone(),
            epoch: self.epoch,
            kmi: self.kmi(),
            trusted: self.guest.as_ref().map(|guest| guest.refused.is_none()),
            detail: self.detail.clone(),
            exposed: self.exposed.clone(),
            reanchor: self.reanchor.as_ref().map(|of| of.view.clone()),
            anchors: self.anchors_view(),
            operation: self.open.map(|open| open.id),
        }
    }

    /// Whether `host` is the VM's home and acts in its epoch.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn is_homed(&self, host: &HostId, epoch: Epoch) -> Result<(), VmRejection> {
        self.is_live()?;
        match epoch.cmp(&self.epoch) {
            Ordering::Less => Err(VmRejection::EpochMoved { now: self.epoch, asked: epoch }),
            Ordering::Greater => Err(VmRejection::EpochAhead { now: self.epoch, asked: epoch }),
            Ordering::Equal => self.is_home(host),
        }
    }

    /// Whether `host` is the VM's home.
    ///
    /// # Errors
    /// [`VmRejection`].
    pub(crate) fn is_home(&self, host: &HostId) -> Result<(), VmRejection> {
        self.is_live()?;
        match &self.home {
            Some(home) if home == host => Ok(()),
            Some(home) => {
                Err(VmRejection::HomedElsewhere { home: home.clone(), state: self.state_word() })
            }
            None => Err(VmRejection::Unknown),
        }
    }

    /// Whether the VM has not been retired.
    ///
    /// # Errors
    /// [`VmRejection::Revoked`], [`VmRejection::Unknown`].
    pub(crate) const fn is_live(&self) -> Result<(), VmRejection> {
        if self.revoked {
            Err(VmRejection::Revoked)
        } else if matches!(self.state, VmState::Retired) {
            Err(VmRejection::Unknown)
        } else {
            Ok(())
        }
    }

    const fn state_word(&self) -> &'static str {
        match self.state {
            VmState::Defined => "was never started",
            VmState::Busy => "is busy",
            VmState::Running => "runs there",
            VmState::Paused => "is paused there",
            VmState::Stopped => "is stopped there",
            VmState::Retired => "is retired",
        }
    }

    /// The publics that were certified, if they are exactly these.
    pub(crate) fn certified(&self, publics: &VtpmPublics) -> Option<&VtpmRecord> {
        self.vtpm.as_ref().filter(|vtpm| same_publics(&vtpm.publics, publics))
    }
}

fn same_publics(a: &VtpmPublics, b: &VtpmPublics) -> bool {
    a.epoch == b.epoch
        && a.ek_public == b.ek_public
        && a.ek_rsa_public == b.ek_rsa_public
        && a.ak_public == b.ak_public
}
