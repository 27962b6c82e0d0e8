//! `vouchsafe volume ...`: needs no authority.

mod keys;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use model::Kmi;

pub use self::keys::{AnchorPlace, NewKey, OpenKey, SourceKey};

/// Verbs of volumes.
#[derive(Debug, Subcommand)]
pub enum Volume {
    /// Make an empty volume.
    Create(VolumeCreate),
    /// Export a volume until SIGTERM; ready when the socket exists.
    Serve(Box<VolumeServe>),
    /// Say what a volume's header says, without a key; nothing of it is verified.
    Inspect {
        /// The volume.
        path: PathBuf,
    },
    /// Read everything and name what is damaged (exit status 3).
    Check(VolumeCheck),
    /// Exchange the key, or with --data the key of all data.
    Rekey(VolumeRekey),
    /// States that are kept.
    #[command(subcommand)]
    Snapshot(VolumeSnapshot),
    /// Change the exported size of a vault volume that nobody has open.
    Resize {
        /// The volume.
        path: PathBuf,
        /// The new size; a smaller one is refused if it would cut off more than zeros.
        #[arg(long, value_parser = bytes)]
        size: u64,
        /// What opens it.
        #[command(flatten)]
        key: OpenKey,
    },
    /// Take this state of a vault volume for the latest: a backup that was put back on purpose. Every
    /// other copy is refused from then on. A volume without an anchor gets one.
    Reanchor {
        /// The volume.
        path: PathBuf,
        /// The anchor: a file kept elsewhere, `tpm` or `tpm:ADDRESS`. If there is none it is made.
        #[arg(long, value_name = "FILE|tpm")]
        anchor: AnchorPlace,
        /// What opens the volume.
        #[command(flatten)]
        key: OpenKey,
    },
    /// Copy a disk image into a new volume; killed and called again it goes on where it was.
    Convert(VolumeConvert),
    /// Copy out of a damaged volume what still verifies, and list what does not (exit status 3).
    Salvage {
        /// The damaged volume; it is only read.
        path: PathBuf,
        /// A raw image that must not exist: PLAINTEXT.
        out: PathBuf,
        /// Copy sectors that do not verify too, as they decrypt: whoever altered the volume may have
        /// chosen what is in them. Nothing of the copy should be run or believed.
        #[arg(long)]
        release_unverified: bool,
        /// What opens it.
        #[command(flatten)]
        key: OpenKey,
    },
}

/// The formats that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NewFormat {
    /// Encrypted and authenticated, with snapshots.
    Vault,
    /// LUKS2, AES-256-XTS, 4 KiB sectors: confidential only.
    Luks2,
}

/// The formats that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AnyFormat {
    /// Our authenticated format.
    Vault,
    /// LUKS2.
    Luks2,
    /// LUKS1, as written by qemu-img and cryptsetup.
    Luks1,
    /// Plain bytes.
    Raw,
    /// QEMU's qcow2, to be converted only.
    Qcow2,
}

/// The cipher suites of the vault format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cipher {
    /// AES-256-GCM.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// AEGIS-256X4: faster with wide vector instructions; not approved by FIPS.
    #[value(name = "aegis-256x4")]
    Aegis256X4,
}

/// What is said of a new volume.
#[derive(Debug, Args)]
pub struct VolumeCreate {
    /// The volume's file; it must not exist.
    pub path: PathBuf,
    /// Its format.
    #[arg(long, value_enum, default_value_t = NewFormat::Vault)]
    pub format: NewFormat,
    /// Cipher suite of a vault volume [default: aes-256-gcm].
    #[arg(long, value_enum)]
    pub cipher: Option<Cipher>,
    /// The exported size, exactly: 1073741824, 1G, 512M.
    #[arg(long, value_parser = bytes)]
    pub size: u64,
    /// What is to open it.
    #[command(flatten)]
    pub key: OpenKey,
    /// Anchor of its freshness: a file kept elsewhere, or a counter of a TPM: `tpm` for this
    /// machine's, `tpm:unix:PATH` for a software TPM.
    #[arg(long, value_name = "FILE|tpm")]
    pub anchor: Option<AnchorPlace>,
    /// Key-management information to store with it, as JSON.
    #[arg(long, value_parser = kmi)]
    pub kmi: Option<Kmi>,
    /// Label in the header.
    #[arg(long, default_value = "")]
    pub label: String,
}

