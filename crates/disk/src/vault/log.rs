//! Records of the log as bytes (`docs/formats/vault.md`, "Log"). Pure.
//!
//! **Invariant:** a body is decoded only after its tag was checked, and still with limits.

use super::{
    bytes::{field, put, reserved, u32_at, u64_at},
    header::SLOT_BYTES,
    node::FAN,
    refs::{REF_BYTES, Ref},
    seal::Unit,
};
use crate::Rejection;

const MAGIC: [u8; 8] = *b"VSAFELOG";
/// Length of a record's head with its tag.
pub(crate) const HEAD_BYTES: usize = 64;
/// Bytes of the head that are associated data.
const ABOUT_HEAD: usize = 48;
const ITEM_BYTES: usize = 16;
const KIND_REFS: u32 = 1;
const KIND_NULL: u32 = 2;

/// What stands in front of a record's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) number: u64,
    /// Generation of the header that it follows.
    pub(crate) generation: u64,
    /// Length of the body, a multiple of 16, not 0.
    pub(crate) length: u32,
    pub(crate) session: u32,
    pub(crate) sequence: u64,
}

impl RecordHead {
    /// The 48 bytes in front of the tag.
    pub(crate) fn encode(&self) -> [u8; ABOUT_HEAD] {
        let mut out = [0; ABOUT_HEAD];
        put(&mut out, 0, &MAGIC);
        put(&mut out, 8, &self.number.to_le_bytes());
        put(&mut out, 16, &self.generation.to_le_bytes());
        put(&mut out, 24, &self.length.to_le_bytes());
        put(&mut out, 28, &self.session.to_le_bytes());
        put(&mut out, 32, &self.sequence.to_le_bytes());
        put(&mut out, 38, &[0; 10]);
        out
    }

    /// A head and its tag, if `bytes` begin with one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, [u8; 16])> {
        let head = Self::decode_checked(bytes).ok()??;
        Some((head, field(bytes, ABOUT_HEAD).ok()?))
    }

    fn decode_checked(bytes: &[u8]) -> Result<Option<Self>, Rejection> {
        if field::<8>(bytes, 0)? != MAGIC {
            return Ok(None);
        }
        reserved(bytes, 38, 10)?;
        let length = u32_at(bytes, 24)?;
        if length == 0 || !length.is_multiple_of(16) {
            return Ok(None);
        }
        Ok(Some(Self {
            number: u64_at(bytes, 8)?,
            generation: u64_at(bytes, 16)?,
            length,
            session: u32_at(bytes, 28)?,
            sequence: u64_at(bytes, 32)? & 0xffff_ffff_ffff,
        }))
    }

    /// Slots that the whole record takes.
    pub(crate) const fn slots(&self) -> u64 {
        slots_for(self.length as u64)
    }

    /// All of the record's associated data; `chain` is the tag before it, or the chain salt.
    pub(crate) fn about(&self, uuid: &[u8; 16], chain: &[u8; 16]) -> Vec<u8> {
        let place = Unit::Record(self.number).place(uuid);
        [place.as_slice(), &self.encode(), chain].concat()
    }
}

/// Slots that a record with a body of `length` bytes takes.
pub(crate) const fn slots_for(length: u64) -> u64 {
    length.saturating_add(HEAD_BYTES as u64).div_ceil(SLOT_BYTES as u64)
}

/// Sectors that got new references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// One reference a sector, from this sector on.
    Refs(u64, Vec<Ref>),
    /// This many sectors from this one on are null.
    Null(u64, u32),
}

/// Adds the references of one page whose bits are set to a body.
pub(crate) fn encode_page(body: &mut Vec<u8>, first: u64, refs: &[Ref; FAN], bits: u128) {
    let wanted = |at: usize| at < FAN && bits >> at & 1 == 1;
    let null = |at: usize| refs.get(at).is_none_or(Ref::is_null);
    let mut at = 0;
    while at < FAN {
        if !wanted(at) {
            at += 1;
            continue;
        }
        let begin = at;
        let kind = null(begin);
        while wanted(at) && null(at) == kind {
            at += 1;
        }
        let sector = first.saturating_add(u64::try_from(begin).unwrap_or(0));
        let count = u32::try_from(at - begin).unwrap_or(0);
        body.extend(sector.to_le_bytes());
        body.extend(count.to_le_bytes());
        body.extend(if kind { KIND_NULL } else { KIND_REFS }.to_le_bytes());
        if !kind {
            let run = refs.get(begin..at).unwrap_or_default();
            run.iter().for_each(|name| body.extend(name.encode()));
        }
    }
}

