//! A store of format 1 is read as what it is, and becomes one of format 2 with the first write.
//!
//! Format 1 had in `versions` a copy of each present record, at its own revision; all other rows were
//! as they are now. So one is made here from a store of today: the copies are added, and the format
//! in the meta row is 1.

use std::{ops::ControlFlow, path::Path};

use crate::{
    LocalStore, Store, StoreError,
    engine::{
        record::{decode_record, encode_version, version_key},
        rows::{Backing, Bounds, Table},
    },
    file::FileBacking,
    key::{Key, Prefix},
    types::{Op, Range, Txn},
    wait,
};

const META: &[u8] = b"meta";

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put(store: &LocalStore, name: &str, value: &str) {
    wait(store.txn(Txn::new().then(Op::put(key(name), value)))).unwrap();
}

/// What was live at `at`.
fn seen(store: &LocalStore, at: u64) -> Vec<(String, Vec<u8>, u64)> {
    let range = Range::prefix(Prefix::new("k/").unwrap()).at(at);
    let entries = wait(store.range(range)).unwrap().entries.into_iter();
    entries.map(|entry| (entry.key.to_string(), entry.value, entry.mod_revision)).collect()
}

fn rows(path: &Path, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    FileBacking::open(path)
        .unwrap()
        .read(&mut |rows| {
            rows.scan(table, &Bounds::all(), &mut |key, row| {
                all.push((key.to_vec(), row.to_vec()));
                Ok(ControlFlow::Continue(()))
            })
        })
        .unwrap();
    all
}

/// Makes the store in `path` one of format `format`, with the copies that format 1 had.
fn made(path: &Path, format: u8) {
    let current = rows(path, Table::Current);
    let mut meta = rows(path, Table::Meta).remove(0).1;
    meta[0] = format;
    FileBacking::open(path)
        .unwrap()
        .write(&mut |rows| {
            for (key, row) in &current {
                let entry = decode_record(key, row)?;
                let place = version_key(&entry.key, entry.mod_revision);
                rows.put(Table::Versions, &place, &encode_version(Some(&entry)))?;
            }
            rows.put(Table::Meta, META, &meta)
        })
        .unwrap();
}

#[test]
fn a_store_of_format_1_is_read_written_and_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = LocalStore::open(&path).unwrap();
    for (name, value) in [("k/a", "1"), ("k/b", "1"), ("k/c", "1"), ("k/a", "2")] {
        put(&store, name, value);
    }
    wait(store.compact(3)).unwrap();
    wait(store.txn(Txn::new().then(Op::Delete(key("k/b"))))).unwrap();
    for (name, value) in [("k/d", "1"), ("k/b", "2"), ("k/c", "2")] {
        put(&store, name, value);
    }
    let state = wait(store.state()).unwrap();
    let history: Vec<_> = (3..=state.revision).map(|at| seen(&store, at)).collect();
    wait(store.close()).unwrap();
    drop(store);
    let of_today = rows(&path, Table::Versions).len();
    made(&path, 1);
    assert_eq!(rows(&path, Table::Versions).len(), of_today + 4, "four present records");

    let store = LocalStore::open(&path).unwrap();
    assert_eq!(wait(store.state()).unwrap(), state);
    let read: Vec<_> = (3..=state.revision).map(|at| seen(&store, at)).collect();
    assert_eq!(read, history);
    wait(store.scrub()).unwrap();
    wait(store.close()).unwrap();
    drop(store);
    assert_eq!(rows(&path, Table::Meta)[0].1[0], 1, "reading changes nothing");

    let store = LocalStore::open(&path).unwrap();
    put(&store, "k/a", "3");
    wait(store.scrub()).unwrap();
    let last = wait(store.state()).unwrap().revision;
    let now = seen(&store, last);
    wait(store.compact(last)).unwrap();
    wait(store.scrub()).unwrap();
    assert_eq!(seen(&store, last), now);
    wait(store.close()).unwrap();
    drop(store);
    assert_eq!(rows(&path, Table::Meta)[0].1[0], 2, "the first write makes it format 2");
    assert!(rows(&path, Table::Versions).is_empty(), "the copies are gone");
}

#[test]
fn a_store_of_a_format_to_come_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(LocalStore::open(&path).unwrap());
    made(&path, 3);
    assert!(matches!(LocalStore::open(&path), Err(StoreError::Format { found: 3 })));
}
