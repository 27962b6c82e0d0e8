//! Doors for the fuzz targets: the decoders of what normally only a right tag lets through.

use super::{
    header::{LOG_SLOT, LOG_SLOTS, SLOT_LIMIT},
    inspect::{Inspection, inspect_start},
    log,
    node::NodeId,
    page, sessions, snapshots,
    unlock::START_BYTES,
};
use crate::Rejection;

/// Headers and key areas, as [`inspect`](super::inspect()) reads them.
///
/// # Errors
/// As for [`inspect`](super::inspect()).
pub fn start(bytes: &[u8]) -> Result<Inspection, Rejection> {
    let mut start = vec![0; START_BYTES];
    for (to, from) in start.iter_mut().zip(bytes) {
        *to = *from;
    }
    let start: Box<[u8; START_BYTES]> =
        start.into_boxed_slice().try_into().map_err(|_| Rejection::Truncated)?;
    inspect_start(&start)
}

/// The body of one sealed unit; the first byte says of which kind.
///
/// # Errors
/// [`Rejection::MetadataMalformed`].
pub fn body(bytes: &[u8]) -> Result<(), Rejection> {
    let Some((kind, bytes)) = bytes.split_first() else { return Ok(()) };
    let data_slot = LOG_SLOT + u64::from(*LOG_SLOTS.start());
    match kind {
        0 => {
            let bounds = page::Bounds { first_slot: data_slot, end: SLOT_LIMIT, sectors: 100 };
            page::decode(bytes, NodeId { level: 1, number: 0 }, &bounds).map(|_| ())
        }
        1 => sessions::decode(bytes, data_slot).map(|_| ()),
        2 => snapshots::decode(bytes, data_slot).map(|_| ()),
        3 => {
            let _ = log::RecordHead::decode(bytes);
            Ok(())
        }
        _ => log::decode_body(bytes, data_slot, 1 << 20).map(|_| ()),
    }
}
