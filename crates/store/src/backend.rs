//! The trait that every back end implements. Object-safe: the authority holds `Arc<dyn Store>`.

use std::{fmt, pin::Pin};

use model::Digest;

use crate::{
    error::{StoreError, WatchError},
    key::{Key, Prefix},
    types::{Batch, KeyValue, Lease, LeaseId, Range, RangeReply, Revision, Txn, TxnReply},
};

/// A future that owns or borrows what it needs for `'a`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a store is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Random identifier, made with the store.
    pub id: StoreId,
    /// The last commit.
    pub revision: Revision,
    /// The oldest revision that can be read.
    pub compacted: Revision,
    /// Head of the hash chain over all commits up to `revision`.
    pub commit: Digest,
}

impl State {
    /// Where to compact to, so that the last `kept` revisions stay; none as long as fewer than that
    /// would be forgotten, so that a store that rests is left alone.
    #[must_use]
    pub fn compaction(&self, kept: u64) -> Option<Revision> {
        let until = self.revision.saturating_sub(kept);
        (until.saturating_sub(self.compacted) >= kept.max(1)).then_some(until)
    }
}

/// A store's random identifier; a copy of a store has the same.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct StoreId(#[serde(with = "hex")] pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key-value store with revisions, shaped like etcd.
///
/// Every answer to a write means that the write is durable. Reads see every write that was
/// answered before they began. A call that is dropped before its answer may still take effect.
/// Time comes in from the caller, in milliseconds of one clock that never runs back by much: a
/// lease is only ended by [`Store::lease_expire`].
pub trait Store: Send + Sync + fmt::Debug {
    /// The present value of a key.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<KeyValue>, StoreError>>;

    /// Keys of a range in order, at present or at a revision that is not compacted.
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeReply, StoreError>>;

    /// Runs a transaction, atomically and in one revision.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnReply, StoreError>>;

    /// Every commit from revision `from` on that touches `prefix`, in order and without gaps.
    /// To follow a range, watch from its revision + 1.
    fn watch(
        &self,
        prefix: Prefix,
        from: Revision,
    ) -> BoxFuture<'_, Result<Box<dyn Watch>, WatchError>>;

    /// Grants a lease that ends `ttl_ms` after `now`.
    fn lease_grant(&self, ttl_ms: u64, now: u64) -> BoxFuture<'_, Result<Lease, StoreError>>;

    /// Extends a lease to its time to live after `now`. A lease that has ended at `now` is
    /// `LeaseNotFound`, even if its keys are not deleted yet.
    fn lease_keepalive(&self, id: LeaseId, now: u64) -> BoxFuture<'_, Result<Lease, StoreError>>;

    /// Ends a lease and deletes its keys, in one revision.
    fn lease_revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Ends all leases whose time has come at `now`; answers which.
    fn lease_expire(&self, now: u64) -> BoxFuture<'_, Result<Vec<LeaseId>, StoreError>>;

    /// Forgets all history before `revision`; reads at `revision` and later still work. The
    /// compaction is itself a commit (without events), so that the hash chain covers it. It reads
    /// the whole state, beside other calls, which do not wait for that.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// The present revision, the hash chain's head, and so on. Also the health check: it fails if
    /// the store cannot be read or an earlier commit failed.
    fn state(&self) -> BoxFuture<'_, Result<State, StoreError>>;

    /// Head of the hash chain after commit `revision`; `None` if that was compacted or has not
    /// happened. For the check of a signed head.
    fn commit_at(&self, revision: Revision) -> BoxFuture<'_, Result<Option<Digest>, StoreError>>;

    /// Recomputes the hash chain and the present state from the oldest revision on and compares
    /// them with what is stored. Reads everything.
    fn scrub(&self) -> BoxFuture<'_, Result<State, StoreError>>;

    /// Answers all that was asked, then releases the store. Later calls fail with `Closed`.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// A running watch. Dropping it ends it; [`Watch::next`] may be cancelled without losing a batch.
pub trait Watch: Send + fmt::Debug {
    /// The next commit that touches the prefix; waits for one.
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, WatchError>>;
}
