//! What is asked of a store and what it answers. The shapes are those of etcd's key-value service,
//! so that an etcd back end is a translation: one transaction is one revision, `version` counts the
//! puts of one life of a key, compares decide between two lists of operations.

use std::{collections::BTreeSet, fmt};

use crate::{
    error::RequestRejection,
    key::{Key, Prefix},
};

/// Counts the commits of a store; 0 is the empty store.
pub type Revision = u64;

/// Most operations in one transaction, compares and both branches together.
pub const MAX_TXN_OPS: usize = 96;
/// Most bytes of keys and values in one transaction.
pub const MAX_TXN_BYTES: usize = 512 * 1024;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 256 * 1024;
/// Most entries that one range answers.
pub const MAX_RANGE: usize = 10_000;
/// A range stops after this many bytes of values and says that there is more.
pub const MAX_RANGE_BYTES: usize = 16 * 1024 * 1024;

/// A lease: keys that are bound to it are deleted when it ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {:x}", self.0)
    }
}

/// A lease as the store holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its identifier.
    pub id: LeaseId,
    /// How long a keep-alive extends it, in milliseconds.
    pub ttl_ms: u64,
    /// When it ends, in the milliseconds of the caller's clock.
    pub expires_at: u64,
}

/// A key with its value and history.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Vec<u8>,
    /// Revision at which this life of the key began.
    pub create_revision: Revision,
    /// Revision of the last put.
    pub mod_revision: Revision,
    /// Number of puts in this life of the key, from 1.
    pub version: u64,
    /// The lease that the key is bound to.
    pub lease: Option<LeaseId>,
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("key", &self.key)
            .field("value_len", &self.value.len())
            .field("create_revision", &self.create_revision)
            .field("mod_revision", &self.mod_revision)
            .field("version", &self.version)
            .field("lease", &self.lease)
            .finish()
    }
}

/// Which keys a range covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Every key with this prefix.
    Prefix(Prefix),
    /// From the first key, included, to the second, excluded.
    Between(Key, Key),
}

/// A question for a range of keys, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which keys.
    pub span: Span,
    /// Only keys after this one: the last key of the page before.
    pub after: Option<Key>,
    /// Most entries, at most [`MAX_RANGE`].
    pub limit: usize,
    /// The state at this revision, or the present one.
    pub at: Option<Revision>,
}

impl Range {
    /// All keys with `prefix`, up to [`MAX_RANGE`] of them, at present.
    #[must_use]
    pub const fn prefix(prefix: Prefix) -> Self {
        Self { span: Span::Prefix(prefix), after: None, limit: MAX_RANGE, at: None }
    }

    /// All keys from `start`, included, to `end`, excluded.
    #[must_use]
    pub const fn between(start: Key, end: Key) -> Self {
        Self { span: Span::Between(start, end), after: None, limit: MAX_RANGE, at: None }
    }

    /// At most `limit` entries.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The state at revision `at`.
    #[must_use]
    pub const fn at(mut self, at: Revision) -> Self {
        self.at = Some(at);
        self
    }

    /// Only keys after `key`.
    #[must_use]
    pub fn after(mut self, key: Key) -> Self {
        self.after = Some(key);
        self
    }
}

/// The answer to a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeReply {
    /// The entries, in key order.
    pub entries: Vec<KeyValue>,
    /// Whether the limit cut the answer; ask again `after` the last key, `at` this revision.
    pub more: bool,
    /// The revision that the answer shows.
    pub revision: Revision,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(Key),
    /// The key exists.
    Present(Key),
    /// The key was last put at this revision (0: it does not exist).
    ModRevision(Key, Revision),
    /// The key has this version (0: it does not exist).
    Version(Key, u64),
}

impl Compare {
    /// The key that is compared.
    #[must_use]
    pub const fn key(&self) -> &Key {
        match self {
            Self::Absent(key)
            | Self::Present(key)
            | Self::ModRevision(key, _)
            | Self::Version(key, _) => key,
        }
    }
}

/// An operation of a transaction.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Reads a key, after the operations before it.
    Get(Key),
    /// Puts a value; a key keeps no lease that is not named again.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Vec<u8>,
        /// The lease that deletes the key when it ends.
        lease: Option<LeaseId>,
    },
    /// Deletes a key.
    Delete(Key),
}

