//! News for trust services: a durable sequence, read from wherever a service stopped.
//!
//! **Invariants:** an item is committed in the very transaction that makes it true; numbers have no
//! gaps and none is used twice; a reader that missed items which were forgotten is told so.

use std::sync::{Mutex, MutexGuard, PoisonError};

use store::{
    Key, KeyError,
    typed::{RecordError, Records, Write},
    wait,
};
use tokio::sync::watch;

use super::record::{self, FeedState, StoredItem, StoredNews};

/// Items in one answer.
pub(crate) const PAGE: usize = 200;

/// The sequence.
#[derive(Debug)]
pub(crate) struct Sequence {
    records: Records,
    /// The state and its version in the store.
    state: Mutex<(FeedState, u64)>,
    newest: watch::Sender<u64>,
}

impl Sequence {
    /// The sequence that is in the store.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn open(records: Records) -> Result<Self, RecordError> {
        let state = load(&records)?;
        let newest = watch::Sender::new(state.0.newest);
        Ok(Self { records, state: Mutex::new(state), newest })
    }

    /// Writes all or, if a version has moved, nothing: `false`. The news are part of it.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn commit(
        &self,
        mut write: Write,
        news: Vec<StoredNews>,
        at: u64,
    ) -> Result<bool, RecordError> {
        if news.is_empty() {
            return wait(self.records.commit(write));
        }
        let mut held = self.held();
        let (mut state, version) = *held;
        for news in news {
            state.newest = state.newest.saturating_add(1);
            write = write.put(record::item(state.newest)?, &StoredItem { at, news }, 0)?;
        }
        write = write.put(record::feed_state()?, &state, version)?;
        let done = wait(self.records.commit(write));
        // Whatever came of it: what the store says is so.
        *held = if matches!(done, Ok(true)) {
            (state, version.saturating_add(1))
        } else {
            load(&self.records)?
        };
        self.newest.send_replace(held.0.newest);
        done
    }

    /// Which items there are.
    pub(crate) fn state(&self) -> FeedState {
        self.held().0
    }

    /// To be told of a new item.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Items after this number, at most [`PAGE`].
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn after(&self, number: u64) -> Result<Vec<(u64, StoredItem)>, RecordError> {
        let after = Key::new(format!("feed/{number:020}"))?;
        let (page, _) = wait(self.records.page::<StoredItem>("feed/", Some(after), PAGE))?;
        let one = |(key, item): (Key, store::typed::Versioned<StoredItem>)| {
            let number = key.as_str().strip_prefix("feed/")?.parse().ok()?;
            Some((number, item.value))
        };
        Ok(page.into_iter().filter_map(one).collect())
    }

    /// Forgets items until at most `kept` are left.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn forget(&self, kept: u64) -> Result<(), RecordError> {
        let mut held = self.held();
        let (mut state, version) = *held;
        let until = state.newest.saturating_sub(kept);
        if until <= state.forgotten {
            return Ok(());
        }
        state.forgotten = until;
        let write = Write::new().put(record::feed_state()?, &state, version)?;
        if wait(self.records.commit(write))? {
            *held = (state, version.saturating_add(1));
        }
        drop(held);
        loop {
            let (page, _) = wait(self.records.page::<StoredItem>("feed/", None, PAGE / 5))?;
            let over = page.into_iter().filter(|(key, _)| number(key).is_ok_and(|n| n <= until));
            let mut write = Write::new();
            let mut some = false;
            for (key, item) in over {
                write = write.delete(record::item(number(&key)?)?, item.version);
                some = true;
            }
            if !some || !wait(self.records.commit(write))? {
                return Ok(());
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, (FeedState, u64)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(key: &Key) -> Result<u64, RecordError> {
    let digits = key.as_str().strip_prefix("feed/").and_then(|digits| digits.parse().ok());
    digits.ok_or(RecordError::Key(KeyError::Character))
}

fn load(records: &Records) -> Result<(FeedState, u64), RecordError> {
    let known = wait(records.get(&record::feed_state()?))?;
    let none = (FeedState { newest: 0, forgotten: 0 }, 0);
    Ok(known.map_or(none, |known| (known.value, known.version)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Secret;
    use store::{KeyId, LocalStore, SealKeys, SealedStore};

    use super::*;

    #[test]
    fn items_have_no_gaps_and_what_was_forgotten_is_known() {
        let keys = SealKeys::new(KeyId(1), Secret::new([1; 32]));
        let store = Arc::new(LocalStore::memory().unwrap());
        let records = Records::new(SealedStore::new(store, keys));
        let feed = Sequence::open(records.clone()).unwrap();
        let news = |n: u8| StoredNews::Crl(format!("d{n}").parse().unwrap());
        for n in 0..100 {
            assert!(feed.commit(Write::new(), vec![news(n), news(n)], u64::from(n)).unwrap());
        }
        // A write that does not succeed leaves no item.
        let moved = Write::new().put(record::item(1).unwrap(), &feed.after(0).unwrap()[0].1, 9);
        assert!(!feed.commit(moved.unwrap(), vec![news(0)], 0).unwrap());
        assert!(feed.commit(Write::new(), vec![news(1)], 0).unwrap());
        let numbers: Vec<u64> = feed.after(0).unwrap().iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, (1..=200).collect::<Vec<u64>>());
        assert_eq!(feed.after(200).unwrap().len(), 1);
        feed.forget(11).unwrap();
        assert_eq!(feed.state(), FeedState { newest: 201, forgotten: 190 });
        assert_eq!(feed.after(0).unwrap()[0].0, 191);
        // A restart knows the same.
        let again = Sequence::open(records).unwrap();
        assert_eq!(again.state(), feed.state());
        assert!(again.commit(Write::new(), vec![news(3)], 0).unwrap());
        assert_eq!(again.after(201).unwrap().len(), 1);
    }
}
