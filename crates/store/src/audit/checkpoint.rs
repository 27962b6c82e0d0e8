//! What the authority signs about the audit log.

use model::Digest;
use serde::{Deserialize, Serialize};

use crate::head::{HeadParseError, MAX_PAYLOAD};

/// Size and root of the Merkle tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// Number of entries.
    pub size: u64,
    /// Merkle tree hash (RFC 6962 section 2.1) over them.
    pub root: Digest,
}

/// The payload of a DSSE envelope of kind `checkpoint` that covers the audit log alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "audit-checkpoint", deny_unknown_fields)]
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
        serde_json::to_vec(self)
    }

    /// Parses a payload whose signature the caller has verified.
    ///
    /// # Errors
    /// [`HeadParseError`] says what is wrong with it.
    pub fn from_payload(payload: &[u8]) -> Result<Self, HeadParseError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(HeadParseError::Length);
        }
        serde_json::from_slice(payload).map_err(HeadParseError::Malformed)
    }
}
