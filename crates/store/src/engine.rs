//! The rules of the store over ordered tables of bytes, the same for every local back end: what a
//! transaction, lease, compaction or read does to or finds in the tables. `docs/formats/store.md`
//! describes the rows.
//!
//! **Invariant:** an operation that is refused has written nothing; any other error leaves the
//! tables in an unknown state and its batch must be dropped.

pub(crate) mod compact;
pub(crate) mod lease;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod rows;
pub(crate) mod scrub;
pub(crate) mod txn;

#[cfg(test)]
mod tests;
