//! What can be typed: nouns, then verbs. Only the shapes; what they do is in [`crate::commands`]
//! and [`crate::lab`].

mod key;
mod parse;
mod reference;
mod vm;
mod volume;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::{HostId, VmId};
use serde::{Deserialize, Serialize};

pub use self::key::{Key, KeyVerb, UseArg};
use self::parse::machine_memory;
pub use self::reference::{AddComponent, FromLog, Pcrs, Reference};
pub use self::vm::{BadGuest, Create, Format, GuardBy, KmiBy, Origin, Transport, Vm};
pub use self::volume::{
    AnchorPlace, AnyFormat, Cipher, NewFormat, NewKey, OpenKey, OverTls, SnapshotNamed, SourceKey,
    Volume, VolumeCheck, VolumeConvert, VolumeCreate, VolumeRekey, VolumeServe, VolumeSnapshot,
};

/// Trusted virtual machines on QEMU/KVM.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Where to act, and how to print.
    #[command(flatten)]
    pub scope: Scope,
    /// What to act on.
    #[command(subcommand)]
    pub noun: Noun,
}

/// Where to act, and how to print.
#[derive(Debug, Args)]
pub struct Scope {
    /// Act on the one-machine lab in this directory.
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "config")]
    pub lab: Option<PathBuf>,
    /// Act on the authority that this file names [default: /etc/vouchsafe/client.toml], or on the
    /// service whose own configuration it is (`key`, `audit --service`).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON on stdout, one object, or one a line for lists.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What is acted on.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// An authority and hosts with software TPMs on this machine.
    #[command(subcommand)]
    Lab(Lab),
    /// Say what this machine lacks, and how to get it.
    Doctor,
    /// The authority itself.
    #[command(subcommand)]
    Authority(Authority),
    /// Hosts: the servers that run VMs.
    #[command(subcommand)]
    Host(Host),
    /// Virtual machines.
    #[command(subcommand)]
    Vm(Vm),
    /// What the authority demands.
    #[command(subcommand)]
    Policy(Policy),
    /// Reference values: what good hosts may measure; made and signed without an authority.
    #[command(subcommand)]
    Reference(Reference),
    /// The audit log.
    #[command(subcommand)]
    Audit(Audit),
    /// Disk images.
    #[command(subcommand)]
    Image(Image),
    /// Encrypted volumes; needs no authority.
    #[command(subcommand)]
    Volume(Volume),
    /// Keys that a trust service answers for.
    Key(Box<Key>),
}

/// Who certifies keys in a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Manner {
    /// Each trust service has a CA of its own.
    Full,
    /// A key-management centre; the trust services answer from their libraries.
    Hybrid,
}

/// Which accelerator QEMU uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// KVM if a guest really runs under it, else TCG.
    Auto,
    /// KVM.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Accel {
    /// As configurations write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Verbs of the lab.
