//! The store's head: what the authority signs, anchors in an NV counter of its TPM and leaves with
//! a witness, so that an older or another store refuses to start.
//!
//! ```text
//!            write head(T+1)        increment
//!  head T, counter T ──► head T+1, counter T ──► head T+1, counter T+1
//!                         (crash: resume here)
//! ```
//! A head is written before the counter moves, so a start accepts a head at T or T+1 and never one
//! behind. [`Fresh::steps`] then moves the counter past every copy that could exist before the
//! first write is acknowledged: a copy taken in the crash window is at most at T+1, and the steps
//! end above that. [`anchor`] holds the protocol; signing and the TPM belong to the caller.
//!
//! **Invariant:** pure; no I/O, no clock, no signature. Deliberately absent: protection of what was
//! committed after the last head: it is as durable as the store, but only the next head makes its
//! loss noticed. Anchor before anything that must never be forgotten.

pub mod anchor;

use model::{Digest, Incarnation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    audit::{Checkpoint, TreeHead},
    backend::{State, StoreId},
    types::Revision,
};

pub use anchor::{Anchor, AnchorError, Step};

/// Longest payload of a head or checkpoint, in bytes.
pub const MAX_PAYLOAD: usize = 4096;

/// What the authority signs: the payload of a DSSE envelope of kind `checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The store.
    pub store: StoreId,
    /// The commit that the head covers.
    pub revision: Revision,
    /// Head of the hash chain over all commits up to `revision`.
    pub commit: Digest,
    /// The audit log at that time.
    pub audit: TreeHead,
    /// Value of the TPM's NV counter that belongs to this head.
    pub counter: u64,
    /// Counts the explicit restores.
    pub incarnation: Incarnation,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub at: u64,
}

/// Why a payload is not a head.
#[derive(Debug, Error)]
pub enum HeadParseError {
    /// Over [`MAX_PAYLOAD`] bytes.
    #[error("a head has at most 4096 bytes")]
    Length,
    /// Not the JSON of a head or checkpoint.
    #[error("this is not a head of a store or a checkpoint of its log")]
    Malformed(#[source] serde_json::Error),
    /// A head where a checkpoint is due, or the reverse.
    #[error("a signed document of another type is due here")]
    Type,
}

/// Everything that is signed as a `checkpoint`; the tag keeps one from serving as the other.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Payload<H, C> {
    StoreHead(H),
    AuditCheckpoint(C),
}

impl Payload<Head, Checkpoint> {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, HeadParseError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(HeadParseError::Length);
        }
        serde_json::from_slice(payload).map_err(HeadParseError::Malformed)
    }
}

impl Head {
    /// The head of a store in `state`, for the next value of the counter.
    #[must_use]
    pub const fn new(
        state: &State,
        audit: TreeHead,
        counter: u64,
        incarnation: Incarnation,
        at: u64,
    ) -> Self {
        Self {
            store: state.id,
            revision: state.revision,
            commit: state.commit,
            audit,
            counter,
            incarnation,
            at,
        }
    }

    /// The bytes to sign: canonical JSON, fields in the order of the documentation.
    ///
    /// # Errors
    /// Those of the serializer; none is known for this type.
    pub fn to_payload(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Payload::<_, &Checkpoint>::StoreHead(self))
    }

    /// Parses a payload whose signature the caller has verified.
    ///
    /// # Errors
    /// [`HeadParseError`] says what is wrong with it.
    pub fn from_payload(payload: &[u8]) -> Result<Self, HeadParseError> {
        match Payload::parse(payload)? {
            Payload::StoreHead(head) => Ok(head),
            Payload::AuditCheckpoint(_) => Err(HeadParseError::Type),
        }
    }
}

/// Why a store may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadRejection {
    /// The head is ahead of the counter by more than one: not this TPM's counter, or it was reset.
    #[error("the head has counter {head}, the TPM has {anchored}: this is not its anchor")]
    AnchorMismatch {
        /// Counter of the head.
        head: u64,
        /// Counter of the TPM.
        anchored: u64,
    },
    /// The audit log has other entries than the head says.
    #[error("the audit log is not the one that the head covers")]
    AuditForked,
    /// The audit log is shorter than the head says.
    #[error("the audit log has {found} entries, the head covers {covered}")]
    AuditRolledBack {
        /// Entries there are.
        found: u64,
        /// Entries that the head covers.
        covered: u64,
    },
    /// The head belongs to another store.
    #[error("the head belongs to store {head}, this is {found}")]
    ForeignHead {
        /// Store of the head.
        head: StoreId,
        /// This store.
        found: StoreId,
    },
    /// The counter is in use but there is no head.
    #[error("the store's head is missing though its counter is at {anchored}")]
    Missing {
        /// Counter of the TPM.
        anchored: u64,
    },
    /// The store has another history than the head or the witness says.
    #[error("the store has another history than its head at revision {revision}")]
    StoreForked {
        /// Where they differ.
        revision: Revision,
    },
    /// The head is behind the counter or the witness, or the store is behind its head.
    #[error("the store is older than the newest that was anchored")]
    StoreRolledBack,
}