/// Ends a body: at least 16 bytes, a multiple of 16. Items are multiples of 16, so only an empty
/// body needs padding.
pub(crate) fn finish_body(body: &mut Vec<u8>) {
    if body.is_empty() {
        body.resize(ITEM_BYTES, 0);
    }
}

/// The items of an authentic body. `first_slot` is the first one of data, `sectors` the disk's
/// length.
///
/// # Errors
/// [`Rejection::MetadataMalformed`].
pub(crate) fn decode_body(
    body: &[u8],
    first_slot: u64,
    sectors: u64,
) -> Result<Vec<Item>, Rejection> {
    let mut items = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (first, count, kind) = (u64_at(rest, 0)?, u32_at(rest, 8)?, u32_at(rest, 12)?);
        let after = rest.get(ITEM_BYTES..).unwrap_or_default();
        if count == 0 {
            reserved(rest, 0, rest.len())?;
            break;
        }
        if first.checked_add(u64::from(count)).is_none_or(|end| end > sectors) {
            return Err(Rejection::malformed("a log record of sectors behind the end"));
        }
        rest = match kind {
            KIND_NULL => {
                items.push(Item::Null(first, count));
                after
            }
            KIND_REFS => {
                let length = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(REF_BYTES);
                let (bytes, after) = after
                    .split_at_checked(length)
                    .ok_or_else(|| Rejection::malformed("a log record that is too short"))?;
                let names = bytes.as_chunks::<REF_BYTES>().0.iter();
                let names: Result<Vec<_>, _> =
                    names.map(|name| Ref::decode(name, first_slot)).collect();
                items.push(Item::Refs(first, names?));
                after
            }
            _ => return Err(Rejection::malformed("kind of a log item")),
        };
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> Ref {
        Ref::sealed([9; 16], n, 1).at(400 + n).unwrap()
    }

    #[test]
    fn a_page_s_changes_come_back() {
        let mut refs = [Ref::NULL; FAN];
        refs[3] = name(3);
        refs[4] = name(4);
        refs[127] = name(5);
        let mut body = Vec::new();
        encode_page(&mut body, 256, &refs, 0b11_1110 | 1 << 127);
        finish_body(&mut body);
        let items = decode_body(&body, 320, 1000).unwrap();
        let expected = vec![
            Item::Null(257, 2),
            Item::Refs(259, vec![name(3), name(4)]),
            Item::Null(261, 1),
            Item::Refs(383, vec![name(5)]),
        ];
        assert_eq!(items, expected);
        assert!(decode_body(&body, 320, 300).is_err());
        assert!(decode_body(&body, 404, 1000).is_err());
        assert!(decode_body(&body[..body.len() - 16], 320, 1000).is_err());
    }

    #[test]
    fn an_empty_body_has_no_items() {
        let mut body = Vec::new();
        finish_body(&mut body);
        assert_eq!(decode_body(&body, 320, 1000).unwrap(), vec![]);
    }

    #[test]
    fn a_head_comes_back_and_noise_is_none() {
        let head = RecordHead { number: 4, generation: 2, length: 4048, session: 7, sequence: 99 };
        let mut bytes = head.encode().to_vec();
        bytes.extend([5; 16]);
        assert_eq!(RecordHead::decode(&bytes), Some((head, [5; 16])));
        assert_eq!(head.slots(), 2);
        bytes[40] = 1;
        assert_eq!(RecordHead::decode(&bytes), None);
        assert_eq!(RecordHead::decode(&[0; 64]), None);
        assert_eq!(RecordHead::decode(&bytes[..20]), None);
    }
}
