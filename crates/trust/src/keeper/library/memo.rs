//! Entries that were opened before, so that a question does not decrypt and parse them again.
//!
//! **Invariant:** what the store holds is read each time. An entry is taken from here only if that
//! is, octet for octet and of the same version, what the entry was opened from: opening depends on
//! nothing else. So nothing here can be out of date, and nothing has to be told of changes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use store::{KeyValue, typed::Versioned};

use crate::keeper::record::{Entry, EntryId};

/// Entries that are remembered: some 10 MB of them.
const MOST: usize = 4096;

/// What an entry was opened from, and the entry.
#[derive(Debug)]
struct Known {
    version: u64,
    sealed: Vec<u8>,
    entry: Entry,
}

/// The entries.
#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<HashMap<EntryId, Known>>);

impl Memo {
    /// A panic ends the process, so nobody leaves the lock behind.
    fn known(&self) -> MutexGuard<'_, HashMap<EntryId, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry that `row` opens to, if it was opened before.
    pub(super) fn recall(&self, id: EntryId, row: &KeyValue) -> Option<Versioned<Entry>> {
        let known = self.known();
        let found = known.get(&id)?;
        (found.version == row.version && found.sealed == row.value)
            .then(|| Versioned { value: found.entry.clone(), version: found.version })
    }

    /// Remembers what `sealed` opened to.
    pub(super) fn remember(&self, id: EntryId, sealed: Vec<u8>, entry: &Versioned<Entry>) {
        let mut known = self.known();
        if known.len() >= MOST && !known.contains_key(&id) {
            known.clear();
        }
        known.insert(id, Known { version: entry.version, sealed, entry: entry.value.clone() });
    }
}

#[cfg(test)]
mod tests {
    use model::api::Bytes;
    use store::Key;

    use super::*;
    use crate::keeper::record::tests::entry;

    fn row(version: u64, value: &[u8]) -> KeyValue {
        let key = Key::new("entry/x").unwrap();
        let (create_revision, mod_revision, lease) = (1, version, None);
        KeyValue { key, value: value.to_vec(), create_revision, mod_revision, version, lease }
    }

    #[test]
    fn only_the_very_octets_of_the_same_version_are_known_again() {
        let (memo, id) = (Memo::default(), EntryId([1; 16]));
        assert!(memo.recall(id, &row(1, b"sealed")).is_none());
        let opened = Versioned { value: entry("a"), version: 1 };
        memo.remember(id, b"sealed".to_vec(), &opened);
        assert_eq!(memo.recall(id, &row(1, b"sealed")).unwrap().value.name, "a");
        assert!(memo.recall(id, &row(2, b"sealed")).is_none());
        assert!(memo.recall(id, &row(1, b"other.")).is_none());
        assert!(memo.recall(EntryId([2; 16]), &row(1, b"sealed")).is_none());
        memo.remember(id, b"newer".to_vec(), &Versioned { value: entry("b"), version: 2 });
        assert!(memo.recall(id, &row(1, b"sealed")).is_none());
        assert_eq!(memo.recall(id, &row(2, b"newer")).unwrap().value.name, "b");
        assert_eq!(opened.value.certificate, Bytes::default());
    }

    #[test]
    fn so_much_is_remembered_and_no_more() {
        let memo = Memo::default();
        let opened = Versioned { value: entry("a"), version: 1 };
        for n in 0..2 * MOST as u128 + 10 {
            memo.remember(EntryId(n.to_be_bytes()), Vec::new(), &opened);
            assert!(memo.known().len() <= MOST);
        }
    }
}
