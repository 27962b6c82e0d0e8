//! The one file that says where a VM stands, written durably before the next step begins.
//!
//! **Invariant:** no key is in it. Together with the processes that are alive it is enough to go on
//! after the agent was killed at any point.

use model::{
    Epoch, Kmi, OperationId,
    api::{
        Bytes,
        operate::{Action, Outcome},
        policy::OnBadGuest,
        vm::{VmSpec, VtpmPublics},
    },
};
use serde::{Deserialize, Serialize};
use serve::{
    fsfile::{self, FileError},
    process::ProcessId,
};
use thiserror::Error;

use super::phase::Phase;
use crate::plan::{Role, VmPaths, Volume};

/// Version of the file.
const FORMAT: u32 = 1;

/// Longest record that is read back.
const LIMIT: usize = 8 << 20;

/// The record cannot be read or written.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content.
    #[error("the VM's record is malformed")]
    Malformed(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("the VM's record has format {0}, this agent reads {FORMAT}")]
    Format(u32),
}

/// Where a VM stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    format: u32,
    /// What was asked for.
    pub(crate) spec: VmSpec,
    /// The epoch of the keys in use.
    pub(crate) epoch: Epoch,
    /// Finds the keys.
    pub(crate) kmi: Kmi,
    /// What a bad verdict does to the running guest.
    pub(crate) on_bad_guest: OnBadGuest,
    /// Files of this earlier epoch are still in the way.
    pub(crate) stale: Option<Epoch>,
    /// What exists on this host.
    pub(crate) made: Made,
    /// What runs.
    pub(crate) running: Processes,
    /// What is going on.
    pub(crate) phase: Phase,
    /// The operation under way, or the last one.
    pub(crate) job: Option<Job>,
    /// The operation whose grants stand for this launch; repairs ask in its name.
    pub(crate) launched_by: Option<OperationId>,
}

/// What exists of a VM on this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Made {
    /// The master key's KMI was made here and is in the record; not yet deposited.
    #[serde(default)]
    pub(crate) named: bool,
    /// What was generated here (master key, KMI) is deposited.
    pub(crate) deposited: bool,
    /// The boot volume is complete.
    pub(crate) boot: bool,
    /// The vTPM.
    pub(crate) vtpm: VtpmStage,
    /// The data volume is complete.
    pub(crate) data: bool,
}

/// How far a vTPM's manufacture has come. It is recorded before the authority certifies it, so
/// that a second try presents the same keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VtpmStage {
    /// Not begun, or not finished.
    #[default]
    None,
    /// Its keys exist.
    Manufactured(VtpmPublics),
    /// Its certificates are installed.
    Certified {
        /// Virtual AK certificate, DER.
        ak: Bytes,
        /// EK certificate, DER.
        ek: Bytes,
    },
}

/// A VM's processes, as far as they are alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Processes {
    vtpm: Option<ProcessId>,
    disk_boot: Option<ProcessId>,
    disk_data: Option<ProcessId>,
    qemu: Option<ProcessId>,
}

impl Processes {
    /// The process of this role.
    pub(crate) const fn get(&self, role: Role) -> Option<ProcessId> {
        match role {
            Role::Vtpm => self.vtpm,
            Role::Disk(Volume::Boot) => self.disk_boot,
            Role::Disk(Volume::Data) => self.disk_data,
            Role::Qemu => self.qemu,
        }
    }

    /// Sets or clears the process of this role.
    pub(crate) const fn set(&mut self, role: Role, process: Option<ProcessId>) {
        match role {
            Role::Vtpm => self.vtpm = process,
            Role::Disk(Volume::Boot) => self.disk_boot = process,
            Role::Disk(Volume::Data) => self.disk_data = process,
            Role::Qemu => self.qemu = process,
        }
    }

    /// Whether nothing runs.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An operation on this VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// Its id.
    pub(crate) id: OperationId,
    /// What.
    pub(crate) action: Action,
    /// Asked for at this host, while the authority may be away.
    pub(crate) local: bool,
    /// The host must generate and deposit the master key first.
    pub(crate) deposit: bool,
    /// How far the volumes' new data keys are, if it makes them.
    #[serde(default)]
    pub(crate) keys: NewKeys,
    /// Finished phases, milliseconds each.
    pub(crate) timings: Vec<(String, u64)>,
    /// The end, once it has come.
    pub(crate) outcome: Option<Outcome>,
    /// The authority has taken the outcome.
    pub(crate) delivered: bool,
}

/// How far the data keys of a VM's volumes are with being exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKeys {
    boot: NewKey,
    data: NewKey,
}

/// How far one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NewKey {
    /// Which one comes next is not known.
    #[default]
    Open,
    /// It is of this epoch of the volume. Written down before it is asked for, so that whatever
    /// dies it is made once.
    Next(u32),
    /// All data are under it.
    Done,
}

impl NewKeys {
    /// That of a volume.
    pub(crate) const fn get(&self, volume: Volume) -> NewKey {
        match volume {
            Volume::Boot => self.boot,
            Volume::Data => self.data,
        }
    }

    /// Sets it.
    pub(crate) const fn set(&mut self, volume: Volume, key: NewKey) {
        match volume {
            Volume::Boot => self.boot = key,
            Volume::Data => self.data = key,
        }
    }
}

impl Record {
    /// The VM's volumes, those that are not made yet too.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = Volume> + use<> {
        let data = (self.spec.data_mib > 0).then_some(Volume::Data);
        std::iter::once(Volume::Boot).chain(data)
    }

    /// What a bad verdict does to the running guest: what the VM says, else the policy.
    pub(crate) fn on_bad(&self) -> OnBadGuest {
        self.spec.on_bad_guest.unwrap_or(self.on_bad_guest)
    }
}

impl Job {
    /// Whether it still goes on.
    pub(crate) const fn is_open(&self) -> bool {
        self.outcome.is_none()
    }

    /// Whether the authority may grant keys in its name while it goes on.
    pub(crate) fn earns_keys(&self) -> bool {
        self.is_open() && !self.local && self.action != Action::Rekey
    }

    /// Adds to the time of a phase.
    pub(crate) fn spent(&mut self, phase: &str, ms: u64) {
        match self.timings.iter_mut().find(|(name, _)| name == phase) {
            Some((_, total)) => *total = total.saturating_add(ms),
            None => self.timings.push((phase.to_owned(), ms)),
        }
    }
}

impl Record {
    /// A VM of which nothing exists here.
    pub(crate) fn new(spec: VmSpec, epoch: Epoch, kmi: Kmi) -> Self {
        Self {
            format: FORMAT,
            spec,
            epoch,
            kmi,
            on_bad_guest: OnBadGuest::Pause,
            stale: None,
            made: Made::default(),
            running: Processes::default(),
            phase: Phase::default(),
            job: None,
            launched_by: None,
        }
    }

    /// Reads the record back.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn load(paths: &VmPaths) -> Result<Self, RecordError> {
        let bytes = fsfile::read_limited(&paths.record(), LIMIT)?;
        let record: Self = serde_json::from_slice(&bytes)?;
        if record.format != FORMAT {
            return Err(RecordError::Format(record.format));
        }
        Ok(record)
    }

    /// Writes the record; it survives a power cut once this returns.
    ///
    /// # Errors
    /// [`RecordError`]; the old record is then still there.
    pub(crate) fn save(&self, paths: &VmPaths) -> Result<(), RecordError> {
        Ok(fsfile::write_atomic(&paths.record(), &serde_json::to_vec(self)?, 0o600)?)
    }
}
