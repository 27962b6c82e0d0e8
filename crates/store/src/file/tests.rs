//! Power cuts: storage that keeps apart what was synced and what was only written. A cut keeps any
//! part of the latter, in any order, torn at sectors.

use std::{
    io,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;

use crate::{Key, LocalStore, Store, Txn};

const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Disk {
    /// What is on the medium.
    durable: Vec<u8>,
    /// What a reader sees.
    seen: Vec<u8>,
    /// Writes since the last sync, by sector.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    fn write(&mut self, offset: usize, data: &[u8]) {
        self.seen[offset..offset + data.len()].copy_from_slice(data);
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let len = (SECTOR - at % SECTOR).min(rest.len());
            self.pending.push((at, rest[..len].to_vec()));
            (at, rest) = (at + len, &rest[len..]);
        }
    }

    fn sync(&mut self) {
        self.durable = self.seen.clone();
        self.pending.clear();
    }

    /// What is left after a cut; `keep` decides for each pending sector.
    fn cut(&self, mut keep: impl FnMut() -> bool) -> Vec<u8> {
        let mut left = self.durable.clone();
        left.resize(self.seen.len().max(left.len()), 0);
        for (offset, data) in &self.pending {
            if keep() {
                left[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
        left
    }
}

/// A view of the disk; the test keeps another.
#[derive(Clone, Debug, Default)]
struct Storage(Arc<Mutex<Disk>>);

impl Storage {
    fn with(bytes: Vec<u8>) -> Self {
        let disk = Disk { durable: bytes.clone(), seen: bytes, pending: Vec::new() };
        Self(Arc::new(Mutex::new(disk)))
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl redb::StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        let end = index(offset) + out.len();
        out.copy_from_slice(disk.seen.get(index(offset)..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.seen.resize(index(len), 0);
        disk.pending.retain(|(offset, data)| offset + data.len() <= index(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().unwrap().sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().write(index(offset), data);
        Ok(())
    }
}

/// Deterministic coin, so that a failing case can be run again.
fn coin(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.is_multiple_of(3)
    }
}

async fn put(store: &LocalStore, n: u64) -> u64 {
    let key = Key::new(format!("k{}", n % 7)).unwrap();
    store.txn(Txn::put(key, vec![n.to_le_bytes()[0]; 700])).await.unwrap().revision
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_acknowledged_survives_a_power_cut(puts in 1..12_u64, rounds in 1..4_u64, seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut storage = Storage::default();
        let mut acknowledged = 0;
        for round in 0..rounds {
            let store = LocalStore::on_backend(storage.clone()).unwrap();
            let (revision, mut images) = runtime.block_on(async {
                prop_assert_eq!(store.scrub().await.unwrap().revision, acknowledged);
                for n in 0..puts {
                    acknowledged = put(&store, n).await;
                }
                // The cut comes while more is written: after the answer, before the next sync.
                let image = storage.0.lock().unwrap().cut(coin(seed.wrapping_add(round)));
                Ok((acknowledged, vec![image]))
            })?;
            drop(store);
            storage = Storage::with(images.pop().unwrap());
            prop_assert_eq!(revision, acknowledged);
        }
        let store = LocalStore::on_backend(storage).unwrap();
        prop_assert_eq!(runtime.block_on(store.scrub()).unwrap().revision, acknowledged);
    }
}

/// Fails the n-th sync: what the batch wrote may be anywhere between nothing and all.
#[derive(Clone, Debug)]
struct Failing {
    storage: Storage,
    syncs_left: Arc<Mutex<u64>>,
}

impl redb::StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut left = self.syncs_left.lock().unwrap();
        if *left == 0 {
            return Err(io::Error::other("the disk is gone"));
        }
        *left -= 1;
        self.storage.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.storage.write(offset, data)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_cut_in_the_middle_of_a_commit_keeps_what_came_before(puts in 1..8_u64, seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let storage = Storage::default();
        let syncs_left = Arc::new(Mutex::new(u64::MAX));
        let failing = Failing { storage: storage.clone(), syncs_left: Arc::clone(&syncs_left) };
        let store = LocalStore::on_backend(failing).unwrap();
        runtime.block_on(async {
            for n in 0..puts {
                put(&store, n).await;
            }
            *syncs_left.lock().unwrap() = 0;
            let lost = store.txn(Txn::put(Key::new("lost").unwrap(), vec![1; 3000])).await;
            assert!(matches!(lost, Err(crate::StoreError::Failed)), "{lost:?}");
            assert!(matches!(store.state().await, Err(crate::StoreError::Failed)));
        });
        let image = storage.0.lock().unwrap().cut(coin(seed));
        drop(store);
        let store = LocalStore::on_backend(Storage::with(image)).unwrap();
        let state = runtime.block_on(store.scrub()).unwrap();
        // The unanswered commit is wholly there or not at all.
        prop_assert!(state.revision == puts || state.revision == puts + 1, "{}", state.revision);
    }
}
