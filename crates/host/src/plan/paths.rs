//! Where a VM's files and sockets are.

use std::path::PathBuf;

use model::VmId;
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// One of a VM's volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Volume {
    /// The one it boots from.
    Boot,
    /// The one that follows the guest's verdict.
    Data,
}

impl Volume {
    /// Its word in file names.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Data => "data",
        }
    }
}

/// One of a VM's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// The vTPM's proxy, parent of its swtpm.
    Vtpm,
    /// A disk process.
    Disk(Volume),
    /// QEMU.
    Qemu,
}

impl Role {
    /// All of them, in the order in which they start.
    pub(crate) const ALL: [Self; 4] =
        [Self::Vtpm, Self::Disk(Volume::Boot), Self::Disk(Volume::Data), Self::Qemu];

    /// Its word in file names and logs.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Vtpm => "vtpm",
            Self::Disk(Volume::Boot) => "disk-boot",
            Self::Disk(Volume::Data) => "disk-data",
            Self::Qemu => "qemu",
        }
    }
}

/// A VM's files (`state`, durable) and sockets (`run`, of this boot).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VmPaths {
    /// `<state_dir>/vms/<vm>`.
    pub(crate) state: PathBuf,
    /// `<run_dir>/<vm>`.
    pub(crate) run: PathBuf,
}

impl VmPaths {
    /// The paths of `vm`.
    pub(crate) fn new(config: &Config, vm: &VmId) -> Self {
        Self {
            state: config.state_dir.join("vms").join(vm.as_str()),
            run: config.run_dir.join(vm.as_str()),
        }
    }

    /// The record of where the VM stands.
    pub(crate) fn record(&self) -> PathBuf {
        self.state.join("state.json")
    }

    /// A volume's image.
    pub(crate) fn image(&self, volume: Volume) -> PathBuf {
        self.state.join(format!("{}.img", volume.word()))
    }

    /// The vTPM's state.
    pub(crate) fn vtpm_dir(&self) -> PathBuf {
        self.state.join("vtpm")
    }

    /// The firmware's variables.
    pub(crate) fn variables(&self) -> PathBuf {
        self.state.join("OVMF_VARS.fd")
    }

    /// Keys of a volume, cached under the host's guard.
    pub(crate) fn cached(&self, volume: Volume) -> PathBuf {
        self.state.join(format!("cached-{}.bin", volume.word()))
    }

    /// What a process says.
    pub(crate) fn log(&self, role: Role) -> PathBuf {
        self.state.join(format!("{}.log", role.word()))
    }

    /// Held locked by the process of this role as long as it lives.
    pub(crate) fn lock(&self, role: Role) -> PathBuf {
        self.run.join(format!("{}.lock", role.word()))
    }

    /// QEMU's control socket.
    pub(crate) fn qmp(&self) -> PathBuf {
        self.run.join("qmp.sock")
    }

    /// The vTPM process's control socket.
    pub(crate) fn vtpm_control(&self) -> PathBuf {
        self.run.join("vtpm-control.sock")
    }

    /// Where QEMU finds its vTPM.
    pub(crate) fn vtpm_qemu(&self) -> PathBuf {
        self.run.join("vtpm-qemu.sock")
    }

    /// Where QEMU finds a volume.
    pub(crate) fn disk(&self, volume: Volume) -> PathBuf {
        self.run.join(format!("disk-{}.sock", volume.word()))
    }

    /// A disk process's control socket.
    pub(crate) fn disk_control(&self, volume: Volume) -> PathBuf {
        self.run.join(format!("disk-{}-control.sock", volume.word()))
    }

    /// Host end of the guest's evidence port.
    pub(crate) fn evidence(&self) -> PathBuf {
        self.run.join("evidence.sock")
    }

    /// Host end of the guest's control port.
    pub(crate) fn control(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Host end of the port on which the guest's client speaks to the trust service.
    pub(crate) fn xkms(&self) -> PathBuf {
        self.run.join("xkms.sock")
    }

    /// The socket in a process's arguments that is this VM's and this role's alone.
    pub(crate) fn signature(&self, role: Role) -> PathBuf {
        match role {
            Role::Vtpm => self.vtpm_control(),
            Role::Disk(volume) => self.disk_control(volume),
            Role::Qemu => self.qmp(),
        }
    }

    /// Sockets that a process of this role makes.
    pub(crate) fn made_by(&self, role: Role) -> Vec<PathBuf> {
        match role {
            Role::Vtpm => vec![self.vtpm_control(), self.vtpm_qemu()],
            Role::Disk(volume) => vec![self.disk(volume), self.disk_control(volume)],
            Role::Qemu => vec![self.qmp(), self.evidence(), self.control(), self.xkms()],
        }
    }

    /// All sockets.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        Role::ALL.into_iter().flat_map(|role| self.made_by(role)).collect()
    }
}
