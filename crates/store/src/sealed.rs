//! Values encrypted above the store, so that whoever reads or edits the store's files learns and
//! forges nothing. AES-256-GCM under a key of its own for each value; the key's path and version
//! are associated data, so a value is good at one place only.
//!
//! The version of a value must be known before it is sealed: every put names the version that it
//! replaces, and the transaction compares it. A put is therefore always a compare-and-swap.
//!
//! Deliberately absent: freshness of a whole store (that is [`crate::head`]) and of a key that was
//! deleted and made again, whose versions begin at 1 again: the hash chain below covers that.

mod cipher;

use std::{collections::BTreeMap, fmt, sync::Arc};

use model::Secret;
use thiserror::Error;

use crate::{
    backend::Store,
    error::StoreError,
    key::Key,
    types::{Compare, KeyValue, LeaseId, MAX_VALUE, Op, Range, Revision, Txn},
};

/// Bytes that sealing adds to a value.
pub const OVERHEAD: usize = cipher::HEADER + cipher::TAG;

/// Longest value that can be sealed.
pub const MAX_SEALED: usize = MAX_VALUE - OVERHEAD;

/// Names a sealing key; written in clear with each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

/// The keys that open values, and the one that seals.
#[derive(Clone)]
pub struct SealKeys {
    current: KeyId,
    keys: BTreeMap<KeyId, Secret<[u8; 32]>>,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKeys({:?}, {} keys)", self.current, self.keys.len())
    }
}

impl SealKeys {
    /// Seals and opens with `key`.
    #[must_use]
    pub fn new(id: KeyId, key: Secret<[u8; 32]>) -> Self {
        Self { current: id, keys: BTreeMap::from([(id, key)]) }
    }

    /// Opens with `key` too: one that sealed before.
    #[must_use]
    pub fn with_older(mut self, id: KeyId, key: Secret<[u8; 32]>) -> Self {
        self.keys.entry(id).or_insert(key);
        self
    }
}

/// Why a value could not be opened or sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// The system gave no random bytes, or the cipher refused.
    #[error("the value of {key} could not be encrypted")]
    Cipher {
        /// The key.
        key: Key,
    },
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The value is over [`MAX_SEALED`].
    #[error("the value of {key} has {bytes} bytes, the limit is 262079")]
    TooLarge {
        /// The key.
        key: Key,
        /// How many.
        bytes: usize,
    },
    /// The key that sealed it is not there.
    #[error("the value of {key} is sealed with {id:?}, which is not loaded")]
    UnknownSealKey {
        /// The key.
        key: Key,
        /// The sealing key.
        id: KeyId,
    },
    /// It does not decrypt: changed, or sealed by someone else.
    #[error("the value of {key} was altered")]
    ValueAltered {
        /// The key.
        key: Key,
    },
    /// It is an older or younger value of this key.
    #[error("the value of {key} at version {version} was sealed for version {sealed}")]
    ValueReplayed {
        /// The key.
        key: Key,
        /// The version that the store says.
        version: u64,
        /// The version that it was sealed for.
        sealed: u64,
    },
    /// It is the value of another key.
    #[error("the value of {key} belongs to another key")]
    ValueSwapped {
        /// The key.
        key: Key,
    },
}

impl SealError {
    /// The refusal's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cipher { .. } => "seal-failed",
            Self::Store(StoreError::Rejected(rejection)) => rejection.name(),
            Self::Store(_) => "store-error",
            Self::TooLarge { .. } => "value-too-large",
            Self::UnknownSealKey { .. } => "unknown-seal-key",
            Self::ValueAltered { .. } => "value-altered",
            Self::ValueReplayed { .. } => "value-replayed",
            Self::ValueSwapped { .. } => "value-swapped",
        }
    }
}

/// A value that was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The key.
    pub key: Key,
    /// The value in clear.
    pub value: Secret<Vec<u8>>,
    /// Its version: what the next put or delete must name.
    pub version: u64,
    /// Revision at which this life of the key began.
    pub create_revision: Revision,
    /// Revision of the last put.
    pub mod_revision: Revision,
    /// The lease that the key is bound to.
    pub lease: Option<LeaseId>,
}

/// The answer to a sealed range.
#[derive(Clone, Debug)]
pub struct OpenedRange {
    /// The entries, in key order.
    pub entries: Vec<Opened>,
    /// Whether the limit cut the answer.
    pub more: bool,
    /// The revision that the answer shows.
    pub revision: Revision,
}

/// What a sealed transaction answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedReply {
    /// Whether every version and condition held; else nothing was written.
    pub succeeded: bool,
    /// The store's revision afterwards.
    pub revision: Revision,
}

