//! Why a store may not start, or go on.

use serve::fsfile;
use store::{
    StoreError,
    head::{AnchorError, HeadParseError, HeadRejection},
    typed::RecordError,
};
use thiserror::Error;

use crate::counter::CounterError;

/// Why a store may not start, or go on.
#[derive(Debug, Error)]
pub enum AnchorFault {
    /// The counter moved without this store.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The audit log cannot be written.
    #[error("the audit log cannot be written")]
    Audit(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The counter cannot be read or moved.
    #[error(transparent)]
    Counter(#[from] CounterError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fsfile::FileError),
    /// The head is not the newest.
    #[error(transparent)]
    Head(#[from] HeadRejection),
    /// The head could not be read or made.
    #[error("the store's head is malformed")]
    Parse(#[from] HeadParseError),
    /// A record of the store.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The head could not be signed.
    #[error("the store's head cannot be signed")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The head's signature does not hold.
    #[error("the store's head is not signed by this service")]
    Signature(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task has ended.
    #[error("the store's anchor has stopped")]
    Stopped,
    /// The store was anchored before, and is to be opened without its counter.
    #[error("the store was anchored before, and the configuration names no counter for it")]
    Unanchored,
}

impl AnchorFault {
    /// The name of the refusal and a hint, if a rule said no: the process ends with exit status 3.
    #[must_use]
    pub const fn refusal(&self) -> Option<(&'static str, &'static str)> {
        const RESTORE: &str = "was the TPM replaced, or is another copy of this service running? \
            an explicit restore (`vouchsafe authority restore`, `vouchsafe-trust restore`, \
            `vouchsafe-centre restore`) begins a new incarnation";
        match self {
            Self::Head(rejection) => Some((rejection.name(), rejection.hint())),
            Self::Anchor(error) => Some((error.name(), RESTORE)),
            Self::Signature(_) | Self::Parse(_) => Some(("store-head-invalid", RESTORE)),
            Self::Counter(CounterError::Missing) | Self::Unanchored => {
                Some(("store-anchor-missing", RESTORE))
            }
            Self::Counter(CounterError::Refused { .. }) => {
                Some(("store-anchor-refused", "the agent's own table of counters is not in order"))
            }
            Self::Audit(_)
            | Self::Counter(CounterError::Failed(_))
            | Self::File(_)
            | Self::Record(_)
            | Self::Sign(_)
            | Self::Store(_)
            | Self::Stopped => None,
        }
    }

    /// Whether the counter could not be asked, and another try may help.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Counter(CounterError::Failed(_)))
    }
}

/// The refusal by a store's anchor among the causes of an error, for the end of a process.
pub fn refused<'a>(
    mut causes: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>,
) -> Option<serve::shell::Refused> {
    let fault = causes.find_map(|cause| cause.downcast_ref::<AnchorFault>())?;
    let (code, hint) = fault.refusal()?;
    tracing::error!(hint, "what can be done");
    Some(serve::shell::Refused { code, detail: fault.to_string() })
}
