//! `--anchor FILE|tpm`: whether the volume is the latest, and keeping it so while it is served.

mod counter;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use disk::{
    Extent, OpenOptions, Volume,
    anchor::{Anchor, Attachment, FileAnchor},
    vault::{self, VaultVolume},
};
use model::{Kmi, Secret};
use tpm::Address;

use self::counter::TpmAnchor;
use super::{failure, vault::uuid_text};
use crate::{args::AnchorPlace, output::Failure};

/// How far an anchor is raised to a volume that is ahead of it: each step is a file made durable, or
/// a write to the memory of a TPM, which wears out.
const FILE_RAISE_MAX: u64 = 100_000;
const TPM_RAISE_MAX: u64 = 256;

/// A volume with its anchor. Closing it detaches it: the export does that when it stops.
#[derive(Debug)]
pub(super) struct Anchored {
    attachment: Option<Attachment<VaultVolume>>,
    volume: Arc<VaultVolume>,
    directory: Option<PathBuf>,
}

/// Makes the anchor of a new volume.
///
/// # Errors
/// `already-exists` if there is one of that name, `anchors-full`, or the system's error.
pub(super) fn begin(
    place: &AnchorPlace,
    volume: &Path,
    secret: &Secret<Vec<u8>>,
) -> Result<(), Failure> {
    let uuid = uuid_text(&super::vault::uuid(volume)?);
    match place {
        AnchorPlace::File(file) => {
            drop(FileAnchor::create(file, &uuid).map_err(failure::at(file))?)
        }
        AnchorPlace::Tpm(address) => {
            let count = TpmAnchor::create(address, &uuid)?.read()?;
            let opened = vault::open(volume, secret, &OpenOptions::default());
            let new = opened.map_err(failure::at(volume))?;
            new.advance(count)?;
            new.close()?;
        }
    }
    Ok(())
}

/// Opens the volume at `path` if it is the latest by its anchor; for writing, an older copy dies
/// before this returns.
///
/// # Errors
/// `rolled-back`, `anchor-mismatch`, another refusal, or the system's error.
pub(super) fn attach(
    place: &AnchorPlace,
    path: &Path,
    secret: &Secret<Vec<u8>>,
    options: &OpenOptions,
) -> Result<Anchored, Failure> {
    let uuid = uuid_text(&super::vault::uuid(path)?);
    let (mut anchor, directory): (Box<dyn Anchor>, _) = match place {
        AnchorPlace::File(file) => {
            let anchor = FileAnchor::open(file, &uuid).map_err(failure::at(file))?;
            let directory = file.parent().filter(|dir| !dir.as_os_str().is_empty());
            (Box::new(anchor), Some(directory.unwrap_or(Path::new(".")).to_owned()))
        }
        AnchorPlace::Tpm(address) => {
            let device =
                if let Address::Device(path) = address { Some(path.clone()) } else { None };
            (Box::new(TpmAnchor::open(address, &uuid)?), device)
        }
    };
    let count = anchor.read()?;
    let options = OpenOptions { anchor: Some(count), ..options.clone() };
    let volume = Arc::new(vault::open(path, secret, &options).map_err(failure::at(path))?);
    let attachment = if options.read_only {
        None
    } else {
        Some(Attachment::attach(Arc::clone(&volume), anchor).map_err(failure::of)?)
    };
    Ok(Anchored { attachment, volume, directory })
}

/// Takes the state of the volume at `path` for the latest one, and gives the anchor's count. The
/// anchor is made if there is none; it only ever counts up.
///
/// # Errors
/// `anchor-mismatch` if it is another volume's, or so far behind this one that it cannot be raised;
/// another refusal, or the system's error.
pub(super) fn reanchor(
    place: &AnchorPlace,
    path: &Path,
    secret: &Secret<Vec<u8>>,
) -> Result<u64, Failure> {
    let uuid = uuid_text(&super::vault::uuid(path)?);
    let (mut anchor, raise_max): (Box<dyn Anchor>, _) = match place {
        AnchorPlace::File(file) if file.try_exists()? => {
            (Box::new(FileAnchor::open(file, &uuid).map_err(failure::at(file))?), FILE_RAISE_MAX)
        }
        AnchorPlace::File(file) => {
            (Box::new(FileAnchor::create(file, &uuid).map_err(failure::at(file))?), FILE_RAISE_MAX)
        }
        AnchorPlace::Tpm(address) => {
            (Box::new(TpmAnchor::open_or_create(address, &uuid)?), TPM_RAISE_MAX)
        }
    };
    let volume = vault::open(path, secret, &OpenOptions::default()).map_err(failure::at(path))?;
    let (mut count, header) = (anchor.read()?, volume.head().anchor_count);
    if header.saturating_sub(count) > raise_max {
        let detail = format!("the volume counts {header} and its anchor {count}");
        let hint = "`vouchsafe volume convert` makes a new volume of it, which counts from 0";
        return Err(Failure::refused("anchor-mismatch", detail, hint));
    }
    while count < header {
        anchor.increment(count)?;
        count = anchor.read()?;
    }
    // From here on it is accepted; attaching counts two further, past every other copy.
    volume.advance(count)?;
    let attached = Attachment::attach(Arc::new(volume), anchor).map_err(failure::of)?;
    attached.detach().map_err(failure::of)
}

impl Anchored {
    /// The directory or device that is written while it is served.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.attachment.as_ref().and(self.directory.as_deref())
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

    /// The volume in particular.
    pub(super) const fn vault(&self) -> &Arc<VaultVolume> {
        &self.volume
    }

    fn inner(&self) -> &dyn Volume {
        self.volume.as_ref()
    }
}

impl Volume for Anchored {
    fn waits(&self) -> bool {
        self.inner().waits()
    }

    fn writes_wait(&self) -> bool {
        self.inner().writes_wait()
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