impl HeadRejection {
    /// The refusal's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::AnchorMismatch { .. } => "store-anchor-mismatch",
            Self::AuditForked => "audit-forked",
            Self::AuditRolledBack { .. } => "audit-rolled-back",
            Self::ForeignHead { .. } => "store-foreign-head",
            Self::Missing { .. } => "store-head-missing",
            Self::StoreForked { .. } => "store-forked",
            Self::StoreRolledBack => "store-rolled-back",
        }
    }

    /// What an operator can do next.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::AnchorMismatch { .. } | Self::Missing { .. } => {
                "was the TPM cleared or replaced? an explicit restore begins a new incarnation"
            }
            Self::AuditForked | Self::AuditRolledBack { .. } => {
                "`vouchsafe audit verify` names the first altered entry"
            }
            Self::ForeignHead { .. } => "the head file and the store are not from the same service",
            Self::StoreForked { .. } | Self::StoreRolledBack => {
                "put the newest store back; an explicit restore makes an older one valid: `vouchsafe authority restore` (with the recovery shares), `vouchsafe-trust restore`, `vouchsafe-centre restore`"
            }
        }
    }
}

/// What is found on disk, gathered before [`check`]: the answers of [`crate::Store::state`],
/// [`crate::Store::commit_at`] and [`crate::audit::AuditLog::root_at`].
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The store as it is.
    pub state: &'a State,
    /// Its commit at the head's revision.
    pub commit_at_head: Option<Digest>,
    /// Its commit at the witness's revision.
    pub commit_at_witness: Option<Digest>,
    /// Entries of the audit log.
    pub audit_size: u64,
    /// Root of the audit log at the size that the head covers.
    pub audit_root_at_head: Option<Digest>,
}

/// The head is the newest there is. Only [`check`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    counter: u64,
    steps: Opening,
}

/// What remains to be done before the first write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Head and counter are both at T.
    Level,
    /// The head is at T+1: a crash came between the write and the increment.
    HeadAhead,
}

impl Fresh {
    /// The value that the TPM's counter has now.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// What the caller does, in this order, before it acknowledges the first write. Afterwards
    /// head and counter are at T+2, above every copy that [`check`] could have accepted before.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let finish = Step::Increment { expect: self.counter.saturating_add(1) };
        let one = self.counter.saturating_add(1);
        let two = self.counter.saturating_add(2);
        let last = [Step::WriteHead { counter: two }, Step::Increment { expect: two }];
        let first = match self.steps {
            Opening::Level => vec![Step::WriteHead { counter: one }, finish],
            Opening::HeadAhead => vec![finish],
        };
        first.into_iter().chain(last).collect()
    }
}

/// Decides whether the store may start. `head` and `witness` are heads whose signatures the caller
/// has verified; `anchored` is the TPM's counter; `witness` is the newest head that was left
/// elsewhere, if that place can be read.
///
/// # Errors
/// [`HeadRejection`]: nothing may be granted from this store.
pub fn check(
    head: Option<&Head>,
    anchored: u64,
    witness: Option<&Head>,
    found: &Found<'_>,
) -> Result<Fresh, HeadRejection> {
    let head = head.ok_or(HeadRejection::Missing { anchored })?;
    if head.store != found.state.id {
        return Err(HeadRejection::ForeignHead { head: head.store, found: found.state.id });
    }
    let steps = check_counter(head.counter, anchored)?;
    covers(head, found.state, found.commit_at_head)?;
    if let Some(witness) = witness {
        check_witness(head, witness, anchored, found)?;
    }
    if found.audit_size < head.audit.size {
        let covered = head.audit.size;
        return Err(HeadRejection::AuditRolledBack { found: found.audit_size, covered });
    }
    if found.audit_root_at_head != Some(head.audit.root) {
        return Err(HeadRejection::AuditForked);
    }
    Ok(Fresh { counter: anchored, steps })
}

const fn check_counter(head: u64, anchored: u64) -> Result<Opening, HeadRejection> {
    if head < anchored {
        return Err(HeadRejection::StoreRolledBack);
    }
    match head.saturating_sub(anchored) {
        0 => Ok(Opening::Level),
        1 => Ok(Opening::HeadAhead),
        _ => Err(HeadRejection::AnchorMismatch { head, anchored }),
    }
}

/// The store contains the history that `head` covers.
fn covers(head: &Head, state: &State, commit: Option<Digest>) -> Result<(), HeadRejection> {
    if state.revision < head.revision {
        return Err(HeadRejection::StoreRolledBack);
    }
    if commit == Some(head.commit) {
        Ok(())
    } else {
        Err(HeadRejection::StoreForked { revision: head.revision })
    }
}

fn check_witness(
    head: &Head,
    witness: &Head,
    anchored: u64,
    found: &Found<'_>,
) -> Result<(), HeadRejection> {
    if witness.store != head.store {
        return Err(HeadRejection::ForeignHead { head: witness.store, found: head.store });
    }
    if witness.incarnation < head.incarnation {
        // An explicit restore was signed since; what came before it does not count.
        return Ok(());
    }
    if witness.incarnation > head.incarnation || witness.revision > found.state.revision {
        return Err(HeadRejection::StoreRolledBack);
    }
    if witness.counter > anchored.saturating_add(1) {
        return Err(HeadRejection::AnchorMismatch { head: witness.counter, anchored });
    }
    if witness.counter < head.counter && witness.revision < found.state.compacted {
        // Too old to compare, and the head above it has been checked.
        return Ok(());
    }
    covers(witness, found.state, found.commit_at_witness)
}

#[cfg(test)]
mod tests;
