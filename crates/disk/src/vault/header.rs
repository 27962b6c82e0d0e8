//! The header: 4096 bytes that lead to everything else, authenticated as a whole
//! (`docs/formats/vault.md`, "Header"). Two copies; [`super::unlock`] chooses.
//!
//! ```text
//!   bytes -> decode: shape and limits -> Unverified -> verify: HMAC -> Header
//! ```
//!
//! **Invariant:** a [`Header`] that was read comes only out of [`Unverified::verify`].

use aws_lc_rs::hmac;

use super::{
    bytes::{Text, field, put, reserved, u16_at, u32_at, u64_at},
    kdf::HeaderKey,
    refs::Ref,
};
use crate::Rejection;

/// Length of a slot of the file, and of a header.
pub(crate) const SLOT_BYTES: usize = 4096;
/// The first bytes of a volume.
pub(crate) const MAGIC: [u8; 8] = *b"VSAFEVLT";
/// Slot where the log begins.
pub(crate) const LOG_SLOT: u64 = 256;
/// Fewest and most slots of the log.
pub(crate) const LOG_SLOTS: std::ops::RangeInclusive<u32> = 64..=16384;
/// Largest exported disk.
pub(crate) const SIZE_MAX: u64 = 8 << 40;
/// Slots lie below this one.
pub(crate) const SLOT_LIMIT: u64 = 1 << 32;

const VERSION: u16 = 1;
const MAC_AT: usize = 4064;
const FLAG_CLEAN: u8 = 1;
const FLAG_REKEYING: u8 = 2;

/// The cipher of sectors and pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D).
    #[default]
    Aes256Gcm,
    /// AEGIS-256X4 (draft-irtf-cfrg-aegis-aead): about twice as fast; not approved by FIPS.
    Aegis256X4,
}

impl Suite {
    /// The suite's number in the header.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::Aegis256X4 => 2,
        }
    }

    /// The suite's name, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Aegis256X4 => "aegis-256x4",
        }
    }

    fn from_code(code: u8) -> Result<Self, Rejection> {
        match code {
            1 => Ok(Self::Aes256Gcm),
            2 => Ok(Self::Aegis256X4),
            other => Err(Rejection::unsupported(format!("cipher suite {other}"))),
        }
    }
}

/// One of the two key areas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum KeyAreaSide {
    #[default]
    A,
    B,
}

impl KeyAreaSide {
    /// Byte of the file where it begins.
    pub(crate) const fn at(self) -> usize {
        match self {
            Self::A => 2 * SLOT_BYTES,
            Self::B => 10 * SLOT_BYTES,
        }
    }

    /// The one that is not in force.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn from_code(code: u8) -> Result<Self, Rejection> {
        match code {
            0 => Ok(Self::A),
            1 => Ok(Self::B),
            _ => Err(Rejection::malformed("key area")),
        }
    }
}

/// What one attachment for writing seals with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    /// From 1; 0 = none yet.
    pub(crate) id: u32,
    /// Epoch of the volume key that its key is derived from.
    pub(crate) epoch: u32,
    /// Random.
    pub(crate) salt: [u8; 32],
}

/// The volume key of the epoch before, sealed under the wrapping key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrappedKey {
    pub(crate) sealed: [u8; 32],
    pub(crate) tag: [u8; 16],
}

/// A header whose authenticity was checked, or that we made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) suite: Suite,
    pub(crate) depth: u8,
    pub(crate) key_area: KeyAreaSide,
    /// Detached in good order: the log is empty and all of it was checkpointed.
    pub(crate) clean: bool,
    pub(crate) uuid: [u8; 16],
    /// Size of the exported disk in bytes.
    pub(crate) size: u64,
    pub(crate) generation: u64,
    pub(crate) anchor_count: u64,
    pub(crate) log_slots: u32,
    pub(crate) epoch: u32,
    pub(crate) session: SessionRecord,
    pub(crate) next_sequence: u64,
    /// Number of the first log record that follows.
    pub(crate) log_number: u64,
    /// No used slot is at or behind this one.
    pub(crate) end: u64,
    pub(crate) root: Ref,
    pub(crate) sessions: Ref,
    pub(crate) snapshots: Ref,
    /// SHA-256 of the key area in force.
    pub(crate) key_area_digest: [u8; 32],
    pub(crate) chain_salt: [u8; 16],
    /// Level-1 pages that re-keying finished; a hint.
    pub(crate) rekeyed_pages: u32,
    /// Present while re-keying.
    pub(crate) old_key: Option<WrappedKey>,
    pub(crate) label: Text<64>,
}