/// What of a volume is read, and against what.
#[derive(Debug, Args)]
pub struct VolumeCheck {
    /// The volume.
    pub path: PathBuf,
    /// What opens it.
    #[command(flatten)]
    pub key: OpenKey,
    /// Anchor of its freshness: an older copy is refused.
    #[arg(long, value_name = "FILE|tpm")]
    pub anchor: Option<AnchorPlace>,
    /// Read this snapshot instead of the disk.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    pub snapshot: Option<String>,
    /// Read the disk and all its snapshots.
    #[arg(long)]
    pub all: bool,
}

/// The export over TCP: all four or none.
#[derive(Debug, Args)]
pub struct OverTls {
    /// Export over TCP as well, by TLS only (NBD's STARTTLS), for clients with a certificate.
    #[arg(long, value_name = "IP:PORT", requires = "tls_cert")]
    pub listen: Option<SocketAddr>,
    /// Certificate chain of the server, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_client_ca")]
    pub tls_key: Option<PathBuf>,
    /// The CA whose clients may connect, PEM.
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub tls_client_ca: Option<PathBuf>,
}

/// How a volume is served.
#[derive(Debug, Args)]
pub struct VolumeServe {
    /// The volume; of an ephemeral one, a free name in the directory that takes it.
    pub path: PathBuf,
    /// What opens it; a raw one has no key.
    #[command(flatten)]
    pub key: OpenKey,
    /// The unix socket of the export.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// vhost-user-blk instead of NBD.
    #[arg(long, conflicts_with = "listen")]
    pub vhost_user: bool,
    /// Over TCP as well.
    #[command(flatten)]
    pub over_tls: OverTls,
    /// Refuse writes.
    #[arg(long)]
    pub read_only: bool,
    /// The format it must have; recognised if not said, only raw must be said.
    #[arg(long, value_enum)]
    pub format: Option<AnyFormat>,
    /// Anchor of its freshness: a file kept elsewhere, `tpm` or `tpm:ADDRESS`. Without it freshness
    /// is unchecked.
    #[arg(long, value_name = "FILE|tpm")]
    pub anchor: Option<AnchorPlace>,
    /// Serve this snapshot, read-only.
    #[arg(long, value_name = "NAME")]
    pub snapshot: Option<String>,
    /// Use only the key slot that belongs to this key-management information, given as JSON.
    #[arg(long, value_parser = kmi)]
    pub kmi: Option<Kmi>,
    /// Do not give trimmed space back, so that the file never shows what is in use.
    #[arg(long)]
    pub keep_allocation: bool,
    /// Make an empty vault volume whose key is in this process alone, and serve it. Its file has no name
    /// once it is served: when the process ends nothing of it is left.
    #[arg(
        long,
        requires = "size",
        conflicts_with_all = ["OpenKey", "format", "anchor", "snapshot", "kmi", "read_only", "direct",
            "keep_allocation"]
    )]
    pub ephemeral: bool,
    /// The size of an ephemeral volume.
    #[arg(long, value_parser = bytes, requires = "ephemeral")]
    pub size: Option<u64>,
    /// Pass the page cache by (`O_DIRECT`).
    #[arg(long)]
    pub direct: bool,
    /// A unix socket at which `volume rekey --socket` exchanges keys meanwhile, for our own user.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["read_only", "snapshot", "ephemeral"])]
    pub control: Option<PathBuf>,
    /// Log each step of each block on its way out and in (S310 to S340, S410 to S440).
    #[arg(long)]
    pub trace_steps: bool,
    /// Another user, by number, whose processes may connect. May be repeated.
    #[arg(long = "client-uid", value_name = "UID")]
    pub client_uids: Vec<u32>,
}

