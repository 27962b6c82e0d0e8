//! The store: an etcd-shaped [`Store`] (get, range, txn with compares, watch from a revision,
//! leases, compaction) with back ends in memory and in one file; [`sealed`] values above it; the
//! signed and anchored [`head`]; the Merkle [`audit`] log; and [`conformance`], the suite that any
//! back end must pass.
//!
//! ```text
//! SealedStore ─► dyn Store ─► LocalStore ─► writer thread (group commit) ─► engine ─► tables
//! AuditLog ────────────────────────────────► writer thread (group commit) ─► segment files
//! head, audit::tree, audit::verify: pure
//! ```
//!
//! **Invariants:** what was answered is durable; a commit is a revision and every revision is
//! linked into a hash chain in the same transaction; nothing here knows a clock, signs anything or
//! logs a value. Deliberately absent: the TPM and signatures, which are the authority's.

pub mod audit;
pub mod backend;
pub mod conformance;
pub mod durable;
pub mod error;
pub mod head;
pub mod key;
pub mod sealed;
pub mod typed;
pub mod types;

mod codec;
mod digest;
mod engine;
mod file;
mod local;
mod memory;
mod wait;
mod writer;

pub use backend::{BoxFuture, State, Store, StoreId, Watch};
pub use error::{RequestRejection, StoreError, WatchError};
pub use key::{Key, KeyError, MAX_KEY, Prefix};
pub use local::LocalStore;
pub use sealed::{KeyId, SealError, SealKeys, SealedStore, SealedTxn};
pub use types::{
    Batch, Compare, Event, KeyValue, Lease, LeaseId, MAX_RANGE, MAX_RANGE_BYTES, MAX_TXN_BYTES,
    MAX_TXN_OPS, MAX_VALUE, Op, OpReply, Range, RangeReply, Revision, Span, Txn, TxnReply,
};
pub use wait::wait;
