//! Pages of the tree as bytes: 128 references, sealed like a sector.

use std::io;

use super::{
    header::SLOT_BYTES,
    keyring::Keyring,
    medium::Medium,
    node::{FAN, NodeId},
    refs::{REF_BYTES, Ref},
    seal::Unit,
};
use crate::{Rejection, VolumeError};

/// Byte of the file where `slot` begins.
pub(crate) const fn byte_of(slot: u64) -> u64 {
    slot.saturating_mul(SLOT_BYTES as u64)
}

/// A refusal on the data path, where errors are the system's.
pub(crate) fn refused(why: Rejection) -> io::Error {
    io::Error::other(why)
}

/// The refusal inside an error of the data path, or the error.
pub(crate) fn volume_error(what: &'static str) -> impl FnOnce(io::Error) -> VolumeError {
    move |error| match Rejection::inside(&error) {
        Some(rejection) => rejection.clone().into(),
        None => VolumeError::io(what)(error),
    }
}

/// The bytes of a page.
pub(crate) fn encode(refs: &[Ref; FAN]) -> Vec<u8> {
    refs.iter().flat_map(Ref::encode).collect()
}

/// What the references of a tree's pages must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// First slot of data.
    pub(crate) first_slot: u64,
    /// Nothing is at or behind this slot.
    pub(crate) end: u64,
    /// Length of the disk in sectors; references behind it are null.
    pub(crate) sectors: u64,
}

impl Bounds {
    /// Whether a reference of the page `id` at `index` may be there.
    fn allow(&self, id: NodeId, index: usize, name: &Ref) -> Result<(), Rejection> {
        if name.is_null() {
            return Ok(());
        }
        if name.slot() >= self.end {
            return Err(Rejection::malformed("a reference behind the end"));
        }
        if id.child(index).first_sector() >= self.sectors {
            return Err(Rejection::malformed("a reference behind the disk's end"));
        }
        Ok(())
    }
}

/// Reads the page `id`.
///
/// # Errors
/// [`Rejection::MetadataMalformed`], also if a reference is out of `bounds`.
pub(crate) fn decode(
    bytes: &[u8],
    id: NodeId,
    bounds: &Bounds,
) -> Result<Box<[Ref; FAN]>, Rejection> {
    let mut refs = Box::new([Ref::NULL; FAN]);
    let (chunks, rest) = bytes.as_chunks::<REF_BYTES>();
    if chunks.len() != FAN || !rest.is_empty() {
        return Err(Rejection::malformed("a page is not 128 references"));
    }
    for (index, (place, chunk)) in refs.iter_mut().zip(chunks).enumerate() {
        *place = Ref::decode(chunk, bounds.first_slot)?;
        bounds.allow(id, index, place)?;
    }
    Ok(refs)
}

/// Reads and opens the sealed unit of one slot that `name` names.
///
/// # Errors
/// [`Rejection::PageDamaged`] in it if the unit is not authentic, or the medium's error.
pub(crate) fn read_unit(
    medium: &dyn Medium,
    ring: &Keyring,
    name: &Ref,
    unit: Unit,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SLOT_BYTES];
    let damaged = || {
        let page = match unit {
            Unit::Page(level, number) => format!("page {number} of level {level}"),
            Unit::Sessions(number) => format!("session page {number}"),
            Unit::Snapshots => "the snapshot page".to_owned(),
            Unit::Sector(number) => format!("sector {number}"),
            Unit::Record(number) => format!("log record {number}"),
        };
        tracing::error!(volume.page = page, volume.slot = name.slot(), "page damaged");
        refused(Rejection::PageDamaged)
    };
    match medium.read_at(byte_of(name.slot()), &mut bytes) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged()),
        Err(e) => return Err(e),
    }
    ring.open(name, unit, &mut bytes).map_err(|_| damaged())?;
    Ok(bytes)
}

/// Reads a page of the tree.
///
/// # Errors
/// As for [`read_unit`], and [`Rejection::MetadataMalformed`].
pub(crate) fn read(
    medium: &dyn Medium,
    ring: &Keyring,
    name: &Ref,
    id: NodeId,
    bounds: &Bounds,
) -> io::Result<Box<[Ref; FAN]>> {
    let bytes = read_unit(medium, ring, name, Unit::Page(id.level, id.number))?;
    decode(&bytes, id, bounds).map_err(refused)
}