/// Which key is exchanged.
#[derive(Debug, Args)]
pub struct VolumeRekey {
    /// The volume, if nobody has it open.
    #[arg(required_unless_present = "socket")]
    pub path: Option<PathBuf>,
    /// The control socket of the process that serves the volume (`volume serve --control`): it goes on
    /// meanwhile.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["path", "OpenKey"])]
    pub socket: Option<PathBuf>,
    /// What opens it now.
    #[command(flatten)]
    pub key: OpenKey,
    /// What opens it afterwards.
    #[command(flatten)]
    pub new: NewKey,
    /// Seal all data anew under a fresh key; interrupted and called again it goes on.
    #[arg(long)]
    pub data: bool,
    /// Keep the key slot that opened it, beside the new one.
    #[arg(long, conflicts_with = "data")]
    pub keep: bool,
}

/// Verbs of snapshots.
#[derive(Debug, Subcommand)]
pub enum VolumeSnapshot {
    /// Keep the present state under a name.
    Create(SnapshotNamed),
    /// The kept states.
    List {
        /// The volume.
        path: PathBuf,
        /// What opens it.
        #[command(flatten)]
        key: OpenKey,
    },
    /// Give the disk that state again; what was written since is lost.
    Revert(SnapshotNamed),
    /// Give one up.
    Delete(SnapshotNamed),
}

/// One snapshot of one volume.
#[derive(Debug, Args)]
pub struct SnapshotNamed {
    /// The volume.
    pub path: PathBuf,
    /// Name of the snapshot.
    pub name: String,
    /// What opens it.
    #[command(flatten)]
    pub key: OpenKey,
}

/// What becomes what.
#[derive(Debug, Args)]
pub struct VolumeConvert {
    /// The image: qcow2, LUKS1, LUKS2 and vault are recognised, anything else is raw.
    pub source: PathBuf,
    /// The new volume; it must not exist.
    pub destination: PathBuf,
    /// Its format.
    #[arg(long, value_enum, default_value_t = NewFormat::Vault)]
    pub to: NewFormat,
    /// Cipher suite of a vault volume [default: aes-256-gcm].
    #[arg(long, value_enum)]
    pub cipher: Option<Cipher>,
    /// What is to open it.
    #[command(flatten)]
    pub key: OpenKey,
    /// The source's format, instead of recognising it.
    #[arg(long, value_enum)]
    pub from: Option<AnyFormat>,
    /// What opens an encrypted source.
    #[command(flatten)]
    pub source_key: SourceKey,
    /// Key-management information to store with it, as JSON.
    #[arg(long, value_parser = kmi)]
    pub kmi: Option<Kmi>,
    /// Label in the header.
    #[arg(long, default_value = "")]
    pub label: String,
}

fn kmi(text: &str) -> Result<Kmi, String> {
    serde_json::from_str(text).map_err(|error| format!("not key-management information: {error}"))
}

/// Parses `1048576`, `512K`, `64M`, `2G` or `1T`.
fn bytes(text: &str) -> Result<u64, String> {
    let factors = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let found = factors.iter().find_map(|(unit, shift)| {
        let digits = text.strip_suffix(*unit).or(text.strip_suffix(unit.to_ascii_lowercase()))?;
        Some((digits, *shift))
    });
    let (digits, shift) = found.unwrap_or((text, 0));
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("{text:?} is not a size such as 1G, 512M or 1048576"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        assert_eq!(bytes("5000"), Ok(5000));
        assert_eq!(bytes("1G"), Ok(1 << 30));
        assert_eq!(bytes("3k"), Ok(3072));
        for wrong in ["", "0", "1X", "99999999T", "-1", "1 G"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
