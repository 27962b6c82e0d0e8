//! Rows are read back as written, and damaged ones are errors.

mod before;
mod slices;

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::{
    compact,
    record::{
        Commit, Meta, decode_record, decode_version, encode_record, encode_version, parse_revision,
        parse_version_key, version_key,
    },
    rows::{Backing, Bounds, Table},
    txn,
};
use crate::{
    backend::StoreId,
    key::Key,
    memory::MemoryBacking,
    types::{Event, KeyValue, LeaseId, Op, Txn},
};

fn a_key() -> impl Strategy<Value = Key> {
    prop::collection::vec(0x21..=0x7e_u8, 1..20)
        .prop_map(|bytes| Key::new(String::from_utf8(bytes).unwrap()).unwrap())
}

fn an_entry() -> impl Strategy<Value = KeyValue> {
    let value = prop::collection::vec(any::<u8>(), 0..100);
    (a_key(), value, any::<[u64; 3]>(), prop::option::of(1..u64::MAX)).prop_map(
        |(key, value, [create_revision, mod_revision, version], lease)| KeyValue {
            key,
            value,
            create_revision,
            mod_revision,
            version,
            lease: lease.map(LeaseId),
        },
    )
}

fn an_event() -> impl Strategy<Value = Event> {
    prop_oneof![an_entry().prop_map(Event::Put), a_key().prop_map(Event::Delete)]
}

#[test]
fn compaction_leaves_no_row_that_cannot_be_read() {
    let backing = MemoryBacking::default();
    let key = |name: &str| Key::new(name).unwrap();
    backing
        .write(&mut |rows| {
            Meta::genesis(StoreId([0; 16])).save(rows)?;
            for op in [
                Op::put(key("a"), "1"),
                Op::put(key("a"), "2"),
                Op::put(key("b"), "1"),
                Op::Delete(key("b")),
                Op::put(key("c"), "1"),
                Op::Delete(key("c")),
            ] {
                txn::apply(rows, &Txn::new().then(op))?;
            }
            let state = compact::state_digest(rows, 5)?;
            compact::compact(rows, 5, state).map(drop)
        })
        .unwrap();
    let mut left = Vec::new();
    let mut changes = 0;
    backing
        .read(&mut |rows| {
            rows.scan(Table::Versions, &Bounds::all(), &mut |row, _| {
                let (key, revision) = parse_version_key(row)?;
                left.push((String::from_utf8(key.to_vec()).unwrap(), revision));
                Ok(ControlFlow::Continue(()))
            })?;
            rows.scan(Table::Changes, &Bounds::all(), &mut |_, _| {
                changes += 1;
                Ok(ControlFlow::Continue(()))
            })
        })
        .unwrap();
    let expected = [("c", 5), ("c", 6)].map(|(key, at)| (key.to_owned(), at));
    assert_eq!((left, changes), (expected.to_vec(), 2));
}

proptest! {
    #[test]
    fn rows_round_trip(entry in an_entry(), events in prop::collection::vec(an_event(), 0..5)) {
        let key = entry.key.as_bytes();
        prop_assert_eq!(&decode_record(key, &encode_record(&entry)).unwrap(), &entry);
        let version = encode_version(Some(&entry));
        prop_assert_eq!(decode_version(key, &version).unwrap(), Some(entry.clone()));
        prop_assert_eq!(decode_version(key, &encode_version(None)).unwrap(), None);
        let row = version_key(&entry.key, entry.mod_revision);
        prop_assert_eq!(parse_version_key(&row).unwrap(), (key, entry.mod_revision));
        let commit = Commit::Changes(events);
        prop_assert_eq!(Commit::decode(&commit.encode()).unwrap(), commit);
    }

    #[test]
    fn arbitrary_rows_never_panic(key in prop::collection::vec(any::<u8>(), 0..20), row in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_record(&key, &row);
        let _ = decode_version(&key, &row);
        let _ = parse_version_key(&key);
        let _ = parse_revision(&key);
        let _ = Commit::decode(&row);
    }

    /// Truncated and altered rows, which come closer to the real thing than arbitrary bytes.
    #[test]
    fn damaged_rows_never_panic(events in prop::collection::vec(an_event(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut row = Commit::Changes(events).encode();
        let index = at.index(row.len());
        let _ = Commit::decode(&row[..index]);
        row[index] = byte;
        let _ = Commit::decode(&row);
    }
}
