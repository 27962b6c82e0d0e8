//! `--anchor FILE|tpm`: whether the volume is the latest, and keeping it so while it is served.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use disk::{
    OpenOptions, Volume,
    anchor::{self, Anchor, Attachment, FileAnchor},
    vault::{self, VaultVolume},
};
use model::Secret;

use super::{failure, vault::uuid_text};
use crate::output::Failure;

/// A volume with its anchor.
#[derive(Debug)]
pub(super) struct Anchored {
    attachment: Option<Attachment<Disk>>,
    volume: Arc<VaultVolume>,
    directory: PathBuf,
}

/// The volume as the protocol sees it.
#[derive(Debug)]
struct Disk(Arc<VaultVolume>);

impl anchor::Anchored for Disk {
    fn anchor_count(&self) -> u64 {
        self.0.head().anchor_count
    }

    fn commit(&self, count: u64, last: bool) -> io::Result<()> {
        self.0.advance(count)?;
        if last {
            self.0.close()?;
        }
        Ok(())
    }
}

/// Makes the anchor of a new volume.
///
/// # Errors
/// `already-exists` if there is one of that name, or the system's error.
pub(super) fn begin(place: &Path, volume: &Path) -> Result<(), Failure> {
    refuse_tpm(place)?;
    FileAnchor::create(place, &uuid_text(&super::vault::uuid(volume)?)).map_err(failure::of)?;
    Ok(())
}

/// Opens the volume at `path` if it is the latest by its anchor; for writing, an older copy dies
/// before this returns.
///
/// # Errors
/// `rolled-back`, `anchor-mismatch`, another refusal, or the system's error.
pub(super) fn attach(
    place: &Path,
    path: &Path,
    secret: &Secret<Vec<u8>>,
    options: &OpenOptions,
) -> Result<Anchored, Failure> {
    refuse_tpm(place)?;
    let uuid = super::vault::uuid(path)?;
    let mut anchor = FileAnchor::open(place, &uuid_text(&uuid)).map_err(failure::of)?;
    let count = anchor.read()?;
    let options = OpenOptions { anchor: Some(count), ..options.clone() };
    let volume = Arc::new(vault::open(path, secret, &options).map_err(failure::of)?);
    let attachment = if options.read_only {
        None
    } else {
        let disk = Arc::new(Disk(Arc::clone(&volume)));
        Some(Attachment::attach(disk, Box::new(anchor)).map_err(failure::of)?)
    };
    let directory = place.parent().filter(|dir| !dir.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new(".")).to_owned();
    Ok(Anchored { attachment, volume, directory })
}

fn refuse_tpm(place: &Path) -> Result<(), Failure> {
    if place == Path::new("tpm") {
        let words = "an anchor in the TPM belongs to a host; name a file elsewhere";
        return Err(Failure::error(words, "use --anchor FILE, on another disk than the volume"));
    }
    Ok(())
}

impl Anchored {
    /// The volume.
    pub(super) fn volume(&self) -> Arc<dyn Volume> {
        Arc::clone(&self.volume) as Arc<dyn Volume>
    }

    /// The directory that is written while it is served.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.attachment.as_ref().map(|_| self.directory.as_path())
    }

    /// Advances the anchor: an older copy of what was written by now dies.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn tick(&self) -> Result<(), Failure> {
        if let Some(attachment) = &self.attachment {
            attachment.tick().map_err(failure::of)?;
        }
        Ok(())
    }

    /// Detaches in good order.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn detach(&self) -> Result<(), Failure> {
        match &self.attachment {
            Some(attachment) => attachment.detach().map(|_| ()).map_err(failure::of),
            None => Ok(()),
        }
    }
}
