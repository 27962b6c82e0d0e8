//! Making a vault volume: into a file that gets its name only when it is complete and durable.
//!
//! ```text
//!   .NAME.partial, locked -> empty volume -> (opened, filled sector by sector, closed)
//!     -> rename to NAME -> fsync of the directory
//! ```
//!
//! **Invariant:** on any failure the partial file is removed; a volume under its name is whole; no
//! existing file is replaced.

use std::{
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use model::Secret;
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::{
    attach::open_on,
    bytes::Text,
    header::{
        Header, KeyAreaSide, LOG_SLOT, LOG_SLOTS, SIZE_MAX, SLOT_BYTES, SessionRecord, Suite,
        depth_for,
    },
    kdf::{self, VolumeKey},
    keyarea::{KeyArea, Owner},
    keyslot::{NewSlot, SlotSecret},
    medium::Medium,
    page::byte_of,
    refs::Ref,
    unlock::HeaderCopy,
};
use crate::{
    OpenOptions, Rejection, Volume, VolumeError, open::Medium as FileMedium, partial::Partial,
};

/// Bytes of the source that are read and written at a time.
const RUN: usize = 1 << 20;

/// What a new volume is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewVault<'a> {
    /// Its file, which must not exist.
    pub path: &'a Path,
    /// Size of the disk in bytes, 1 to 8 TiB.
    pub size: u64,
    /// Its cipher.
    pub suite: Suite,
    /// Length of its log, 256 KiB to 64 MiB; a 64th of the disk if absent, 1 to 32 MiB.
    pub log_bytes: Option<u64>,
    /// Label in the header, at most 64 bytes.
    pub label: &'a str,
    /// Its key slots, 1 to 16.
    pub slots: &'a [NewSlot<'a>],
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// UUID in the header.
    pub uuid: [u8; 16],
    /// Size of the disk in bytes.
    pub size: u64,
}

/// Makes a volume that reads as zeros.
///
/// # Errors
/// A [`Rejection`], or the system's error. Nothing is left behind.
pub fn create(new: &NewVault<'_>) -> Result<Created, VolumeError> {
    let (medium, partial) = begin(new.path)?;
    reserve(medium.file(), new)?;
    let created = create_on(medium.as_ref(), new)?;
    partial.finish(medium.file())?;
    Ok(created)
}

