//! The device's configuration space and features (virtio 1.2, section 5.2.4).

use crate::Volume;

/// Length of the configuration space.
pub(super) const CONFIG_BYTES: usize = 60;

const SEG_MAX: u64 = 1 << 2;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
pub(super) const FLUSH: u64 = 1 << 9;
const TOPOLOGY: u64 = 1 << 10;
const MQ: u64 = 1 << 12;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;
const INDIRECT: u64 = 1 << 28;
pub(super) const EVENT_INDEX: u64 = 1 << 29;
/// Of vhost-user, not of virtio.
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;

/// Sectors, of 512 bytes, of one discard or write-zeroes: 1 GiB.
pub(super) const RANGE_SECTORS_MAX: u32 = 1 << 21;
/// Ranges of one discard or write-zeroes.
pub(super) const RANGES_MAX: usize = 16;
/// Data segments of one request.
const SEGMENTS_MAX: u32 = 126;

/// What we offer for `volume`.
pub(super) fn features(volume: &dyn Volume) -> u64 {
    let always = SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY | MQ | INDIRECT | EVENT_INDEX;
    let always = always | PROTOCOL_FEATURES | VERSION_1;
    if volume.read_only() { always | RO } else { always | DISCARD | WRITE_ZEROES }
}

/// The configuration space for `volume`.
pub(super) fn space(volume: &dyn Volume, queues: u16) -> [u8; CONFIG_BYTES] {
    let physical = volume.sector_size().max(512);
    let exponent = u8::try_from((physical / 512).ilog2()).unwrap_or(0);
    let mut out = Vec::with_capacity(CONFIG_BYTES);
    out.extend((volume.size() / 512).to_le_bytes());
    out.extend(0_u32.to_le_bytes()); // size_max
    out.extend(SEGMENTS_MAX.to_le_bytes());
    out.extend([0; 4]); // geometry
    out.extend(512_u32.to_le_bytes()); // logical block
    out.extend([exponent, 0]);
    out.extend(1_u16.to_le_bytes()); // least I/O, in blocks
    out.extend(0_u32.to_le_bytes()); // best I/O
    out.extend([0, 0]); // write cache: always there
    out.extend(queues.to_le_bytes());
    out.extend(RANGE_SECTORS_MAX.to_le_bytes());
    out.extend(u32::try_from(RANGES_MAX).unwrap_or(1).to_le_bytes());
    out.extend((physical / 512).to_le_bytes()); // discard alignment
    out.extend(RANGE_SECTORS_MAX.to_le_bytes());
    out.extend(u32::try_from(RANGES_MAX).unwrap_or(1).to_le_bytes());
    out.extend([1, 0, 0, 0]); // a clearing may unmap
    let mut space = [0; CONFIG_BYTES];
    for (to, from) in space.iter_mut().zip(out) {
        *to = from;
    }
    space
}
