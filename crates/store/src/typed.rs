//! Typed records in a sealed store, as JSON, written under compare-and-swap.
//!
//! **Invariant:** a write names the version that it replaces; if one has moved, nothing is written.

use std::marker::PhantomData;

use model::Secret;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    Compare, Key, KeyError, Prefix, Range, SealError, SealedStore, SealedTxn, StoreError,
    WatchError,
};

/// Records that are looked at, and at most deleted, in one transaction.
const FORGET_PAGE: usize = 40;

/// The store could not answer, or a record in it is not what it should be.
#[derive(Debug, Error)]
pub enum RecordError {
    /// A name does not make a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A record has another form.
    #[error("the record {key} is malformed")]
    Malformed {
        /// Where.
        key: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The sealed store.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The store below.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A watch ended.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Where a record of type `T` is.
#[derive(Debug)]
pub struct Place<T>(Key, PhantomData<fn() -> T>);

impl<T> Place<T> {
    /// The record at `key`.
    ///
    /// # Errors
    /// [`RecordError::Key`].
    pub fn at(key: impl Into<String>) -> Result<Self, RecordError> {
        Ok(Self(Key::new(key)?, PhantomData))
    }

    /// Its key.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.0
    }
}

/// A record and the version that a write must name.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    /// The record.
    pub value: T,
    /// Its version.
    pub version: u64,
}

/// What is written together.
#[derive(Debug, Default)]
pub struct Write(SealedTxn);

impl Write {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a record in place of version `version`; 0: there is none.
    ///
    /// # Errors
    /// [`RecordError::Malformed`] if it has no JSON form.
    pub fn put<T: Serialize>(
        self,
        place: Place<T>,
        value: &T,
        version: u64,
    ) -> Result<Self, RecordError> {
        let key = place.0;
        let bytes = serde_json::to_vec(value)
            .map_err(|source| RecordError::Malformed { key: key.to_string(), source })?;
        Ok(Self(self.0.put(key, Secret::new(bytes), version)))
    }

    /// Deletes version `version` of a record.
    #[must_use]
    pub fn delete<T>(self, place: Place<T>, version: u64) -> Self {
        Self(self.0.delete(place.0, version))
    }

    /// Everything of another write as well.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.and(other.0))
    }

    /// How many places it writes or looks at.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.0.places()
    }

    /// Only if a record still has this version.
    #[must_use]
    pub fn only_if<T>(self, place: Place<T>, version: u64) -> Self {
        Self(self.0.when(Compare::Version(place.0, version)))
    }
}

/// The records of a sealed store.
#[derive(Clone, Debug)]
pub struct Records(SealedStore);

impl Records {
    /// The records in `store`.
    #[must_use]
    pub const fn new(store: SealedStore) -> Self {
        Self(store)
    }

    /// The sealed store below.
    #[must_use]
    pub const fn sealed(&self) -> &SealedStore {
        &self.0
    }

    /// A record, if it is there.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        place: &Place<T>,
    ) -> Result<Option<Versioned<T>>, RecordError> {
        let Some(opened) = self.0.get(&place.0).await? else { return Ok(None) };
        let value = parse(&place.0, opened.value.expose())?;
        Ok(Some(Versioned { value, version: opened.version }))
    }

    /// Whether a record is there; it is not opened.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn holds<T>(&self, place: &Place<T>) -> Result<bool, RecordError> {
        Ok(self.0.store().get(&place.0).await?.is_some())
    }

    /// Keys and versions of at most `limit` records whose keys begin with `prefix` and come after
    /// `after`, and whether there are more; none is opened.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn keys(
        &self,
        prefix: &str,
        after: Option<Key>,
        limit: usize,
    ) -> Result<(Vec<(Key, u64)>, bool), RecordError> {
        let mut range = Range::prefix(Prefix::new(prefix)?).limit(limit);
        range.after = after;
        let answer = self.0.store().range(range).await?;
        let keys = answer.entries.into_iter().map(|row| (row.key, row.version));
        Ok((keys.collect(), answer.more))
    }

    /// A record; if it is not there, the one that `make` makes, once it is durable. None if another
    /// came between.
    ///
    /// # Errors
    /// [`RecordError`], or that of `make`.
    pub async fn or_made<T: Serialize + DeserializeOwned, E: From<RecordError>>(
        &self,
        place: Place<T>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        if let Some(known) = self.get(&place).await? {
            return Ok(Some(known.value));
        }
        let made = make()?;
        let written = self.commit(Write::new().put(place, &made, 0)?).await?;
        Ok(written.then_some(made))
    }

    /// Writes all or, if a version has moved, nothing: `false`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn commit(&self, write: Write) -> Result<bool, RecordError> {
        Ok(self.0.txn(write.0).await?.succeeded)
    }

    /// All records whose keys begin with `prefix`, with their keys, as they stand together.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn all<T: DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(Key, T)>, RecordError> {
        let prefix = Prefix::new(prefix)?;
        let mut found = Vec::new();
        let mut range = Range::prefix(prefix.clone());
        loop {
            let answer = self.0.range(range).await?;
            for entry in &answer.entries {
                found.push((entry.key.clone(), parse(&entry.key, entry.value.expose())?));
            }
            let Some(last) = answer.entries.last().filter(|_| answer.more) else {
                return Ok(found);
            };
            range = Range::prefix(prefix.clone()).at(answer.revision).after(last.key.clone());
        }
    }

    /// At most `limit` records whose keys begin with `prefix` and come after `after`, and whether
    /// there are more.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn page<T: DeserializeOwned>(
        &self,
        prefix: &str,
        after: Option<Key>,
        limit: usize,
    ) -> Result<(Vec<(Key, Versioned<T>)>, bool), RecordError> {
        let mut range = Range::prefix(Prefix::new(prefix)?).limit(limit);
        range.after = after;
        let answer = self.0.range(range).await?;
        let entries = answer.entries.into_iter().map(|entry| {
            let value = parse(&entry.key, entry.value.expose())?;
            Ok((entry.key, Versioned { value, version: entry.version }))
        });
        Ok((entries.collect::<Result<_, RecordError>>()?, answer.more))
    }

    /// Deletes what `over` says is over, in pages; how many.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn forget<T: DeserializeOwned>(
        &self,
        prefix: &str,
        over: impl Fn(&T) -> bool + Send,
    ) -> Result<usize, RecordError> {
        let prefix = Prefix::new(prefix)?;
        let mut range = Range::prefix(prefix.clone()).limit(FORGET_PAGE);
        let mut count: usize = 0;
        loop {
            let answer = self.0.range(range).await?;
            let mut gone = SealedTxn::new();
            let mut some: usize = 0;
            for entry in &answer.entries {
                if over(&parse::<T>(&entry.key, entry.value.expose())?) {
                    gone = gone.delete(entry.key.clone(), entry.version);
                    some = some.saturating_add(1);
                }
            }
            // If one of them moved meanwhile, the page is left for the next time.
            if some > 0 && self.0.txn(gone).await?.succeeded {
                count = count.saturating_add(some);
            }
            let Some(last) = answer.entries.last().filter(|_| answer.more) else {
                return Ok(count);
            };
            range = Range::prefix(prefix.clone()).limit(FORGET_PAGE).after(last.key.clone());
        }
    }
}

