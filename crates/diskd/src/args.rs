//! The command line.

use std::{os::fd::RawFd, path::PathBuf};

use anyhow::Context as _;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use model::{Digest, Kmi};

/// Makes and serves the encrypted volume of one VM.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe-disk", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a volume; progress is one JSON object a line on stdout.
    Create(CreateArgs),
    /// Serve a volume over NBD or vhost-user-blk until SIGTERM.
    Serve(ServeArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CreateArgs {
    /// The volume's file; it must not exist.
    #[arg(long)]
    pub(crate) image: PathBuf,
    /// A raw image that becomes its content.
    #[arg(long, conflicts_with = "size", required_unless_present = "size")]
    pub(crate) source: Option<PathBuf>,
    /// Size in bytes of a volume without content, a multiple of 4096.
    #[arg(long)]
    pub(crate) size: Option<u64>,
    /// SHA-256 that the source must have, in hexadecimal.
    #[arg(long, requires = "source", value_parser = parse_sha256)]
    pub(crate) source_sha256: Option<Digest>,
    /// Descriptor from which the key is read to its end: 1 to 512 bytes.
    #[arg(long)]
    pub(crate) key_fd: RawFd,
    /// Key-management information to store with the volume, as JSON.
    #[arg(long, value_parser = parse_kmi)]
    pub(crate) kmi: Option<Kmi>,
    /// Label in the header.
    #[arg(long, default_value = "")]
    pub(crate) label: String,
    /// The volume's format.
    #[arg(long, default_value = "luks2")]
    pub(crate) format: NewFormat,
}

/// A format of new volumes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum NewFormat {
    /// AES-256-XTS, readable by cryptsetup.
    Luks2,
    /// Authenticated, crash-consistent, anchored.
    Vault,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServeArgs {
    /// The volume's file.
    #[arg(long)]
    pub(crate) image: PathBuf,
    /// Unix socket of the export.
    #[arg(long)]
    pub(crate) socket: PathBuf,
    /// Unix socket for the agent.
    #[arg(long)]
    pub(crate) control: PathBuf,
    /// Descriptor from which the key is read to its end: 1 to 512 bytes. A raw image takes none.
    #[arg(long)]
    pub(crate) key_fd: Option<RawFd>,
    /// The image's format; recognised by itself except raw, which must be said.
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Pass the page cache by (O_DIRECT).
    #[arg(long)]
    pub(crate) direct: bool,
    /// Export over vhost-user-blk instead of NBD: for QEMU with shared memory.
    #[arg(long)]
    pub(crate) vhost_user: bool,
    /// Queues offered over vhost-user-blk; each has a thread while the guest uses it.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16), requires = "vhost_user")]
    pub(crate) queues: u16,
    /// Make each write durable before it is answered: a guest that outlives this process loses
    /// nothing then, also nothing that it had not flushed.
    #[arg(long)]
    pub(crate) write_through: bool,
    /// Refuse writes.
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Use only the key slot that belongs to this key-management information, given as JSON.
    #[arg(long, value_parser = parse_kmi)]
    pub(crate) kmi: Option<Kmi>,
    /// The counter that the volume is anchored in: an older header is refused as `rolled-back`.
    #[arg(long)]
    pub(crate) anchor_count: Option<u64>,
    /// Do not give trimmed space back, so that the file never shows what is in use.
    #[arg(long)]
    pub(crate) keep_allocation: bool,
    /// Another user, by number, whose processes may connect to the NBD socket. May be repeated.
    #[arg(long = "client-uid")]
    pub(crate) client_uids: Vec<u32>,
}

/// A format of images.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    Vault,
    Luks2,
    Luks1,
    Raw,
}

impl From<Format> for disk::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Vault => Self::Vault,
            Format::Luks2 => Self::Luks2,
            Format::Luks1 => Self::Luks1,
            Format::Raw => Self::Raw,
        }
    }
}

fn parse_kmi(text: &str) -> anyhow::Result<Kmi> {
    serde_json::from_str(text).context("not key-management information")
}

fn parse_sha256(text: &str) -> anyhow::Result<Digest> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    format!("sha256:{digits}").parse().context("not a SHA-256 digest")
}
