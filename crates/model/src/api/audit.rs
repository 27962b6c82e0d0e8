//! The audit log as operators read it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::AuditEntry;

/// `GET /v1/audit?from=N&limit=N` (operator).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditPage {
    /// Entries, oldest first, beginning with number `from`.
    pub entries: Vec<AuditEntry>,
    /// Number of entries in the whole log.
    pub size: u64,
}

/// `GET /v1/audit/checkpoint` (operator): the signed head of the log's Merkle tree, with which an
/// export is verified offline.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditCheckpoint {
    /// DSSE envelope of kind `checkpoint`.
    pub checkpoint: serde_json::Value,
    /// Key that signed it, SubjectPublicKeyInfo, DER.
    pub signing_key: super::Bytes,
}

/// Why an operator does something of weight (`/revoke`, `/fence`), for the audit log.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// In words.
    #[serde(default)]
    pub reason: String,
}

/// `GET /v1/audit/export` (operator): the whole log with what verifies it offline.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditExport {
    /// The entries, one line of canonical JSON each.
    pub entries: String,
    /// The checkpoint bundle that belongs to them.
    pub checkpoint: String,
    /// Key that signed it, SubjectPublicKeyInfo, DER.
    pub signing_key: super::Bytes,
}
