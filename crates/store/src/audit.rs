//! The audit log: typed entries, one canonical JSON line each, under a Merkle tree (RFC 6962) whose
//! root the authority signs. Entries and their leaf hashes are kept in files; [`verify_dir`] and
//! [`verify_files`] check them offline and name the first altered entry.
//!
//! ```text
//! DIR/segment-<first seq>.jsonl   entries
//! DIR/leaves.bin                  32 bytes for each entry
//! DIR/checkpoints.jsonl           signed checkpoints, as the authority's envelopes
//! ```
//! **Invariant:** an entry is answered only after its line and its leaf hash are durable. On open
//! only bytes that were never answered may be dropped, and that is itself an entry.

mod bundle;
mod checkpoint;
mod log;
mod recover;
pub mod tree;
mod verify;

use thiserror::Error;

use crate::error::StoreError;

pub use checkpoint::{Checkpoint, TreeHead};
pub use log::{AuditLog, Recovery};
pub use verify::{Open, Verified, verify, verify_dir, verify_files};

/// Longest line of an entry, in bytes.
pub const MAX_LINE: usize = 64 * 1024;
/// Longest envelope of a checkpoint, in bytes.
pub const MAX_ENVELOPE: usize = 16 * 1024;

/// Why the log does not pass.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuditRejection {
    /// A checkpoint's signature or content is not good.
    #[error("checkpoint {number} is not good: {reason}")]
    CheckpointInvalid {
        /// Its number in the file, from 0.
        number: usize,
        /// What the caller's verification said.
        reason: String,
    },
    /// Two signed checkpoints of one size have different roots.
    #[error("two signed checkpoints disagree about the first {size} entries")]
    CheckpointsForked {
        /// The size.
        size: u64,
    },
    /// This is the first entry that is not what was signed.
    #[error("entry {seq} is not the one that was recorded")]
    EntryAltered {
        /// Its index.
        seq: u64,
    },
    /// The first altered entry is in this interval; its stored hash was altered too.
    #[error("an entry from {from} to {} was altered together with the stored hashes", to.saturating_sub(1))]
    EntryAlteredWithin {
        /// First index of the interval.
        from: u64,
        /// End of the interval, excluded.
        to: u64,
    },
    /// The log ends before this entry, which was recorded.
    #[error("entry {seq} and all after it are missing")]
    EntryMissing {
        /// Its index.
        seq: u64,
    },
    /// A file does not have the documented form.
    #[error("{what}")]
    Malformed {
        /// Which, and what is wrong with it.
        what: String,
    },
    /// Nothing signed was given to check against.
    #[error("there is no signed checkpoint to verify against")]
    NoCheckpoint,
}

impl AuditRejection {
    /// The refusal's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CheckpointInvalid { .. } => "checkpoint-invalid",
            Self::CheckpointsForked { .. } => "checkpoints-forked",
            Self::EntryAltered { .. } | Self::EntryAlteredWithin { .. } => "entry-altered",
            Self::EntryMissing { .. } => "entry-missing",
            Self::Malformed { .. } => "audit-malformed",
            Self::NoCheckpoint => "no-checkpoint",
        }
    }

    /// Index of the first altered entry, or of the first that can be it.
    #[must_use]
    pub const fn first(&self) -> Option<u64> {
        match self {
            Self::EntryAltered { seq } | Self::EntryMissing { seq } => Some(*seq),
            Self::EntryAlteredWithin { from, .. } => Some(*from),
            Self::CheckpointInvalid { .. }
            | Self::CheckpointsForked { .. }
            | Self::Malformed { .. }
            | Self::NoCheckpoint => None,
        }
    }
}

/// The log could not do what it was asked.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The event's names are not kebab-case.
    #[error(transparent)]
    Event(#[from] model::audit::EventError),
    /// What is on disk is not what was recorded.
    #[error(transparent)]
    Rejected(#[from] AuditRejection),
    /// A file could not be read or written, or the log is closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
