//! What every back end must do, as checks that can be run on any of them: each gets a new, empty
//! store and says which rule it breaks. Not behind `cfg(test)`, so that a back end of another
//! crate, or a running cluster, can be held to it.

mod checks;

use std::sync::Arc;

use thiserror::Error;

use crate::{
    backend::{BoxFuture, Store},
    error::{StoreError, WatchError},
    key::KeyError,
};

/// A rule that a back end broke, or could not be asked about.
#[derive(Debug, Error)]
pub enum Nonconformance {
    /// The back end did something else.
    #[error("{rule}: {found}")]
    Broken {
        /// The rule.
        rule: &'static str,
        /// What it did.
        found: String,
    },
    /// A key of the suite is malformed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The back end could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A watch ended.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// What a check answers.
pub type Outcome = Result<(), Nonconformance>;

/// A check: it gets a new, empty store.
pub type Check = fn(Arc<dyn Store>) -> BoxFuture<'static, Outcome>;

/// All checks, by name.
pub const CHECKS: &[(&str, Check)] = &[
    ("a put is read back with its revisions", |store| Box::pin(checks::put_get(store))),
    ("a failed compare writes nothing", |store| Box::pin(checks::compares(store))),
    ("a transaction is one revision", |store| Box::pin(checks::one_revision(store))),
    ("a deleted key begins a new life", |store| Box::pin(checks::lives(store))),
    ("limits are enforced", |store| Box::pin(checks::limits(store))),
    ("ranges are ordered, bounded and paged", |store| Box::pin(checks::ranges(store))),
    ("the past is read as it was", |store| Box::pin(checks::past(store))),
    ("a watch sees every commit once", |store| Box::pin(checks::watch(store))),
    ("a watch waits for what comes", |store| Box::pin(checks::watch_live(store))),
    ("compacted revisions are refused", |store| Box::pin(checks::compaction(store))),
    ("leases end with their keys", |store| Box::pin(checks::leases(store))),
    ("one of many racing writers wins", |store| Box::pin(checks::race(store))),
    ("the hash chain covers every commit", |store| Box::pin(checks::chain(store))),
    ("a closed store answers nothing", |store| Box::pin(checks::closing(store))),
];

/// Runs all checks, each on a store of `make`.
///
/// # Errors
/// The name of the first check that failed, and why.
pub async fn run(
    mut make: impl AsyncFnMut() -> Arc<dyn Store>,
) -> Result<(), (&'static str, Nonconformance)> {
    for (name, check) in CHECKS {
        check(make().await).await.map_err(|broken| (*name, broken))?;
    }
    Ok(())
}
