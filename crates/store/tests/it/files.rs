//! The store's file: locked, private, damaged, altered.

use std::{fs, os::unix::fs::PermissionsExt};

use store::{Key, LocalStore, Op, Prefix, Range, Store, StoreError, Txn};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[tokio::test]
async fn a_second_opening_is_refused_until_the_first_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = LocalStore::open(&path).unwrap();
    store.txn(Txn::put(key("a"), "1")).await.unwrap();
    let error = LocalStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains("open in another process"), "{error}");
    store.close().await.unwrap();
    let again = LocalStore::open(&path).unwrap();
    assert_eq!(again.get(&key("a")).await.unwrap().unwrap().value, b"1");
}

#[tokio::test]
async fn a_reopened_store_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = LocalStore::open(&path).unwrap();
    let lease = store.lease_grant(100, 0).await.unwrap();
    let op = Op::Put { key: key("a"), value: vec![1], lease: Some(lease.id) };
    store.txn(Txn::new().then(op)).await.unwrap();
    let before = store.state().await.unwrap();
    drop(store);
    let store = LocalStore::open(&path).unwrap();
    assert_eq!(store.state().await.unwrap(), before);
    assert_eq!(store.scrub().await.unwrap(), before);
    assert_eq!(store.lease_expire(100).await.unwrap(), [lease.id]);
    assert!(store.get(&key("a")).await.unwrap().is_none());
    assert_ne!(store.lease_grant(1, 0).await.unwrap().id, lease.id);
}

#[test]
fn the_file_is_readable_by_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let _store = LocalStore::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_of_something_else_is_an_error_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    fs::write(&path, vec![7; 10_000]).unwrap();
    assert!(matches!(LocalStore::open(&path), Err(StoreError::Database { .. })));
}

/// Rewrites a file below the store's feet with the engine itself.
fn edit(path: &std::path::Path, table: &str, change: impl Fn(&mut Vec<u8>)) {
    use redb::ReadableTable;
    let database = redb::Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let mut rows = txn.open_table(self::table(table)).unwrap();
        let (row_key, mut value) = {
            let (row_key, value) = rows.first().unwrap().unwrap();
            (row_key.value().to_vec(), value.value().to_vec())
        };
        change(&mut value);
        rows.insert(row_key.as_slice(), value.as_slice()).unwrap();
    }
    txn.commit().unwrap();
}

const fn table(name: &str) -> redb::TableDefinition<'_, &'static [u8], &'static [u8]> {
    redb::TableDefinition::new(name)
}

/// Makes of a file what the format before had: history with a copy of each present record.
fn as_before(path: &std::path::Path) {
    use redb::ReadableTable;
    edit(path, "meta", |row| row[0] = 1);
    let database = redb::Database::open(path).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let current = txn.open_table(table("current")).unwrap();
        let mut versions = txn.open_table(table("versions")).unwrap();
        for row in current.iter().unwrap() {
            let (key, record) = row.unwrap();
            let (key, record) = (key.value(), record.value());
            let at = [key, &[0], &record[8..16]].concat();
            versions.insert(at.as_slice(), [&[1], record].concat().as_slice()).unwrap();
        }
    }
    txn.commit().unwrap();
}

#[tokio::test]
async fn a_store_of_the_format_before_is_read_and_becomes_one_of_this() {
    use redb::{ReadableDatabase, ReadableTableMetadata};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = LocalStore::open(&path).unwrap();
    for (name, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        store.txn(Txn::put(key(name), value)).await.unwrap();
    }
    drop(store);
    as_before(&path);
    let store = LocalStore::open(&path).unwrap();
    store.scrub().await.unwrap();
    for (at, expected) in [(1, vec!["1"]), (2, vec!["1", "1"]), (3, vec!["2", "1"])] {
        let range = Range::prefix(Prefix::new("").unwrap()).at(at);
        let found = store.range(range).await.unwrap().entries;
        let found: Vec<_> = found.iter().map(|entry| entry.value.as_slice()).collect();
        assert_eq!(found, expected.iter().map(|one| one.as_bytes()).collect::<Vec<_>>(), "{at}");
    }
    store.compact(3).await.unwrap();
    store.scrub().await.unwrap();
    drop(store);
    edit(&path, "meta", |row| assert_eq!(row[0], 2));
    let database = redb::Database::open(&path).unwrap();
    let versions = database.begin_read().unwrap().open_table(table("versions")).unwrap();
    assert_eq!(versions.len().unwrap(), 0);
}

#[tokio::test]
async fn a_scrub_finds_an_altered_row_in_any_covered_table() {
    for table in ["changes", "commits", "current"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let store = LocalStore::open(&path).unwrap();
        for n in 0..4 {
            store.txn(Txn::put(key("a"), vec![n; 4])).await.unwrap();
        }
        drop(store);
        edit(&path, table, |value| *value.last_mut().unwrap() ^= 1);
        let store = LocalStore::open(&path).unwrap();
        let error = store.scrub().await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{table}: {error:?}");
    }
}

#[tokio::test]
async fn a_scrub_finds_an_altered_row_from_before_a_compaction() {
    // The first row of each: one that still is as it was then, and one that was replaced since.
    for (table, replaced) in [("current", "c"), ("versions", "a")] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let store = LocalStore::open(&path).unwrap();
        for name in ["a", "b", "c"] {
            store.txn(Txn::put(key(name), "1")).await.unwrap();
        }
        store.compact(3).await.unwrap();
        store.txn(Txn::put(key(replaced), "2")).await.unwrap();
        store.scrub().await.unwrap();
        drop(store);
        edit(&path, table, |value| *value.last_mut().unwrap() ^= 1);
        let store = LocalStore::open(&path).unwrap();
        assert!(matches!(store.scrub().await, Err(StoreError::Corrupt { .. })), "{table}");
    }
}

#[tokio::test]
async fn a_malformed_record_is_an_error_for_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = LocalStore::open(&path).unwrap();
    store.txn(Txn::put(key("a"), "1")).await.unwrap();
    drop(store);
    edit(&path, "current", |value| value.truncate(5));
    let store = LocalStore::open(&path).unwrap();
    assert!(matches!(store.get(&key("a")).await, Err(StoreError::Corrupt { .. })));
    let all = store.range(Range::prefix(Prefix::all())).await;
    assert!(matches!(all, Err(StoreError::Corrupt { .. })));
    // A writer that meets it stops for good rather than go on from a damaged state.
    assert!(matches!(store.txn(Txn::put(key("a"), "2")).await, Err(StoreError::Failed)));
    assert!(matches!(store.state().await, Err(StoreError::Failed)));
}