/// Makes a volume with the content of `source`, encrypted on the way; runs of zeros stay null. A
/// source that is shorter than the disk is followed by zeros. `progress` gets bytes done and bytes
/// in all, and may stop the work.
///
/// # Errors
/// A [`Rejection`] ([`Rejection::SizeInvalid`] if the source is longer than the disk),
/// [`VolumeError::Cancelled`], or the system's error. Nothing is left behind.
pub fn create_from(
    new: &NewVault<'_>,
    source: &mut dyn Read,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Created, VolumeError> {
    let (file, partial) = begin(new.path)?;
    reserve(file.file(), new)?;
    let created = create_on(file.as_ref(), new)?;
    let medium: Arc<dyn Medium> = Arc::clone(&file) as Arc<dyn Medium>;
    let secret = new.slots.first().map(secret_of).ok_or(Rejection::LastKeySlot)?;
    let volume = open_on(medium, secret, &OpenOptions::default())?;
    copy(&volume, source, progress)?;
    volume.close().map_err(VolumeError::io("make the volume durable"))?;
    drop(volume);
    partial.finish(file.file())?;
    Ok(created)
}

fn copy(
    volume: &dyn Volume,
    source: &mut dyn Read,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(), VolumeError> {
    let size = volume.size();
    let mut buf = Secret::new(vec![0; RUN]);
    let mut at: u64 = 0;
    loop {
        if progress(at.min(size), size).is_break() {
            return Err(VolumeError::Cancelled);
        }
        let got = fill(source, buf.expose_mut()).map_err(VolumeError::io("read the source"))?;
        let run = buf.expose_mut().get_mut(..got).unwrap_or_default();
        if run.is_empty() {
            return Ok(());
        }
        let end = at.saturating_add(super::data::length(got));
        if end > size {
            return Err(Rejection::SizeInvalid { size, sector: 1 }.into());
        }
        write_nonzero(volume, at, run).map_err(VolumeError::io("write the volume"))?;
        at = end;
    }
}

fn fill(source: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buf.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// Writes the sectors that are not all zeros, neighbours together.
fn write_nonzero(volume: &dyn Volume, at: u64, run: &mut [u8]) -> io::Result<()> {
    let zero: Vec<bool> =
        run.chunks(SLOT_BYTES).map(|sector| sector.iter().all(|&b| b == 0)).collect();
    let (mut rest, mut offset) = (run, at);
    for group in zero.chunk_by(|a, b| a == b) {
        let bytes = (group.len() * SLOT_BYTES).min(rest.len());
        let (part, behind) = rest.split_at_mut(bytes);
        if group.first() == Some(&false) {
            volume.write(offset, part)?;
        }
        offset = offset.saturating_add(super::data::length(bytes));
        rest = behind;
    }
    Ok(())
}

/// Makes an empty volume on `medium`, which is empty.
///
/// # Errors
/// A [`Rejection`], or the medium's error.
pub fn create_on(medium: &dyn Medium, new: &NewVault<'_>) -> Result<Created, VolumeError> {
    if new.size == 0 || new.size > SIZE_MAX {
        return Err(Rejection::SizeInvalid { size: new.size, sector: 1 }.into());
    }
    let mut uuid = [0; 16];
    kdf::random(&mut uuid)?;
    let key = VolumeKey::random()?;
    let area = KeyArea::new(new.slots, Owner { uuid: &uuid, epoch: 1, key: &key })?;
    let header = new_header(new, uuid, area.digest())?;
    let bytes = header.encode(&key.header_key(&uuid)?);
    let written = medium
        .write_at(byte_of(header.data_slot()) - 1, &[0])
        .and_then(|()| medium.write_at(super::data::length(KeyAreaSide::A.at()), &area.encode()))
        .and_then(|()| medium.write_at(HeaderCopy::A.at(), bytes.as_slice()))
        .and_then(|()| medium.write_at(HeaderCopy::B.at(), bytes.as_slice()))
        .and_then(|()| medium.sync());
    written.map_err(VolumeError::io("write the volume"))?;
    Ok(Created { uuid, size: new.size })
}

fn secret_of<'a>(slot: &NewSlot<'a>) -> &'a Secret<Vec<u8>> {
    match slot.secret {
        SlotSecret::RandomKey(key)
        | SlotSecret::Passphrase { phrase: key, .. }
        | SlotSecret::Sealed { key, .. }
        | SlotSecret::Peer { key, .. } => key,
    }
}

fn log_slots(new: &NewVault<'_>) -> u32 {
    let wanted = new.log_bytes.unwrap_or((new.size / 64).clamp(1 << 20, 32 << 20));
    let slots = u32::try_from(wanted.div_ceil(SLOT_BYTES as u64)).unwrap_or(u32::MAX);
    slots.clamp(*LOG_SLOTS.start(), *LOG_SLOTS.end())
}

fn new_header(
    new: &NewVault<'_>,
    uuid: [u8; 16],
    key_area_digest: [u8; 32],
) -> Result<Header, VolumeError> {
    let log_slots = log_slots(new);
    Ok(Header {
        suite: new.suite,
        depth: depth_for(new.size),
        key_area: KeyAreaSide::A,
        clean: true,
        uuid,
        size: new.size,
        generation: 1,
        anchor_count: 0,
        log_slots,
        epoch: 1,
        session: SessionRecord::default(),
        next_sequence: 1,
        log_number: 1,
        end: LOG_SLOT + u64::from(log_slots),
        root: Ref::NULL,
        sessions: Ref::NULL,
        snapshots: Ref::NULL,
        key_area_digest,
        chain_salt: [0; 16],
        rekeyed_pages: 0,
        old_key: None,
        label: Text::new(new.label)?,
    })
}

/// An empty file for the volume, locked as an open volume is.
fn begin(target: &Path) -> Result<(Arc<FileMedium>, Partial), VolumeError> {
    let lock = |path: &Path| {
        // Closed at once: a record lock goes with any descriptor of its file.
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map_err(VolumeError::io("create the volume"))?;
        FileMedium::open(path, &OpenOptions::default())
    };
    let (medium, partial) = Partial::begin(target, lock, FileMedium::file)?;
    Ok((Arc::new(medium), partial))
}

/// Takes the room of headers, key areas and log, so that a flush needs none for its record; where
/// the system can promise that.
fn reserve(file: &File, new: &NewVault<'_>) -> Result<(), VolumeError> {
    let end = byte_of(LOG_SLOT + u64::from(log_slots(new)));
    match fallocate(file, FallocateFlags::empty(), 0, end) {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(VolumeError::io("size the volume")(e.into())),
    }
}