impl Op {
    /// A put without a lease.
    pub fn put(key: Key, value: impl Into<Vec<u8>>) -> Self {
        Self::Put { key, value: value.into(), lease: None }
    }

    /// The key that is read or written.
    #[must_use]
    pub const fn key(&self) -> &Key {
        match self {
            Self::Get(key) | Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }

    const fn value_len(&self) -> usize {
        match self {
            Self::Get(_) | Self::Delete(_) => 0,
            Self::Put { value, .. } => value.len(),
        }
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(key) => write!(f, "Get({key})"),
            Self::Put { key, value, lease } => {
                write!(f, "Put({key}, {} bytes, {lease:?})", value.len())
            }
            Self::Delete(key) => write!(f, "Delete({key})"),
        }
    }
}

/// A transaction: if every compare holds then one list of operations, else the other, all or
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions; none means `then`.
    pub compares: Vec<Compare>,
    /// What is done if they all hold.
    pub then: Vec<Op>,
    /// What is done if one does not.
    pub otherwise: Vec<Op>,
}

impl Txn {
    /// A transaction that does nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One unconditional put.
    pub fn put(key: Key, value: impl Into<Vec<u8>>) -> Self {
        Self::new().then(Op::put(key, value))
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds an operation for the case that all conditions hold.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.then.push(op);
        self
    }

    /// Adds an operation for the case that a condition does not hold.
    #[must_use]
    pub fn otherwise(mut self, op: Op) -> Self {
        self.otherwise.push(op);
        self
    }

    /// Checks what can be checked without a store.
    ///
    /// # Errors
    /// `TooManyOps`, `ValueTooLarge`, `TxnTooLarge`, or `DuplicateKey` if a branch writes a key
    /// twice.
    pub fn check(&self) -> Result<(), RequestRejection> {
        let ops = self.compares.len() + self.then.len() + self.otherwise.len();
        if ops > MAX_TXN_OPS {
            return Err(RequestRejection::TooManyOps { ops });
        }
        if let Some(op) = self.ops().find(|op| op.value_len() > MAX_VALUE) {
            let bytes = op.value_len();
            return Err(RequestRejection::ValueTooLarge { key: op.key().clone(), bytes });
        }
        let bytes = self.bytes();
        if bytes > MAX_TXN_BYTES {
            return Err(RequestRejection::TxnTooLarge { bytes });
        }
        no_duplicates(&self.then)?;
        no_duplicates(&self.otherwise)
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let compares: usize = self.compares.iter().map(|c| c.key().as_bytes().len()).sum();
        let ops: usize = self.ops().map(|op| op.key().as_bytes().len() + op.value_len()).sum();
        compares + ops
    }

    fn ops(&self) -> impl Iterator<Item = &Op> {
        self.then.iter().chain(&self.otherwise)
    }
}

fn no_duplicates(ops: &[Op]) -> Result<(), RequestRejection> {
    let mut written = BTreeSet::new();
    for op in ops {
        let writes = match op {
            Op::Get(_) => false,
            Op::Put { .. } | Op::Delete(_) => true,
        };
        if writes && !written.insert(op.key()) {
            return Err(RequestRejection::DuplicateKey { key: op.key().clone() });
        }
    }
    Ok(())
}

/// What one operation answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpReply {
    /// What a get found.
    Got(Option<KeyValue>),
    /// The version that a put made.
    Put {
        /// Version of the key now.
        version: u64,
    },
    /// Whether a delete found the key.
    Deleted {
        /// It was there.
        existed: bool,
    },
}

/// What a transaction answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnReply {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The store's revision after the transaction; a transaction that changes nothing makes none.
    pub revision: Revision,
    /// One answer for each operation of the branch that was taken.
    pub responses: Vec<OpReply>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A put, with the key as it is after it.
    Put(KeyValue),
    /// A delete.
    Delete(Key),
}

impl Event {
    /// The key that changed.
    #[must_use]
    pub const fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }
}

/// All changes under a watched prefix that one commit made, never split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The commit.
    pub revision: Revision,
    /// Its changes, in the order of its operations; never empty.
    pub events: Vec<Event>,
}
