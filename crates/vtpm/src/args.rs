//! The command line.

use std::{os::fd::RawFd, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Owns the virtual TPM of one VM: runs swtpm, stands between it and QEMU, records what is measured.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe-vtpm", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the vTPM until SIGTERM or a request to shut down.
    Run(RunArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// Directory of the vTPM's state; made if it is not there. Absolute.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Unix socket for the agent.
    #[arg(long)]
    pub(crate) control: PathBuf,
    /// Unix socket for QEMU's `-chardev socket` of `-tpmdev emulator`.
    #[arg(long)]
    pub(crate) qemu: PathBuf,
    /// Descriptor that holds 96 bytes: state key, migration key, authValue of the host's AK.
    #[arg(long)]
    pub(crate) keys_fd: RawFd,
    /// Entries of the observed list in one boot; what is measured beyond is only told to exist.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) max_extends: u32,
    /// Another user, by number, whose processes may connect as QEMU. May be repeated.
    #[arg(long = "client-uid")]
    pub(crate) client_uids: Vec<u32>,
    /// The swtpm program.
    #[arg(long, default_value = "swtpm")]
    pub(crate) swtpm: PathBuf,
}