#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Start it, or finish starting it; returns when it is ready.
    Up {
        /// Directory of the lab.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// How many hosts (a, b, c, ...); those that are there stay [default: 2, or as before].
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=26))]
        hosts: Option<u8>,
        /// Accelerator for the VMs [default: auto, or as before].
        #[arg(long, value_enum)]
        accel: Option<Accel>,
        /// End of a verdict's lease in seconds: how long hosts may start VMs while the authority is
        /// away [default: 1800, or as before].
        #[arg(long, value_parser = clap::value_parser!(u64).range(5..=86_400))]
        lease: Option<u64>,
        /// Who certifies keys: a key-management centre, or each trust service by itself [default:
        /// hybrid, or as before].
        #[arg(long, value_enum)]
        manner: Option<Manner>,
    },
    /// Say what runs.
    Status {
        /// Directory of the lab (`--lab` says it as well).
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Stop everything; the directory stays.
    Down {
        /// Directory of the lab (`--lab` says it as well).
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Verbs of the authority.
#[derive(Debug, Subcommand)]
pub enum Authority {
    /// Make the authority's keys and certificates on this machine; a second run changes nothing.
    Init {
        /// Configuration of `vouchsafe-authority`.
        #[arg(long = "authority-config", value_name = "FILE")]
        authority_config: PathBuf,
    },
    /// Back everything up into a new file under a key of its own, on the authority's machine while
    /// it does not run. Prints the shares of that key, once.
    Backup {
        /// Configuration of `vouchsafe-authority`.
        #[arg(long = "authority-config", value_name = "FILE")]
        authority_config: PathBuf,
        /// The file to make.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make an authority valid again on this machine's TPM, as a new incarnation. Shares come on
    /// stdin, one a line: the backup's or, without one, those that `init` showed.
    Restore {
        /// Configuration of `vouchsafe-authority`.
        #[arg(long = "authority-config", value_name = "FILE")]
        authority_config: PathBuf,
        /// The backup; without it the state directory is restored as it lies.
        #[arg(long, value_name = "FILE")]
        backup: Option<PathBuf>,
        /// The longest lease that the lost authority may have given, seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        longest_lease: u64,
    },
    /// Say how it stands.
    Status,
}

/// Verbs of hosts.
#[derive(Debug, Subcommand)]
pub enum Host {
    /// All hosts.
    List,
    /// One host with its last verdict.
    Show {
        /// Its name.
        name: HostId,
    },
    /// Have a host prove itself now (lab only: asks its agent).
    Attest {
        /// Its name.
        name: HostId,
    },
    /// Make a one-time enrolment token.
    Token {
        /// The name it admits.
        name: HostId,
    },
    /// Let an enrolled host have verdicts and grants.
    Approve {
        /// Its name.
        name: HostId,
        /// Verdicts only, never grants.
        #[arg(long)]
        audit_only: bool,
    },
    /// Refuse a host everything from now on.
    Revoke {
        /// Its name.
        name: HostId,
    },
    /// Start nothing new on a host; list what runs there, or stop it.
    Drain {
        /// Its name.
        name: HostId,
        /// Stop every VM that runs there, in good order.
        #[arg(long)]
        stop: bool,
        /// Let it take starts again.
        #[arg(long, conflicts_with = "stop")]
        end: bool,
    },
    /// Revoke a drained host that is nobody's home, for good.
    Retire {
        /// Its name.
        name: HostId,
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Make a token with which another TPM enrols in the place of the host's own. Its VMs keep
    /// their home; the host waits for approval again.
    Replace {
        /// Its name.
        name: HostId,
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Verbs of the policy.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Its lines, each with what it decides.
    List,
    /// The policy in force.
    Show,
    /// Replace it.
    Set {
        /// The new policy (JSON, as `policy show --json` prints it).
        file: PathBuf,
    },
    /// Say, rule by rule, why a host or guest gets keys or does not.
    #[command(subcommand)]
    Trace(Traced),
}

/// Whose verdict is traced.
#[derive(Debug, Subcommand)]
pub enum Traced {
    /// A host's.
    Host {
        /// Its name.
        name: HostId,
    },
    /// A VM's guest's.
    Vm {
        /// The VM's name.
        name: VmId,
    },
}

/// Verbs of the audit log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// The entries.
    List {
        /// First entry wanted.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Whose log.
        #[command(flatten)]
        whose: Whose,
    },
    /// Check the log against its signed checkpoint; names the first altered entry.
    Verify {
        /// Exported entries (offline).
        #[arg(long, value_name = "FILE", requires = "checkpoint", conflicts_with = "service")]
        file: Option<PathBuf>,
        /// Signed checkpoint (offline).
        #[arg(long, value_name = "FILE", requires = "file")]
        checkpoint: Option<PathBuf>,
        /// The authority's signing key (SubjectPublicKeyInfo, PEM) for offline use.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Whose log.
        #[command(flatten)]
        whose: Whose,
    },
    /// Write entries and checkpoint for offline checks.
    Export {
        /// Directory for `audit.jsonl`, `audit.checkpoint` and `audit-key.pem`.
        dir: PathBuf,
        /// Whose log.
        #[command(flatten)]
        whose: Whose,
    },
}

/// Whose audit log: the authority's, unless a service with a log of its own is named. That is asked
/// on its own machine, as its user.
#[derive(Clone, Debug, Default, Args)]
pub struct Whose {
    /// A service with a log of its own.
    #[arg(long, value_enum)]
    pub service: Option<Logging>,
    /// Which host's trust service, in a lab [default: the first].
    #[arg(long, value_name = "HOST", requires = "service")]
    pub host: Option<HostId>,
}

/// A service with an audit log of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Logging {
    /// A trust service.
    Trust,
    /// The key-management centre.
    Centre,
}

/// Verbs of disk images.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Predict what a guest booted from this image is measured as.
    Measure {
        /// Raw disk image.
        file: PathBuf,
        /// OVMF code file [default: the distribution's].
        #[arg(long, value_name = "FILE")]
        firmware: Option<PathBuf>,
        /// Memory of the machine, which the firmware measures.
        #[arg(long, default_value = "512M", value_parser = machine_memory)]
        memory: u32,
        /// Its virtual CPUs, likewise.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
        cpus: u32,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