/// A header of which nothing is known but its shape.
#[derive(Clone, Debug)]
pub(crate) struct Unverified {
    bytes: Box<[u8; SLOT_BYTES]>,
    header: Header,
}

impl Unverified {
    /// What it says, if it is true.
    pub(crate) const fn claims(&self) -> &Header {
        &self.header
    }

    /// The header, if its tag is right.
    ///
    /// # Errors
    /// [`Rejection::HeaderDamaged`] if it is not.
    pub(crate) fn verify(self, key: &HeaderKey) -> Result<Header, Rejection> {
        let (body, tag) = self.bytes.split_at_checked(MAC_AT).ok_or(Rejection::HeaderDamaged)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.0.expose());
        hmac::verify(&key, body, tag).map_err(|_| Rejection::HeaderDamaged)?;
        Ok(self.header)
    }
}

impl Header {
    /// First slot of data and pages.
    pub(crate) fn data_slot(&self) -> u64 {
        LOG_SLOT + u64::from(self.log_slots)
    }

    /// The header as bytes, with its tag.
    pub(crate) fn encode(&self, key: &HeaderKey) -> Box<[u8; SLOT_BYTES]> {
        let mut out = Box::new([0; SLOT_BYTES]);
        self.encode_fields(out.as_mut_slice());
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.0.expose());
        let tag = hmac::sign(&key, out.get(..MAC_AT).unwrap_or_default());
        put(out.as_mut_slice(), MAC_AT, tag.as_ref());
        out
    }

    fn encode_fields(&self, out: &mut [u8]) {
        let rekeying = if self.old_key.is_some() { FLAG_REKEYING } else { 0 };
        let clean = if self.clean { FLAG_CLEAN } else { 0 };
        let side = match self.key_area {
            KeyAreaSide::A => 0,
            KeyAreaSide::B => 1,
        };
        put(out, 0, &MAGIC);
        put(out, 8, &VERSION.to_le_bytes());
        put(out, 10, &[self.suite.code(), self.depth, side, clean | rekeying]);
        put(out, 16, &self.uuid);
        put(out, 32, &self.size.to_le_bytes());
        put(out, 40, &self.generation.to_le_bytes());
        put(out, 48, &self.anchor_count.to_le_bytes());
        put(out, 56, &self.log_slots.to_le_bytes());
        put(out, 60, &self.epoch.to_le_bytes());
        put(out, 64, &self.session.id.to_le_bytes());
        put(out, 68, &self.session.epoch.to_le_bytes());
        put(out, 72, &self.session.salt);
        put(out, 104, &self.next_sequence.to_le_bytes());
        put(out, 112, &self.log_number.to_le_bytes());
        put(out, 120, &self.end.to_le_bytes());
        put(out, 128, &self.root.encode());
        put(out, 160, &self.sessions.encode());
        put(out, 192, &self.snapshots.encode());
        put(out, 224, &self.key_area_digest);
        put(out, 256, &self.chain_salt);
        put(out, 272, &self.rekeyed_pages.to_le_bytes());
        if let Some(old) = &self.old_key {
            put(out, 288, &old.sealed);
            put(out, 320, &old.tag);
        }
        self.label.encode(out, 336);
    }

    /// Reads the shape of a header: magic, version, limits, reserved bytes.
    ///
    /// # Errors
    /// [`Rejection::NotVault`] for another magic, [`Rejection::Unsupported`] for another version or
    /// suite, [`Rejection::MetadataMalformed`] for impossible fields.
    pub(crate) fn decode(bytes: &[u8; SLOT_BYTES]) -> Result<Unverified, Rejection> {
        if field::<8>(bytes, 0)? != MAGIC {
            return Err(Rejection::NotVault);
        }
        let version = u16_at(bytes, 8)?;
        if version != VERSION {
            return Err(Rejection::unsupported(format!("version {version} of the vault format")));
        }
        let header = Self::decode_fields(bytes)?;
        header.check_limits()?;
        reserved(bytes, 14, 2)?;
        reserved(bytes, 276, 12)?;
        reserved(bytes, 400, MAC_AT - 400)?;
        Ok(Unverified { bytes: Box::new(*bytes), header })
    }

    fn decode_fields(bytes: &[u8; SLOT_BYTES]) -> Result<Self, Rejection> {
        let [suite, depth, side, flags] = field(bytes, 10)?;
        if flags & !(FLAG_CLEAN | FLAG_REKEYING) != 0 {
            return Err(Rejection::malformed("flags"));
        }
        let old_key = if flags & FLAG_REKEYING == 0 {
            reserved(bytes, 288, 48)?;
            None
        } else {
            Some(WrappedKey { sealed: field(bytes, 288)?, tag: field(bytes, 320)? })
        };
        let log_slots = u32_at(bytes, 56)?;
        let first = LOG_SLOT + u64::from(log_slots);
        let reference = |at| Ref::decode(&field(bytes, at)?, first);
        Ok(Self {
            suite: Suite::from_code(suite)?,
            depth,
            key_area: KeyAreaSide::from_code(side)?,
            clean: flags & FLAG_CLEAN != 0,
            uuid: field(bytes, 16)?,
            size: u64_at(bytes, 32)?,
            generation: u64_at(bytes, 40)?,
            anchor_count: u64_at(bytes, 48)?,
            log_slots,
            epoch: u32_at(bytes, 60)?,
            session: SessionRecord {
                id: u32_at(bytes, 64)?,
                epoch: u32_at(bytes, 68)?,
                salt: field(bytes, 72)?,
            },
            next_sequence: u64_at(bytes, 104)?,
            log_number: u64_at(bytes, 112)?,
            end: u64_at(bytes, 120)?,
            root: reference(128)?,
            sessions: reference(160)?,
            snapshots: reference(192)?,
            key_area_digest: field(bytes, 224)?,
            chain_salt: field(bytes, 256)?,
            rekeyed_pages: u32_at(bytes, 272)?,
            old_key,
            label: Text::decode(bytes, 336)?,
        })
    }

    fn check_limits(&self) -> Result<(), Rejection> {
        let malformed = |what: &str| Err(Rejection::malformed(what));
        if self.size == 0 || self.size > SIZE_MAX {
            return malformed("size");
        }
        if self.depth != depth_for(self.size) {
            return malformed("depth");
        }
        if !LOG_SLOTS.contains(&self.log_slots) {
            return malformed("length of the log");
        }
        if self.end < self.data_slot() || self.end > SLOT_LIMIT {
            return malformed("end");
        }
        if self.generation == 0 || self.epoch == 0 {
            return malformed("generation or epoch");
        }
        let old = self.old_key.map(|_| self.epoch.saturating_sub(1));
        let of_an_epoch = self.session.epoch == self.epoch || Some(self.session.epoch) == old;
        if self.session.id != 0 && (self.session.epoch == 0 || !of_an_epoch) {
            return malformed("epoch of the session");
        }
        if self.session.id == 0 && self.session != SessionRecord::default() {
            return malformed("session");
        }
        let roots = [&self.root, &self.sessions, &self.snapshots];
        let behind =
            |r: &&Ref| !r.is_null() && (r.slot() >= self.end || r.session > self.session.id);
        if roots.iter().any(behind) {
            return malformed("a root behind the end");
        }
        Ok(())
    }
}

/// The depth of the tree of a disk of `size` bytes: the smallest, at least 1, that reaches all
/// sectors.
pub(crate) const fn depth_for(size: u64) -> u8 {
    let sectors = size.div_ceil(4096);
    let mut depth = 1;
    let mut reach: u64 = 128;
    while reach < sectors {
        reach = reach.saturating_mul(128);
        depth += 1;
    }
    depth
}

#[cfg(test)]
mod tests;
