//! Why a request was refused, and why a store could not answer.

use std::path::PathBuf;

use thiserror::Error;

use crate::{
    key::Key,
    types::{LeaseId, Revision},
};

/// A rule of the store said no; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestRejection {
    /// The revision asked for is older than the compaction.
    #[error("revision {asked} was compacted; the oldest is {compacted}")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest that can be read.
        compacted: Revision,
    },
    /// A branch of a transaction writes a key twice.
    #[error("the transaction writes {key} twice")]
    DuplicateKey {
        /// The key.
        key: Key,
    },
    /// The revision asked for has not happened.
    #[error("revision {asked} has not happened; the store is at {now}")]
    FutureRevision {
        /// The revision asked for.
        asked: Revision,
        /// The present one.
        now: Revision,
    },
    /// No such lease: never granted, revoked or ended.
    #[error("{lease:?} does not exist")]
    LeaseNotFound {
        /// The lease.
        lease: LeaseId,
    },
    /// Over [`crate::MAX_TXN_OPS`] compares and operations.
    #[error("the transaction has {ops} operations, the limit is 96")]
    TooManyOps {
        /// How many.
        ops: usize,
    },
    /// Over [`crate::MAX_TXN_BYTES`].
    #[error("the transaction has {bytes} bytes, the limit is 524288")]
    TxnTooLarge {
        /// How many.
        bytes: usize,
    },
    /// Over [`crate::MAX_VALUE`].
    #[error("the value of {key} has {bytes} bytes, the limit is 262144")]
    ValueTooLarge {
        /// The key.
        key: Key,
        /// How many.
        bytes: usize,
    },
}

impl RequestRejection {
    /// The refusal's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Compacted { .. } => "revision-compacted",
            Self::DuplicateKey { .. } => "duplicate-key",
            Self::FutureRevision { .. } => "future-revision",
            Self::LeaseNotFound { .. } => "lease-not-found",
            Self::TooManyOps { .. } => "too-many-ops",
            Self::TxnTooLarge { .. } => "txn-too-large",
            Self::ValueTooLarge { .. } => "value-too-large",
        }
    }
}

/// A store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store was closed, or its writer ended.
    #[error("the store is closed")]
    Closed,
    /// A row does not have the documented form.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// Which row, and what is wrong with it.
        what: String,
    },
    /// The database engine could not read or write.
    #[error("the store's database could not {doing}")]
    Database {
        /// What it was doing.
        doing: &'static str,
        /// What it says.
        #[source]
        source: Box<redb::Error>,
    },
    /// An earlier commit failed: what is durable is known only after opening the store again.
    #[error("an earlier commit of the store failed; open it again")]
    Failed,
    /// The file has a format of another version.
    #[error("the store has format {found}, this program reads formats 1 and 2")]
    Format {
        /// The version found.
        found: u32,
    },
    /// A file could not be read or written.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the file open.
    #[error("{} is open in another process; only one may use a store", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// A rule said no.
    #[error(transparent)]
    Rejected(#[from] RequestRejection),
}

impl StoreError {
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    pub(crate) fn database<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Database { doing, source: Box::new(source.into()) }
    }
}

/// Why a watch ended.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The revisions that it had to read were compacted: read the range again and watch from there.
    #[error("revision {next} was compacted; the oldest is {compacted}")]
    Compacted {
        /// The revision that the watch had to read.
        next: Revision,
        /// The oldest that can be read.
        compacted: Revision,
    },
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
