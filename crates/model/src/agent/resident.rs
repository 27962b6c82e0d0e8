//! Keys that live in the host's TPM, as services of the host use them through the agent. What is
//! stored of such a key is wrapped for that TPM and is no secret.
//!
//! | route | answer |
//! |---|---|
//! | `POST /v1/keys` | [`ResidentKey`]: a new one |
//! | `POST /v1/keys/agree` with [`Agreement`] | [`Agreed`] |
//! | `POST /v1/keys/parent` with [`ParentFor`] | [`StorageParent`]: where a key may come to |
//! | `POST /v1/keys/duplicate` with [`Departure`] | [`Travelling`] |
//! | `POST /v1/keys/import` with [`Travelling`] | [`ResidentKey`] |

use serde::{Deserialize, Serialize};

use crate::{
    HostId, MigrationId,
    api::{Bytes, duplication::StorageParent},
    keys::order::SecretBytes,
};

/// A key in the host's TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResidentKey {
    /// Public area and private part, wrapped by the TPM.
    pub blob: Bytes,
    /// Its public half, an uncompressed P-256 point.
    pub point: Bytes,
}

/// What a key is to agree with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// [`ResidentKey::blob`].
    pub blob: Bytes,
    /// An uncompressed P-256 point.
    pub point: Bytes,
}

/// What they agree on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreed {
    /// The x coordinate, 32 octets.
    pub secret: SecretBytes,
}

/// For which migration a parent is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentFor {
    /// Which.
    pub migration: MigrationId,
    /// The host that a key comes from.
    pub source: HostId,
}

/// A key that is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Departure {
    /// [`ResidentKey::blob`].
    pub blob: Bytes,
    /// In which migration.
    pub migration: MigrationId,
    /// To which host.
    pub target: HostId,
    /// Under which key of its TPM.
    pub parent: StorageParent,
}

/// A key on its way: wrapped for its new parent, and inside that under a key of its own. Only the TPM
/// of the target gets anything out of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Travelling {
    /// The key's public area (TPMT_PUBLIC).
    pub public: Bytes,
    /// TPM2B_PRIVATE's content.
    pub duplicate: Bytes,
    /// TPM2B_ENCRYPTED_SECRET's content.
    pub seed: Bytes,
    /// The inner wrapper's key.
    pub inner: SecretBytes,
}
