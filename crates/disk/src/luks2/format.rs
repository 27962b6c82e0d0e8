//! The header of a new volume. Every choice that the specification leaves open is made here and
//! told in `docs/formats/luks2.md`.

use std::collections::BTreeMap;

use model::{Kmi, Secret};

use super::{
    binary::{BINARY_BYTES, BinaryHeader, Copy},
    keyslot,
    metadata::{
        AntiForensic, Area, Base64, Config, CryptSegment, Kdf, KeyDigest, Keyslot, Luks2Keyslot,
        Metadata, Number, Segment,
    },
};
use crate::{
    Rejection, VolumeError,
    cipher::{KEY_BYTES, hash},
};

/// Length of one header copy.
const HDR_BYTES: u64 = 16 << 10;
/// Where the data begin.
pub(super) const DATA_AT: u64 = 16 << 20;
/// Encryption sector of the data.
pub(super) const SECTOR: u32 = 4096;
/// Where the first key slot's area begins: behind both header copies.
pub(super) const AREA_AT: u64 = 2 * HDR_BYTES;

const STRIPES: u32 = 4000;
const AREA_BYTES: u64 = 258_048;
const ITERATIONS: u32 = 1000;
const SALT_BYTES: usize = 32;

/// How the secret of a new key slot is stretched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// The secret is a random key of at least 128 bits: a token derivation, PBKDF2 with 1000
    /// iterations.
    RandomKey,
    /// The secret is a pass phrase: Argon2id with one lane.
    PassPhrase {
        /// Memory in KiB, at least 32.
        memory: u32,
        /// Passes over the memory, at least 1.
        passes: u32,
    },
}

/// A new header, in pieces that go to their places in the file.
#[derive(Debug)]
pub(super) struct Formatted {
    /// Both header copies, one behind the other, from the start of the file.
    pub(super) headers: Vec<u8>,
    /// The key slot's area, at [`AREA_AT`].
    pub(super) area: Vec<u8>,
    pub(super) uuid: String,
    pub(super) volume_key: Secret<Vec<u8>>,
}

/// Makes a header with one key slot for a fresh random volume key.
pub(super) fn format(
    secret: &[u8],
    kind: SlotKind,
    kmi: Option<&Kmi>,
    label: &str,
) -> Result<Formatted, VolumeError> {
    let volume_key = Secret::new(random(KEY_BYTES)?);
    let slot = new_slot(kind)?;
    let area = keyslot::seal(&slot, 0, secret, volume_key.expose())?;
    let metadata = Metadata {
        keyslots: BTreeMap::from([(0, Keyslot::Luks2(slot))]),
        tokens: match kmi {
            Some(kmi) => BTreeMap::from([(0, Metadata::kmi_token(kmi, 0)?)]),
            None => BTreeMap::new(),
        },
        segments: BTreeMap::from([(0, Segment::Crypt(new_segment()))]),
        digests: BTreeMap::from([(0, new_digest(volume_key.expose())?)]),
        config: Config {
            json_size: Number(HDR_BYTES.saturating_sub(
                u64::try_from(BINARY_BYTES).map_err(|_| Rejection::malformed("size"))?,
            )),
            keyslots_size: Number(DATA_AT.saturating_sub(AREA_AT)),
            requirements: None,
        },
    };
    let json = metadata.encode()?;
    let uuid = uuid_v4()?;
    let mut headers = new_header(Copy::Primary, label, &uuid)?.encode(Copy::Primary, &json)?;
    headers.extend(new_header(Copy::Secondary, label, &uuid)?.encode(Copy::Secondary, &json)?);
    Ok(Formatted { headers, area, uuid, volume_key })
}

fn new_header(copy: Copy, label: &str, uuid: &str) -> Result<BinaryHeader, VolumeError> {
    let mut salt = [0; 64];
    fill(&mut salt)?;
    Ok(BinaryHeader {
        hdr_size: HDR_BYTES,
        seqid: 1,
        hdr_offset: match copy {
            Copy::Primary => 0,
            Copy::Secondary => HDR_BYTES,
        },
        label: label.to_owned(),
        uuid: uuid.to_owned(),
        salt,
    })
}

fn new_slot(kind: SlotKind) -> Result<Luks2Keyslot, VolumeError> {
    let salt = Base64(random(SALT_BYTES)?);
    let kdf = match kind {
        SlotKind::RandomKey => {
            Kdf::Pbkdf2 { hash: "sha256".to_owned(), iterations: ITERATIONS, salt }
        }
        SlotKind::PassPhrase { memory, passes } => {
            Kdf::Argon2id { time: passes, memory, cpus: 1, salt }
        }
    };
    Ok(Luks2Keyslot {
        key_size: 64,
        priority: None,
        af: AntiForensic { kind: "luks1".to_owned(), stripes: STRIPES, hash: "sha256".to_owned() },
        area: Area {
            kind: "raw".to_owned(),
            offset: Number(AREA_AT),
            size: Number(AREA_BYTES),
            encryption: "aes-xts-plain64".to_owned(),
            key_size: 64,
        },
        kdf,
    })
}

fn new_segment() -> CryptSegment {
    CryptSegment {
        offset: Number(DATA_AT),
        size: "dynamic".to_owned(),
        iv_tweak: Number(0),
        encryption: "aes-xts-plain64".to_owned(),
        sector_size: SECTOR,
        integrity: None,
        flags: Vec::new(),
    }
}

fn new_digest(volume_key: &[u8]) -> Result<KeyDigest, VolumeError> {
    let salt = random(SALT_BYTES)?;
    let mut digest = vec![0; 32];
    hash::pbkdf2("sha256", ITERATIONS, &salt, volume_key, &mut digest)?;
    Ok(KeyDigest {
        kind: "pbkdf2".to_owned(),
        keyslots: vec![Number(0)],
        segments: vec![Number(0)],
        hash: "sha256".to_owned(),
        iterations: ITERATIONS,
        salt: Base64(salt),
        digest: Base64(digest),
    })
}

fn fill(out: &mut [u8]) -> Result<(), VolumeError> {
    aws_lc_rs::rand::fill(out).map_err(|_| VolumeError::Crypto { what: "make random bytes" })
}

fn random(length: usize) -> Result<Vec<u8>, VolumeError> {
    let mut out = vec![0; length];
    fill(&mut out)?;
    Ok(out)
}

/// A random UUID (RFC 9562, version 4) as text.
fn uuid_v4() -> Result<String, VolumeError> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    let value = u128::from_be_bytes(bytes);
    let value = value & !(0xf << 76) | 4 << 76;
    let value = value & !(0b11 << 62) | 0b10 << 62;
    let mut text = hex::encode(value.to_be_bytes());
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_its_version_and_variant() {
        let text = uuid_v4().unwrap();
        assert_eq!(text.len(), 36);
        assert_eq!(text.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&text.as_bytes()[19]));
        assert!([8, 13, 18, 23].iter().all(|&at| text.as_bytes()[at] == b'-'));
    }

    #[test]
    fn two_headers_share_no_key_and_no_salt() {
        let first = format(b"k", SlotKind::RandomKey, None, "").unwrap();
        let second = format(b"k", SlotKind::RandomKey, None, "").unwrap();
        assert_ne!(first.volume_key.expose(), second.volume_key.expose());
        assert_ne!(first.area, second.area);
        assert_ne!(first.uuid, second.uuid);
        assert_eq!(first.area.len(), 256_000);
    }
}
