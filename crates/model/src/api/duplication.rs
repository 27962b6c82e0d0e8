//! Leave for a key to go from one host's TPM into another's, as the authority gives it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Bytes;
use crate::{HostId, MigrationId};

/// A key of a target's TPM that another TPM's key may be duplicated under, certified by the AK of
/// that host for one migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StorageParent {
    /// Its public area (TPMT_PUBLIC).
    pub public: Bytes,
    /// TPM2_Certify's statement (TPMS_ATTEST), bound to the migration and both hosts.
    pub attest: Bytes,
    /// The AK's signature over it (TPMT_SIGNATURE).
    pub signature: Bytes,
}

/// `POST /v1/duplications` (host session of the source).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DuplicationRequest {
    /// In which migration.
    pub migration: MigrationId,
    /// The host that is to have the key.
    pub target: HostId,
    /// The key's Name.
    pub key: Bytes,
    /// Where it is to go.
    pub parent: StorageParent,
}

/// Answer to [`DuplicationRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DuplicationApproval {
    /// The authority's signature (ECDSA-Sig-Value, DER), which the source's TPM checks
    /// (TPM2_PolicyAuthorize).
    pub signature: Bytes,
}
