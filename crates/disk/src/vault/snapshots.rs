//! Snapshots: roots of the tree that are kept (`docs/formats/vault.md`, "Snapshot page").

use std::io;

use super::{
    bytes::{Text, field, put, reserved, u32_at, u64_at},
    header::{SLOT_BYTES, depth_for},
    keyring::Keyring,
    medium::Medium,
    page::{read_unit, refused},
    refs::Ref,
    seal::Unit,
};
use crate::Rejection;

/// Entries of the page.
pub(crate) const LIMIT: usize = 28;
const FIRST_ENTRY: usize = 16;
const ENTRY_BYTES: usize = 144;

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Text<64>,
    pub(crate) root: Ref,
    pub(crate) size: u64,
    /// Everything live then was sealed below this sequence number.
    pub(crate) barrier: u64,
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) depth: u8,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name, unique in the volume.
    pub name: String,
    /// Size of the disk then, in bytes.
    pub size: u64,
    /// When it was made, in seconds since 1970, as its maker said.
    pub time: u64,
}

impl Entry {
    pub(crate) fn public(&self) -> Snapshot {
        Snapshot { name: self.name.as_str().to_owned(), size: self.size, time: self.time }
    }
}

/// The entries of an authentic page.
///
/// # Errors
/// [`Rejection::MetadataMalformed`].
pub(crate) fn decode(bytes: &[u8], first_slot: u64) -> Result<Vec<Entry>, Rejection> {
    let count = usize::try_from(u32_at(bytes, 0)?).unwrap_or(usize::MAX);
    if count > LIMIT {
        return Err(Rejection::malformed("too many snapshots"));
    }
    reserved(bytes, 4, 12)?;
    let end = FIRST_ENTRY + count * ENTRY_BYTES;
    reserved(bytes, end, SLOT_BYTES.saturating_sub(end))?;
    let mut entries: Vec<Entry> = Vec::new();
    for index in 0..count {
        let entry = decode_entry(bytes, FIRST_ENTRY + index * ENTRY_BYTES, first_slot)?;
        if entries.iter().any(|other| other.name == entry.name) {
            return Err(Rejection::malformed("two snapshots of one name"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_entry(bytes: &[u8], at: usize, first_slot: u64) -> Result<Entry, Rejection> {
    let [depth] = field(bytes, at + 120)?;
    reserved(bytes, at + 121, 23)?;
    let entry = Entry {
        name: Text::decode(bytes, at)?,
        root: Ref::decode(&field(bytes, at + 64)?, first_slot)?,
        size: u64_at(bytes, at + 96)?,
        barrier: u64_at(bytes, at + 104)?,
        time: u64_at(bytes, at + 112)?,
        depth,
    };
    if entry.name.as_str().is_empty() || entry.size == 0 || depth != depth_for(entry.size) {
        return Err(Rejection::malformed("a snapshot"));
    }
    Ok(entry)
}

/// The page of `entries`, [`LIMIT`] at most.
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = vec![0; SLOT_BYTES];
    put(&mut out, 0, &u32::try_from(entries.len()).unwrap_or(0).to_le_bytes());
    for (index, entry) in entries.iter().enumerate() {
        let at = FIRST_ENTRY + index * ENTRY_BYTES;
        entry.name.encode(&mut out, at);
        put(&mut out, at + 64, &entry.root.encode());
        put(&mut out, at + 96, &entry.size.to_le_bytes());
        put(&mut out, at + 104, &entry.barrier.to_le_bytes());
        put(&mut out, at + 112, &entry.time.to_le_bytes());
        put(&mut out, at + 120, &[entry.depth]);
    }
    out
}

/// Reads the page that `name` names.
///
/// # Errors
/// A [`Rejection`] in it, or the medium's error.
pub(crate) fn read(
    medium: &dyn Medium,
    ring: &Keyring,
    name: &Ref,
    first_slot: u64,
) -> io::Result<Vec<Entry>> {
    if name.is_null() {
        return Ok(Vec::new());
    }
    let bytes = read_unit(medium, ring, name, Unit::Snapshots)?;
    decode(&bytes, first_slot).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_comes_back_and_two_of_one_name_are_refused() {
        let entry = |name: &str| Entry {
            name: Text::new(name).unwrap(),
            root: Ref::sealed([1; 16], 5, 2).at(900).unwrap(),
            size: 1 << 30,
            barrier: 77,
            time: 1_700_000_000,
            depth: depth_for(1 << 30),
        };
        let entries = vec![entry("a"), entry("b")];
        assert_eq!(decode(&encode(&entries), 320).unwrap(), entries);
        assert!(decode(&encode(&[entry("a"), entry("a")]), 320).is_err());
        assert!(decode(&encode(&[entry("")]), 320).is_err());
    }
}