enum Change {
    Put { key: Key, value: Secret<Vec<u8>>, version: u64, lease: Option<LeaseId> },
    Delete { key: Key, version: u64 },
}

/// Puts and deletes that name the versions they replace; all or nothing.
#[derive(Default)]
pub struct SealedTxn {
    compares: Vec<Compare>,
    changes: Vec<Change>,
}

impl fmt::Debug for SealedTxn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedTxn({} compares, {} changes)", self.compares.len(), self.changes.len())
    }
}

impl SealedTxn {
    /// A transaction that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value in place of version `version`; 0 means that the key must not exist.
    #[must_use]
    pub fn put(self, key: Key, value: impl Into<Secret<Vec<u8>>>, version: u64) -> Self {
        self.change(Change::Put { key, value: value.into(), version, lease: None })
    }

    /// Puts a value that is deleted when `lease` ends.
    #[must_use]
    pub fn put_leased(
        self,
        key: Key,
        value: impl Into<Secret<Vec<u8>>>,
        version: u64,
        lease: LeaseId,
    ) -> Self {
        self.change(Change::Put { key, value: value.into(), version, lease: Some(lease) })
    }

    /// Deletes version `version` of a key.
    #[must_use]
    pub fn delete(self, key: Key, version: u64) -> Self {
        self.change(Change::Delete { key, version })
    }

    /// Everything of another transaction as well.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.compares.extend(other.compares);
        self.changes.extend(other.changes);
        self
    }

    /// How many places it writes or looks at.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.compares.len().saturating_add(self.changes.len())
    }

    /// Adds a condition on a key that is not written.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

/// A store whose values are sealed.
#[derive(Clone, Debug)]
pub struct SealedStore {
    store: Arc<dyn Store>,
    keys: Arc<SealKeys>,
}

impl SealedStore {
    /// Seals and opens the values of `store` with `keys`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keys: SealKeys) -> Self {
        Self { store, keys: Arc::new(keys) }
    }

    /// The store below: watches, leases, compaction, state.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The present value of a key.
    ///
    /// # Errors
    /// [`SealError`]: the store's, or `ValueAltered`, `ValueReplayed`, `ValueSwapped`,
    /// `UnknownSealKey`.
    pub async fn get(&self, key: &Key) -> Result<Option<Opened>, SealError> {
        self.store.get(key).await?.map(|entry| self.open(entry)).transpose()
    }

    /// Values of a range; one that cannot be opened fails the whole answer.
    ///
    /// # Errors
    /// As [`SealedStore::get`].
    pub async fn range(&self, range: Range) -> Result<OpenedRange, SealError> {
        let reply = self.store.range(range).await?;
        let entries = reply.entries.into_iter().map(|entry| self.open(entry));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        Ok(OpenedRange { entries, more: reply.more, revision: reply.revision })
    }

    /// Opens an entry that came from the store below, for example from a watch.
    ///
    /// # Errors
    /// As [`SealedStore::get`].
    pub fn open(&self, entry: KeyValue) -> Result<Opened, SealError> {
        let value = cipher::open(&self.keys, &entry.key, entry.version, &entry.value)?;
        let KeyValue { key, create_revision, mod_revision, version, lease, .. } = entry;
        Ok(Opened { key, value, version, create_revision, mod_revision, lease })
    }

    /// Runs a transaction; `succeeded` is false if a version moved or a condition did not hold.
    ///
    /// # Errors
    /// The store's, [`SealError::TooLarge`], [`SealError::Cipher`].
    pub async fn txn(&self, txn: SealedTxn) -> Result<SealedReply, SealError> {
        let mut below = Txn { compares: txn.compares, ..Txn::default() };
        for change in txn.changes {
            below = self.seal(below, change)?;
        }
        let reply = self.store.txn(below).await?;
        Ok(SealedReply { succeeded: reply.succeeded, revision: reply.revision })
    }

    fn seal(&self, txn: Txn, change: Change) -> Result<Txn, SealError> {
        match change {
            Change::Delete { key, version } => {
                Ok(txn.when(Compare::Version(key.clone(), version)).then(Op::Delete(key)))
            }
            Change::Put { key, value, version, lease } => {
                let bytes = value.expose().len();
                if bytes > MAX_SEALED {
                    return Err(SealError::TooLarge { key, bytes });
                }
                let next = version.saturating_add(1);
                let value = cipher::seal(&self.keys, &key, next, value.expose())?;
                let compare = Compare::Version(key.clone(), version);
                Ok(txn.when(compare).then(Op::Put { key, value, lease }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
