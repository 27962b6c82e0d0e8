//! The file of a host's virtual counters, as bytes (`docs/formats/host-anchor.md`).

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use aws_lc_rs::hmac;
use model::{Digest, Secret};

use super::merkle;
use crate::{Rejection, VolumeError};

/// The first bytes of the file.
const MAGIC: [u8; 8] = *b"VSAFEHST";
const VERSION: u64 = 1;
/// Magic, version, count, number of records, root.
const HEAD_BYTES: usize = 64;
const RECORD_BYTES: usize = 56;
const MAC_BYTES: usize = 32;
/// Most volumes of a host.
const VOLUMES_MAX: usize = 65536;
const BYTES_MAX: usize = HEAD_BYTES + VOLUMES_MAX * RECORD_BYTES + MAC_BYTES;

/// What is recorded of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its virtual counter.
    pub count: u64,
    /// SHA-256 of the header that was in force at the last advance; zeros if nobody said.
    pub head: [u8; 32],
}

/// The content of the file.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) count: u64,
    pub(super) volumes: BTreeMap<[u8; 16], VolumeRecord>,
}

/// A record as it lies in the file and as the tree hashes it.
pub(super) fn record_bytes(volume: &[u8; 16], record: &VolumeRecord) -> Vec<u8> {
    [volume.as_slice(), &record.count.to_le_bytes(), &record.head].concat()
}

/// The file.
pub(super) fn encode(
    count: u64,
    root: &Digest,
    volumes: &BTreeMap<[u8; 16], VolumeRecord>,
    key: &Secret<[u8; 32]>,
) -> Vec<u8> {
    let total = u64::try_from(volumes.len()).unwrap_or(u64::MAX);
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(total.to_le_bytes());
    out.extend(root.as_bytes());
    for (volume, record) in volumes {
        out.extend(record_bytes(volume, record));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let tag = hmac::sign(&key, &out);
    out.extend(tag.as_ref());
    out
}

/// Reads the file at `path`.
pub(super) fn read(path: &Path, key: &Secret<[u8; 32]>) -> Result<Records, VolumeError> {
    let file = File::open(path).map_err(VolumeError::io("open the host's anchor file"))?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(VolumeError::io("read the host's anchor file"))?;
    Ok(decode(&bytes, key).ok_or(Rejection::AnchorDamaged)?)
}

/// The content, if it is authentic and makes sense.
fn decode(bytes: &[u8], key: &Secret<[u8; 32]>) -> Option<Records> {
    let (body, tag) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    hmac::verify(&key, body, tag).ok()?;
    let (head, rest) = body.split_at_checked(HEAD_BYTES)?;
    let number = |at: usize| {
        head.get(at..).and_then(|rest| rest.first_chunk::<8>()).copied().map(u64::from_le_bytes)
    };
    let (chunks, tail) = rest.as_chunks::<RECORD_BYTES>();
    let whole = tail.is_empty() && number(24) == u64::try_from(chunks.len()).ok();
    if !whole || !head.starts_with(&MAGIC) || number(8) != Some(VERSION) {
        return None;
    }
    let leaves: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.to_vec()).collect();
    if head.get(32..) != Some(merkle::root(&leaves).as_bytes()) {
        return None;
    }
    let records: Option<Vec<_>> = chunks.iter().map(record).collect();
    let records = records?;
    let sorted = records.is_sorted_by(|a, b| a.0 < b.0);
    sorted.then_some(Records { count: number(16)?, volumes: records.into_iter().collect() })
}

fn record(bytes: &[u8; RECORD_BYTES]) -> Option<([u8; 16], VolumeRecord)> {
    let (volume, rest) = bytes.split_first_chunk::<16>()?;
    let (count, head) = rest.split_first_chunk::<8>()?;
    let record = VolumeRecord { count: u64::from_le_bytes(*count), head: head.try_into().ok()? };
    Some((*volume, record))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Secret<[u8; 32]> {
        Secret::new([4; 32])
    }

    fn encoded(total: u8) -> (Vec<u8>, BTreeMap<[u8; 16], VolumeRecord>) {
        let volumes: BTreeMap<_, _> = (0..total)
            .map(|i| ([i; 16], VolumeRecord { count: u64::from(i) * 3, head: [i; 32] }))
            .collect();
        let leaves: Vec<_> = volumes.iter().map(|(v, r)| record_bytes(v, r)).collect();
        (encode(77, &merkle::root(&leaves), &volumes, &key()), volumes)
    }

    #[test]
    fn the_file_round_trips() {
        for total in [0, 1, 2, 9] {
            let (bytes, volumes) = encoded(total);
            let read = decode(&bytes, &key()).unwrap();
            assert_eq!((read.count, read.volumes), (77, volumes));
            assert!(decode(&bytes, &Secret::new([5; 32])).is_none());
        }
    }

    proptest! {
        #[test]
        fn a_changed_or_cut_file_is_refused(at in 0..624_usize, bit in 0..8_u8, cut in any::<bool>()) {
            let (mut bytes, _) = encoded(9);
            let at = at % bytes.len();
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1_u8 << bit;
            }
            prop_assert!(decode(&bytes, &key()).is_none());
        }
    }
}
