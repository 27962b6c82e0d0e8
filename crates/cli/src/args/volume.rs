//! `vouchsafe volume ...`: needs no authority.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Subcommand, ValueEnum};
use model::Kmi;

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
    Check {
        /// The volume.
        path: PathBuf,
        /// What opens it.
        #[command(flatten)]
        key: OpenKey,
    },
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

/// What opens a volume: one of them, and for a raw one none.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct OpenKey {
    /// File with the key, 1 to 512 bytes, taken as they are.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// File with the pass phrase, 1 to 512 bytes, taken as they are.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Ask for the pass phrase on the terminal.
    #[arg(long)]
    pub passphrase: bool,
    /// Unseal the key by this machine's TPM [default: device:/dev/tpmrm0].
    #[arg(
        long,
        value_name = "TPM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "device:/dev/tpmrm0"
    )]
    pub tpm: Option<tpm::Address>,
}

/// What is to open a volume from now on: exactly one.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct NewKey {
    /// File with the new key.
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
    /// File with the new pass phrase.
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Ask for the new pass phrase on the terminal.
    #[arg(long)]
    pub new_passphrase: bool,
    /// Make a key that only this machine's TPM unseals [default: device:/dev/tpmrm0].
    #[arg(
        long,
        value_name = "TPM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "device:/dev/tpmrm0"
    )]
    pub new_tpm: Option<tpm::Address>,
}

/// Where a volume's anchor is.
#[derive(Clone, Debug)]
pub enum AnchorPlace {
    /// In a file.
    File(PathBuf),
    /// In a counter of a TPM.
    Tpm(tpm::Address),
}

impl FromStr for AnchorPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = match (text, text.strip_prefix("tpm:")) {
            ("tpm", _) => "device:/dev/tpmrm0",
            (_, Some(address)) => address,
            (_, None) => return Ok(Self::File(text.into())),
        };
        address.parse().map(Self::Tpm).map_err(|error| format!("{address:?}: {error}"))
    }
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
    /// The volume.
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
    /// Pass the page cache by (`O_DIRECT`).
    #[arg(long)]
    pub direct: bool,
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
    /// The volume.
    pub path: PathBuf,
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
    /// File with the key of an encrypted source.
    #[arg(long, value_name = "FILE")]
    pub source_key_file: Option<PathBuf>,
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
    fn an_anchor_is_a_file_or_in_a_tpm() {
        let place = |text: &str| format!("{:?}", text.parse::<AnchorPlace>());
        assert_eq!(place("tpm"), place("tpm:device:/dev/tpmrm0"));
        assert!(place("tpm:unix:/s").contains("Unix"));
        assert!(place("/a/tpm").contains("File"));
        assert!("tpm:x".parse::<AnchorPlace>().is_err());
    }

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
