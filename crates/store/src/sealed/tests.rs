//! Sealed values open in their place only.

use proptest::prelude::*;

use super::*;
use crate::local::LocalStore;

fn keys() -> SealKeys {
    SealKeys::new(KeyId(1), Secret::new([7; 32]))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn sealed() -> SealedStore {
    SealedStore::new(Arc::new(LocalStore::memory().unwrap()), keys())
}

async fn raw(store: &SealedStore, name: &str) -> Vec<u8> {
    store.store().get(&key(name)).await.unwrap().unwrap().value
}

#[tokio::test]
async fn a_sealed_value_opens_and_is_not_in_clear_below() {
    let store = sealed();
    let txn = SealedTxn::new().put(key("vm/a"), b"attack at dawn".to_vec(), 0);
    assert!(store.txn(txn).await.unwrap().succeeded);
    let opened = store.get(&key("vm/a")).await.unwrap().unwrap();
    assert_eq!(opened.value.expose(), b"attack at dawn");
    assert_eq!(opened.version, 1);
    assert!(!raw(&store, "vm/a").await.windows(6).any(|w| w == b"attack"));
}

#[tokio::test]
async fn a_put_over_a_version_that_moved_writes_nothing() {
    let store = sealed();
    let put = |version| SealedTxn::new().put(key("vm/a"), b"x".to_vec(), version);
    assert!(store.txn(put(0)).await.unwrap().succeeded);
    assert!(!store.txn(put(0)).await.unwrap().succeeded);
    assert!(store.txn(put(1)).await.unwrap().succeeded);
    assert!(!store.txn(SealedTxn::new().delete(key("vm/a"), 1)).await.unwrap().succeeded);
    assert!(store.txn(SealedTxn::new().delete(key("vm/a"), 2)).await.unwrap().succeeded);
    assert!(store.get(&key("vm/a")).await.unwrap().is_none());
}

#[tokio::test]
async fn two_values_swapped_below_are_refused_by_name() {
    let store = sealed();
    let txn =
        SealedTxn::new().put(key("vm/a"), b"a".to_vec(), 0).put(key("vm/b"), b"b".to_vec(), 0);
    store.txn(txn).await.unwrap();
    let (a, b) = (raw(&store, "vm/a").await, raw(&store, "vm/b").await);
    let copy = LocalStore::memory().unwrap();
    let swap = Txn::new().then(Op::put(key("vm/a"), b)).then(Op::put(key("vm/b"), a));
    copy.txn(swap).await.unwrap();
    let copy = SealedStore::new(Arc::new(copy), keys());
    assert_eq!(copy.get(&key("vm/a")).await.unwrap_err().name(), "value-swapped");
}

#[tokio::test]
async fn an_older_value_put_back_is_refused_by_name() {
    let store = sealed();
    store.txn(SealedTxn::new().put(key("vm/a"), b"old".to_vec(), 0)).await.unwrap();
    let old = raw(&store, "vm/a").await;
    store.txn(SealedTxn::new().put(key("vm/a"), b"new".to_vec(), 1)).await.unwrap();
    store.store().txn(Txn::put(key("vm/a"), old)).await.unwrap();
    let error = store.get(&key("vm/a")).await.unwrap_err();
    assert!(matches!(error, SealError::ValueReplayed { version: 3, sealed: 1, .. }));
    assert_eq!(error.name(), "value-replayed");
}

#[test]
fn a_header_that_lies_about_its_place_is_altered_not_accepted() {
    let swapped = cipher::seal(&keys(), &key("vm/a"), 1, b"secret").unwrap();
    let honest = cipher::seal(&keys(), &key("vm/b"), 1, b"x").unwrap();
    let mut forged = swapped;
    forged[5..13].copy_from_slice(&honest[5..13]);
    let error = cipher::open(&keys(), &key("vm/b"), 1, &forged).unwrap_err();
    assert_eq!(error.name(), "value-altered");
}

#[test]
fn rotated_keys_open_what_the_older_one_sealed() {
    let old = cipher::seal(&keys(), &key("k"), 1, b"v").unwrap();
    let new = SealKeys::new(KeyId(2), Secret::new([8; 32]));
    let error = cipher::open(&new, &key("k"), 1, &old).unwrap_err();
    assert_eq!(error.name(), "unknown-seal-key");
    let both = new.with_older(KeyId(1), Secret::new([7; 32]));
    assert_eq!(cipher::open(&both, &key("k"), 1, &old).unwrap().expose(), b"v");
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused() {
    let txn = |bytes| SealedTxn::new().put(key("k"), vec![0; bytes], 0);
    assert_eq!(sealed().txn(txn(MAX_SEALED + 1)).await.unwrap_err().name(), "value-too-large");
    assert!(sealed().txn(txn(MAX_SEALED)).await.unwrap().succeeded);
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused(value in prop::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut sealed = cipher::seal(&keys(), &key("k"), 3, &value).unwrap();
        let index = at.index(sealed.len());
        sealed[index] ^= 1 << bit;
        prop_assert!(cipher::open(&keys(), &key("k"), 3, &sealed).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_open(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        prop_assert!(cipher::open(&keys(), &key("k"), 1, &bytes).is_err());
    }

    #[test]
    fn what_is_sealed_opens(value in prop::collection::vec(any::<u8>(), 0..4096), version in any::<u64>()) {
        let sealed = cipher::seal(&keys(), &key("k"), version, &value).unwrap();
        prop_assert_eq!(sealed.len(), value.len() + OVERHEAD);
        let opened = cipher::open(&keys(), &key("k"), version, &sealed).unwrap();
        prop_assert_eq!(opened.expose(), &value);
    }
}
