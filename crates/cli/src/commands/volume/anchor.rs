//! `--anchor FILE|tpm`: whether the volume is the latest, and keeping it so while it is served.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use disk::{
    Extent, OpenOptions, Volume,
    anchor::{Anchor as _, Attachment, FileAnchor},
    vault::{self, VaultVolume},
};
use model::{Kmi, Secret};

use super::{failure, vault::uuid_text};
use crate::output::Failure;

/// A volume with its anchor. Closing it detaches it: the export does that when it stops.
#[derive(Debug)]
pub(super) struct Anchored {
    attachment: Option<Attachment<VaultVolume>>,
    volume: Arc<VaultVolume>,
    directory: PathBuf,
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
        let attached = Attachment::attach(Arc::clone(&volume), Box::new(anchor));
        Some(attached.map_err(failure::of)?)
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

    fn inner(&self) -> &dyn Volume {
        self.volume.as_ref()
    }
}

impl Volume for Anchored {
    fn waits(&self) -> bool {
        self.inner().waits()
    }

    fn format(&self) -> &'static str {
        self.inner().format()
    }

    fn size(&self) -> u64 {
        self.inner().size()
    }

    fn sector_size(&self) -> u32 {
        self.inner().sector_size()
    }

    fn read_only(&self) -> bool {
        self.inner().read_only()
    }

    fn kmi(&self) -> Option<&Kmi> {
        self.inner().kmi()
    }

    fn header_damage(&self) -> Option<&str> {
        self.inner().header_damage()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner().read(offset, buf)
    }

    fn write(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.inner().write(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.inner().write_zeroes(offset, length)
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.inner().trim(offset, length)
    }

    fn prefetch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.inner().prefetch(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        self.inner().flush()
    }

    fn close(&self) -> io::Result<()> {
        match &self.attachment {
            Some(attachment) => attachment.detach().map(|_| ()).map_err(io::Error::other),
            None => self.inner().close(),
        }
    }

    fn flush_failed(&self) -> bool {
        self.inner().flush_failed()
    }

    fn extents(&self, offset: u64, length: u64, max: usize) -> io::Result<Vec<Extent>> {
        self.inner().extents(offset, length, max)
    }
}
