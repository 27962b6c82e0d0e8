//! Session pages: how to open what older sessions sealed (`docs/formats/vault.md`).

use std::io;

use super::{
    bytes::{field, put, reserved, u32_at},
    engine::Engine,
    header::{SLOT_BYTES, SessionRecord},
    keyring::Keyring,
    medium::Medium,
    page::{read_unit, refused},
    refs::Ref,
    seal::Unit,
};
use crate::Rejection;

/// Entries of a page.
const ENTRIES: usize = 101;
const ENTRY_BYTES: usize = 40;
const FIRST_ENTRY: usize = 48;
/// Entries of the whole chain.
const LIMIT: usize = 1 << 20;

/// One page: the reference of the next, and its entries.
pub(crate) fn decode(
    bytes: &[u8],
    first_slot: u64,
) -> Result<(Ref, Vec<SessionRecord>), Rejection> {
    let next = Ref::decode(&field(bytes, 0)?, first_slot)?;
    let count = usize::try_from(u32_at(bytes, 32)?).unwrap_or(usize::MAX);
    if count > ENTRIES {
        return Err(Rejection::malformed("a session page with too many entries"));
    }
    reserved(bytes, 36, 12)?;
    let end = FIRST_ENTRY + count * ENTRY_BYTES;
    reserved(bytes, end, SLOT_BYTES.saturating_sub(end))?;
    let entry = |index: usize| {
        let at = FIRST_ENTRY + index * ENTRY_BYTES;
        Ok(SessionRecord {
            id: u32_at(bytes, at)?,
            epoch: u32_at(bytes, at + 4)?,
            salt: field(bytes, at + 8)?,
        })
    };
    let entries: Result<Vec<_>, Rejection> = (0..count).map(entry).collect();
    Ok((next, entries?))
}

fn encode(next: &Ref, entries: &[SessionRecord]) -> Vec<u8> {
    let mut out = vec![0; SLOT_BYTES];
    put(&mut out, 0, &next.encode());
    put(&mut out, 32, &u32::try_from(entries.len()).unwrap_or(0).to_le_bytes());
    for (index, entry) in entries.iter().enumerate() {
        let at = FIRST_ENTRY + index * ENTRY_BYTES;
        put(&mut out, at, &entry.id.to_le_bytes());
        put(&mut out, at + 4, &entry.epoch.to_le_bytes());
        put(&mut out, at + 8, &entry.salt);
    }
    out
}

/// What a chain holds.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Rising in their number.
    pub(crate) entries: Vec<SessionRecord>,
    /// The slots of its pages.
    pub(crate) slots: Vec<u64>,
}

/// Reads the chain that begins at `first` with a ring that has the current session.
///
/// # Errors
/// A [`Rejection`] in it, or the medium's error.
pub(crate) fn read(
    medium: &dyn Medium,
    ring: &Keyring,
    first: &Ref,
    first_slot: u64,
) -> io::Result<Chain> {
    let mut chain = Chain::default();
    let mut next = *first;
    let mut index = 0;
    while !next.is_null() {
        let bytes = read_unit(medium, ring, &next, Unit::Sessions(index))?;
        chain.slots.push(next.slot());
        let (following, entries) = decode(&bytes, first_slot).map_err(refused)?;
        chain.entries.extend(entries);
        if chain.entries.len() > LIMIT {
            return Err(refused(Rejection::malformed("too many sessions")));
        }
        next = following;
        index += 1;
    }
    if !chain.entries.is_sorted_by(|a, b| a.id < b.id)
        || chain.entries.first().is_some_and(|first| first.id == 0)
    {
        return Err(refused(Rejection::malformed("the order of the sessions")));
    }
    Ok(chain)
}

/// Seals and writes a chain of `entries` under the ring's current session; returns the reference of
/// its first page, and the slots of all.
///
/// # Errors
/// The medium's error, or `StorageFull`.
pub(crate) fn write(
    engine: &Engine,
    ring: &Keyring,
    entries: &[SessionRecord],
) -> io::Result<(Ref, Vec<u64>)> {
    let cipher_failed = |_| io::Error::other("the cipher failed");
    if entries.len() >= LIMIT {
        return Err(io::Error::other("too many sessions"));
    }
    let (mut next, mut taken) = (Ref::NULL, Vec::new());
    let parts: Vec<_> = (0_u64..).zip(entries.chunks(ENTRIES)).collect();
    for (index, part) in parts.into_iter().rev() {
        let mut bytes = encode(&next, part);
        let slot = engine.take_slots(None, 1)?.first().ok_or(io::ErrorKind::StorageFull)?.slot;
        let sequence = ring.take(1).map_err(cipher_failed)?;
        let name = ring.seal(sequence, Unit::Sessions(index), &mut bytes);
        next = name.map_err(cipher_failed)?.at(slot).map_err(refused)?;
        engine.write_slot(slot, &bytes)?;
        taken.push(slot);
    }
    Ok((next, taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_back_and_trash_behind_it_is_refused() {
        let entry = |id| SessionRecord { id, epoch: 1, salt: [3; 32] };
        let entries: Vec<_> = (1..=101).map(entry).collect();
        let next = Ref::sealed([1; 16], 5, 2).at(900).unwrap();
        let mut bytes = encode(&next, &entries);
        assert_eq!(decode(&bytes, 320).unwrap(), (next, entries));
        bytes[4088] = 1;
        assert!(decode(&bytes, 320).is_err());
    }
}