/// A record from its JSON.
///
/// # Errors
/// [`RecordError::Malformed`].
pub fn parse<T: DeserializeOwned>(key: &Key, bytes: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(bytes)
        .map_err(|source| RecordError::Malformed { key: key.to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{KeyId, LocalStore, SealKeys};

    fn records() -> Records {
        let keys = SealKeys::new(KeyId(1), Secret::new([1; 32]));
        Records::new(SealedStore::new(Arc::new(LocalStore::memory().unwrap()), keys))
    }

    #[tokio::test]
    async fn what_is_over_is_forgotten_and_the_rest_stays() {
        let records = records();
        for n in 0..100_u64 {
            let place = Place::at(format!("n/{n:03}")).unwrap();
            assert!(records.commit(Write::new().put(place, &n, 0).unwrap()).await.unwrap());
        }
        assert_eq!(records.forget("n/", |n: &u64| *n < 90).await.unwrap(), 90);
        assert_eq!(records.all::<u64>("n/").await.unwrap().len(), 10);
        let (page, more) =
            records.page::<u64>("n/", Some(Key::new("n/094").unwrap()), 3).await.unwrap();
        assert_eq!(page.iter().map(|(_, n)| n.value).collect::<Vec<_>>(), [95, 96, 97]);
        assert!(more);
        let (keys, more) = records.keys("n/", Some(Key::new("n/097").unwrap()), 3).await.unwrap();
        let rows = [("n/098".to_owned(), 1), ("n/099".to_owned(), 1)];
        assert_eq!(
            keys.into_iter().map(|(key, at)| (key.to_string(), at)).collect::<Vec<_>>(),
            rows
        );
        assert!(!more);
        let place = |name: &str| Place::<u64>::at(name).unwrap();
        assert!(records.holds(&place("n/099")).await.unwrap());
        assert!(!records.holds(&place("n/010")).await.unwrap());
    }

    #[tokio::test]
    async fn two_writes_become_one_and_what_is_made_is_made_once() {
        let records = records();
        let place = |name: &str| Place::<u64>::at(name).unwrap();
        let put = |name: &str, value: u64| Write::new().put(place(name), &value, 0).unwrap();
        let both = put("a", 1).and(put("b", 2).only_if(place("c"), 0));
        assert_eq!(both.places(), 3);
        assert!(records.commit(both).await.unwrap());
        assert_eq!(records.get(&place("b")).await.unwrap().unwrap().value, 2);
        // All of it or nothing.
        assert!(!records.commit(put("c", 3).and(put("a", 4))).await.unwrap());
        assert!(records.get(&place("c")).await.unwrap().is_none());
        let made = |value: u64| records.or_made(place("d"), move || Ok::<_, RecordError>(value));
        assert_eq!(made(5).await.unwrap(), Some(5));
        assert_eq!(made(6).await.unwrap(), Some(5));
    }

    #[tokio::test]
    async fn a_write_that_names_an_old_version_changes_nothing() {
        let records = records();
        let place = || Place::<u64>::at("x").unwrap();
        let write = |value: u64, version| Write::new().put(place(), &value, version).unwrap();
        assert!(records.commit(write(1, 0)).await.unwrap());
        assert!(!records.commit(write(2, 0)).await.unwrap());
        assert!(records.commit(write(2, 1)).await.unwrap());
        assert_eq!(records.get(&place()).await.unwrap().unwrap().value, 2);
    }
}
