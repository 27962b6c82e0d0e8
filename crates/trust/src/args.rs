//! The command line.

use std::{os::fd::RawFd, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Answers for keys: an XKMS 2.0 responder. Certificates come from a key-management centre
/// (`manner = "hybrid"` or `"proxy"`, where `[keeper.centre]` is configured), or from a CA of its own
/// (`"full"`, the default without one).
#[derive(Debug, Parser)]
#[command(name = "vouchsafe-trust", version)]
pub(crate) struct Args {
    /// Configuration file (TOML).
    #[arg(long, default_value = "/etc/vouchsafe/trust.toml")]
    pub(crate) config: PathBuf,
    /// Check the configuration, then exit.
    #[arg(long)]
    pub(crate) check_config: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The half that meets strangers; started by the other half, never by hand.
    #[command(hide = true)]
    Reader(ReaderArgs),
    /// Makes the state as it is the newest, after a backup was put back or the TPM was replaced: what
    /// was done since is lost, revocations too. The service must not run.
    Restore {
        /// Who decided it, for the audit log.
        #[arg(long)]
        operator: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ReaderArgs {
    /// Descriptor of the sealed file with the settings and the key that signs messages.
    #[arg(long)]
    pub(crate) start_fd: RawFd,
    /// Descriptor of the bound listener.
    #[arg(long)]
    pub(crate) listen_fd: RawFd,
    /// Descriptors of the channels to the keeper.
    #[arg(long = "channel-fd", required = true)]
    pub(crate) channel_fds: Vec<RawFd>,
    /// Descriptor of the channel on which the keeper hands over the ports of guests.
    #[arg(long)]
    pub(crate) ports_fd: Option<RawFd>,
    /// Descriptor of the bound listener for guests.
    #[arg(long)]
    pub(crate) guests_fd: Option<RawFd>,
}
