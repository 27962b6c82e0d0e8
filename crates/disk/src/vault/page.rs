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
    move |error| match error.get_ref().and_then(|inner| inner.downcast_ref::<Rejection>()) {
        Some(rejection) => rejection.clone().into(),
        None => VolumeError::io(what)(error),
    }
}

/// The bytes of a page.
pub(crate) fn encode(refs: &[Ref; FAN]) -> Vec<u8> {
    refs.iter().flat_map(Ref::encode).collect()
}

/// Reads a page whose references must not point in front of `first_slot`.
///
/// # Errors
/// [`Rejection::MetadataMalformed`].
pub(crate) fn decode(bytes: &[u8], first_slot: u64) -> Result<Box<[Ref; FAN]>, Rejection> {
    let mut refs = Box::new([Ref::NULL; FAN]);
    let (chunks, rest) = bytes.as_chunks::<REF_BYTES>();
    if chunks.len() != FAN || !rest.is_empty() {
        return Err(Rejection::malformed("a page is not 128 references"));
    }
    for (place, chunk) in refs.iter_mut().zip(chunks) {
        *place = Ref::decode(chunk, first_slot)?;
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
        tracing::error!(volume.page = page, volume.slot = name.slot, "page damaged");
        refused(Rejection::PageDamaged)
    };
    match medium.read_at(byte_of(name.slot), &mut bytes) {
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
    first_slot: u64,
) -> io::Result<Box<[Ref; FAN]>> {
    let bytes = read_unit(medium, ring, name, Unit::Page(id.level, id.number))?;
    decode(&bytes, first_slot).map_err(refused)
}
