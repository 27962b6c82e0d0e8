//! What the authority signs about the audit log.

use model::Digest;
use serde::{Deserialize, Serialize};

use crate::head::{Head, HeadParseError, Payload};

/// Size and root of the Merkle tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// Number of entries.
    pub size: u64,
    /// Merkle tree hash (RFC 6962 section 2.1) over them.
    pub root: Digest,
}

impl TreeHead {
    /// What a payload whose signature the caller has verified says about the log, be it a
    /// [`Head`] or a [`Checkpoint`]: what [`super::Open`] answers.
    ///
    /// # Errors
    /// [`HeadParseError`] says what is wrong with it.
    pub fn from_payload(payload: &[u8]) -> Result<Self, HeadParseError> {
        Ok(match Payload::parse(payload)? {
            Payload::StoreHead(head) => head.audit,
            Payload::AuditCheckpoint(checkpoint) => checkpoint.tree,
        })
    }
}

/// The payload of a DSSE envelope of kind `checkpoint` that covers the audit log alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Which log: the authority's name for it.
    pub log: String,
    /// Size and root.
    pub tree: TreeHead,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub at: u64,
}

impl Checkpoint {
    /// The bytes to sign: canonical JSON, fields in the order of the documentation.
    ///
    /// # Errors
    /// Those of the serializer; none is known for this type.
    pub fn to_payload(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Payload::<&Head, _>::AuditCheckpoint(self))
    }

    /// Parses a payload whose signature the caller has verified.
    ///
    /// # Errors
    /// [`HeadParseError`] says what is wrong with it.
    pub fn from_payload(payload: &[u8]) -> Result<Self, HeadParseError> {
        match Payload::parse(payload)? {
            Payload::AuditCheckpoint(checkpoint) => Ok(checkpoint),
            Payload::StoreHead(_) => Err(HeadParseError::Type),
        }
    }
}
