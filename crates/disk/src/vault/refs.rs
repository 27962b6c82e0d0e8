//! References: 32 bytes that name a sealed unit (`docs/formats/vault.md`, "References").

use super::bytes::{field, put, u32_at};
use crate::Rejection;

/// Length of a reference.
pub(crate) const REF_BYTES: usize = 32;

/// Where a sealed unit is and what opens it. In memory it is no longer than in the file: a disk has
/// many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ref {
    /// Authentication tag.
    pub(crate) tag: [u8; 16],
    /// Sequence number, 48 bits.
    pub(crate) sequence: u64,
    /// Slot of the file, of 48 bits there; below [`SLOT_LIMIT`](super::header::SLOT_LIMIT) by rule.
    slot: u32,
    /// Session that sealed it; 0 only in the null reference.
    pub(crate) session: u32,
}

const _: () = assert!(size_of::<Ref>() == REF_BYTES);

impl Ref {
    /// Below it everything is zeros.
    pub(crate) const NULL: Self = Self { tag: [0; 16], sequence: 0, slot: 0, session: 0 };

    /// What was sealed; it is nowhere yet.
    pub(crate) const fn sealed(tag: [u8; 16], sequence: u64, session: u32) -> Self {
        Self { tag, sequence, slot: 0, session }
    }

    /// The same at `slot`.
    ///
    /// # Errors
    /// [`Rejection::MetadataMalformed`] if no volume has such a slot.
    pub(crate) fn at(self, slot: u64) -> Result<Self, Rejection> {
        let slot = u32::try_from(slot).map_err(|_| Rejection::malformed("a slot too far"))?;
        Ok(Self { slot, ..self })
    }

    /// Slot of the file.
    pub(crate) const fn slot(&self) -> u64 {
        self.slot as u64
    }

    /// Whether it names nothing.
    pub(crate) const fn is_null(&self) -> bool {
        self.session == 0
    }

    /// The reference as bytes.
    pub(crate) fn encode(&self) -> [u8; REF_BYTES] {
        let mut out = [0; REF_BYTES];
        put(&mut out, 0, &self.tag);
        put(&mut out, 16, &self.slot().to_le_bytes());
        put(&mut out, 22, &self.sequence.to_le_bytes());
        put(&mut out, 28, &self.session.to_le_bytes());
        out
    }

    /// Reads a reference whose slot must be `first_slot` or later.
    pub(crate) fn decode(bytes: &[u8; REF_BYTES], first_slot: u64) -> Result<Self, Rejection> {
        let session = u32_at(bytes, 28)?;
        if session == 0 {
            return if bytes == &[0; REF_BYTES] {
                Ok(Self::NULL)
            } else {
                Err(Rejection::malformed("a reference without a session"))
            };
        }
        let slot = u48(field(bytes, 16)?);
        if slot < first_slot {
            return Err(Rejection::malformed("a reference in front of the data"));
        }
        Self::sealed(field(bytes, 0)?, u48(field(bytes, 22)?), session).at(slot)
    }
}

const fn u48(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}
