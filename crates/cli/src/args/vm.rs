//! `vouchsafe vm ...`: what can be typed about virtual machines.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use model::{HostId, PcrBanks, VmId};

use super::parse::{machine_memory, mebibytes, reason};

/// Who generates the VM master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Origin {
    /// The authority.
    Console,
    /// The host agent.
    Tcb,
    /// The host's TPM.
    Tpm,
}

/// What guards the VM's keys on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GuardBy {
    /// The host's TPM: starts go on until the lease ends when the authority is away.
    Tpm,
    /// The agent's memory: every start needs the authority.
    Tcb,
}

/// Who makes the key-management information of a VM's master key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KmiBy {
    /// The authority.
    Console,
    /// The host agent.
    Tcb,
    /// The host's TPM.
    Tpm,
    /// It is derived from the VM's name.
    VmId,
}

/// What happens to a VM whose guest's verdict is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BadGuest {
    /// It is paused.
    Pause,
    /// It goes on; the verdict is reported.
    Report,
    /// It is ended at once.
    Stop,
}

/// The volumes' format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Authenticated blocks: what was altered or put back is noticed.
    Vault,
    /// LUKS2, AES-256-XTS, 4 KiB sectors: confidential only.
    Luks2,
}

/// How a VM's volumes reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// NBD over a unix socket.
    Nbd,
    /// vhost-user-blk, by the guest's memory: faster; the disk process sees all of that memory.
    VhostUser,
}

/// What is said of a new VM.
#[derive(Debug, Args)]
pub struct Create {
    /// Its name.
    pub name: VmId,
    /// Raw disk image with a unified kernel image in its ESP.
    #[arg(long, value_name = "FILE")]
    pub image: PathBuf,
    /// Reference values of another image (from `image measure --json`); default: the image's own.
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
    /// OVMF code file that the hosts boot with [default: the distribution's].
    #[arg(long, value_name = "FILE")]
    pub firmware: Option<PathBuf>,
    /// Memory, e.g. 512M or 2G.
    #[arg(long, default_value = "512M", value_parser = machine_memory)]
    pub memory: u32,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    pub cpus: u32,
    /// Size of the data volume, which opens only after a good guest verdict; 0: none.
    #[arg(long, default_value = "16M", value_parser = mebibytes)]
    pub data: u32,
    /// What guards its keys on the host.
    #[arg(long, value_enum, default_value_t = GuardBy::Tpm)]
    pub guard: GuardBy,
    /// Who generates its master key.
    #[arg(long, value_enum, default_value_t = Origin::Console)]
    pub origin: Origin,
    /// Who makes the name by which its master key is found.
    #[arg(long, value_enum, default_value_t = KmiBy::Console)]
    pub kmi_origin: KmiBy,
    /// Give its virtual TPM an RSA-2048 endorsement key as well.
    #[arg(long)]
    pub vtpm_rsa_ek: bool,
    /// PCR banks of its virtual TPM; firmware measures everything once for each.
    #[arg(long, value_name = "ALG,..", default_value_t = PcrBanks::default())]
    pub pcr_banks: PcrBanks,
    /// What happens to it if its guest's verdict is bad [default: the policy's line].
    #[arg(long, value_enum)]
    pub on_bad_guest: Option<BadGuest>,
    /// Format of its volumes.
    #[arg(long, value_enum, default_value_t = Format::Vault)]
    pub format: Format,
    /// How its volumes reach it.
    #[arg(long, value_enum, default_value_t = Transport::Nbd)]
    pub transport: Transport,
    /// Let it run on when its host's lease ends (a takeover then needs fencing).
    #[arg(long)]
    pub continue_after_lease: bool,
}

/// Verbs of VMs.
#[derive(Debug, Subcommand)]
pub enum Vm {
    /// Define a VM.
    Create(Create),
    /// All VMs.
    List {
        /// Also those that are deleted or revoked.
        #[arg(long)]
        all: bool,
    },
    /// One VM.
    Show {
        /// Its name.
        name: VmId,
    },
    /// Start it; its first start makes that host its home.
    Start {
        /// Its name.
        name: VmId,
        /// Where.
        #[arg(long)]
        host: HostId,
        /// Ask the host itself, with the keys it still holds under its lease (lab only).
        #[arg(long)]
        offline: bool,
    },
    /// Power it off and close its volumes and vTPM.
    Stop {
        /// Its name.
        name: VmId,
    },
    /// Take fresh evidence of the running guest and appraise it.
    Attest {
        /// Its name.
        name: VmId,
        /// Write the evidence with what verifies it into this directory.
        #[arg(long, value_name = "DIR")]
        export: Option<PathBuf>,
    },
    /// Seal its volumes anew under fresh data keys while it runs (format vault). Goes on in the
    /// background, also over restarts; `vm show` says how far it is.
    Rekey {
        /// Its name.
        name: VmId,
        /// Wait until all data are under the new keys.
        #[arg(long)]
        wait: bool,
    },
    /// What the guest printed on its serial console (lab only: asks the host).
    Console {
        /// Its name.
        name: VmId,
    },
    /// Take its home away: the epoch moves, old grants die, and its next start makes it anew from its
    /// image, WITHOUT what its guest wrote. Refused while the VM may still run on its home.
    Fence {
        /// Its name.
        name: VmId,
        /// Why, for the audit log.
        #[arg(long)]
        reason: String,
        /// Vouch that its home host is switched off.
        #[arg(long)]
        powered_off: bool,
    },
    /// Have older volumes of the stopped VM taken for the newest at its next start, as after
    /// putting back a backup. One operator proposes it; another one repeats the command within an
    /// hour and so approves it.
    Reanchor {
        /// Its name.
        name: VmId,
        /// Why, for the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Destroy its keys at once, whatever it does now, and have its home host destroy its copies: for
    /// a VM whose keys must never be given out again.
    Revoke {
        /// Its name.
        name: VmId,
        /// Why, for the audit log.
        #[arg(long, value_parser = reason)]
        reason: String,
    },
    /// Destroy the keys and the host's copies of a VM that does not run.
    Delete {
        /// Its name.
        name: VmId,
    },
}
