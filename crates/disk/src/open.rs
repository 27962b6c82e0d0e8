//! One door to every format: [`open`] recognises the volume by its first bytes and gives it as a
//! [`Volume`]; one in our own format also as what it is ([`Opened`]).
//!
//! ```text
//!   file -> lock -> first bytes -> vault | luks2 | luks1      (raw only if the caller says so)
//! ```
//!
//! **Invariant:** a file is never taken for raw because nothing else fits: a damaged header would
//! then be served as content, and written to.

mod direct;
mod medium;

use std::{fs::File, io, ops::Deref, os::unix::fs::FileExt, path::Path, sync::Arc};

use model::{Kmi, Secret};

pub(crate) use self::medium::{Medium, Run};
use crate::{
    Rejection, Volume, VolumeError, luks1, luks2,
    raw::RawVolume,
    vault::{self, VaultVolume},
};

/// The first bytes of a volume in our authenticated format.
const VAULT_MAGIC: &[u8] = b"VSAFEVLT";
/// The first bytes of both LUKS versions; the version follows in two bytes.
const LUKS_MAGIC: &[u8] = b"LUKS\xba\xbe";
/// The first bytes of a LUKS2 header's second copy.
const LUKS2_SECOND_MAGIC: &[u8] = b"SKUL\xba\xbe";

/// A format of volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// LUKS1, as written by qemu-img and cryptsetup.
    Luks1,
    /// LUKS2.
    Luks2,
    /// Plain bytes; never recognised, always said.
    Raw,
    /// Our authenticated format.
    Vault,
}

impl Format {
    /// The format's name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Luks1 => "luks1",
            Self::Luks2 => "luks2",
            Self::Raw => "raw",
            Self::Vault => "vault",
        }
    }
}

/// What a trim does to the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrimPolicy {
    /// The space goes back to the file system; the file then shows which sectors are unused.
    #[default]
    Punch,
    /// Nothing: the file never shows which sectors are used.
    Keep,
}

/// How a volume is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Refuse writes, and share the volume with other readers.
    pub read_only: bool,
    /// Only the key slots that belong to this key-management information are tried.
    pub kmi: Option<Kmi>,
    /// What a trim does.
    pub trim: TrimPolicy,
    /// The format that the file must have; recognised if absent. Raw must be said.
    pub format: Option<Format>,
    /// Pass the page cache by (`O_DIRECT`): the guest has a cache of its own. Requests that are not
    /// aligned to 4096 bytes go through the page cache all the same.
    pub direct: bool,
    /// Vault only: open this snapshot, read-only, instead of the disk.
    pub snapshot: Option<String>,
    /// Vault only: the count of the volume's anchor. A header that is older is refused.
    pub anchor: Option<u64>,
    /// Vault only: bytes of tree pages to keep in memory.
    pub cache_bytes: Option<u64>,
}

/// An open volume.
#[derive(Clone, Debug)]
pub enum Opened {
    /// In our own format, which can do more than a [`Volume`].
    Vault(Arc<VaultVolume>),
    /// In any other.
    Other(Arc<dyn Volume>),
}

impl Opened {
    /// The volume, to export it.
    #[must_use]
    pub fn volume(&self) -> Arc<dyn Volume> {
        match self {
            Self::Vault(vault) => Arc::clone(vault) as Arc<dyn Volume>,
            Self::Other(volume) => Arc::clone(volume),
        }
    }

    /// The same volume, if it is in our own format.
    #[must_use]
    pub const fn vault(&self) -> Option<&Arc<VaultVolume>> {
        match self {
            Self::Vault(vault) => Some(vault),
            Self::Other(_) => None,
        }
    }
}

impl Deref for Opened {
    type Target = dyn Volume;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Vault(vault) => &**vault,
            Self::Other(volume) => &**volume,
        }
    }
}

impl OpenOptions {
    /// Refuses what a format cannot give: it would be served without what was asked for.
    fn suit(&self, format: Format) -> Result<(), Rejection> {
        if format != Format::Vault && (self.snapshot.is_some() || self.anchor.is_some()) {
            return Err(Rejection::NotVault);
        }
        let has_kmi = matches!(format, Format::Vault | Format::Luks2);
        if has_kmi || self.kmi.is_none() { Ok(()) } else { Err(Rejection::KmiNotFound) }
    }
}

/// Opens the volume at `path` with the secret of one of its key slots, and locks it: alone, or
/// shared if read-only. A raw volume takes no secret.
///
/// # Errors
/// A [`Rejection`] if the file, its header or the key is refused ([`Rejection::FormatUnknown`] if
/// nothing fits, [`Rejection::KeyMissing`] without a needed secret, [`Rejection::NotVault`] if
/// another format is asked for a snapshot or an anchor), or the system's error.
pub fn open(
    path: &Path,
    secret: Option<&Secret<Vec<u8>>>,
    options: &OpenOptions,
) -> Result<Opened, VolumeError> {
    let medium = Medium::open(path, options)?;
    let format = match options.format {
        Some(format) => format,
        None => recognise(medium.file())?.ok_or(Rejection::FormatUnknown)?,
    };
    options.suit(format)?;
    let needed = || secret.ok_or(Rejection::KeyMissing);
    Ok(match format {
        Format::Luks1 => Opened::Other(Arc::new(luks1::open_on(medium, needed()?, options)?)),
        Format::Luks2 => Opened::Other(Arc::new(luks2::open_on(medium, needed()?, options)?)),
        Format::Raw => Opened::Other(Arc::new(RawVolume::new(medium, options)?)),
        Format::Vault => {
            Opened::Vault(Arc::new(vault::open_on(Arc::new(medium), needed()?, options)?))
        }
    })
}

/// The format that the first bytes of `file` tell, if it is one of ours; never raw.
///
/// # Errors
/// The system's.
pub fn recognise(file: &File) -> Result<Option<Format>, VolumeError> {
    let start = start_of(file, 0)?;
    let version = start.get(LUKS_MAGIC.len()..LUKS_MAGIC.len() + 2);
    if start.starts_with(VAULT_MAGIC) {
        return Ok(Some(Format::Vault));
    }
    if start.starts_with(LUKS_MAGIC) {
        // Another version is LUKS2's to refuse by name.
        return Ok(Some(if version == Some(&[0, 1]) { Format::Luks1 } else { Format::Luks2 }));
    }
    // A vault whose first header copy is lost still has the second.
    if start_of(file, 4096)?.starts_with(VAULT_MAGIC) {
        return Ok(Some(Format::Vault));
    }
    // A LUKS2 volume whose first header copy is lost still has the second, at a power of two.
    for shift in 14..=22 {
        if start_of(file, 1 << shift)?.starts_with(LUKS2_SECOND_MAGIC) {
            return Ok(Some(Format::Luks2));
        }
    }
    Ok(None)
}

fn start_of(file: &File, at: u64) -> Result<[u8; 16], VolumeError> {
    let mut start = [0; 16];
    let whole = read_whole(file, at, &mut start)?;
    Ok(if whole { start } else { [0; 16] })
}

/// Reads part of a header; false if the file ends before it does.
pub(crate) fn read_whole(file: &File, at: u64, buf: &mut [u8]) -> Result<bool, VolumeError> {
    match file.read_exact_at(buf, at) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(VolumeError::io("read the header")(e)),
    }
}

/// The secret of a key slot has a length that some format allows.
pub(crate) fn check_secret(secret: &Secret<Vec<u8>>) -> Result<(), Rejection> {
    let fits = (1..=512).contains(&secret.expose().len());
    if fits { Ok(()) } else { Err(Rejection::KeyLength) }
}
