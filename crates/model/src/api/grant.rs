//! Grants: the only way a VM key reaches a host.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Bytes, anchor::AnchorStart};
use crate::{Digest, Epoch, GrantId, HostId, Incarnation, Kmi, OperationId, VmId};

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GrantPurpose {
    /// Boot volume and vTPM; follows the host's verdict. Plaintext: volume key, vTPM state key,
    /// vTPM migration key, vTPM AK authValue, 32 bytes each, in this order.
    Boot,
    /// Data volume; follows the guest's verdict. Plaintext: data volume key, 32 bytes.
    Data,
}

/// `POST /v1/vms/{vm}/grant` (host).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// The operation that needs the keys; at most one grant of a purpose is made for each
    /// `request`.
    pub operation: OperationId,
    /// Made by the host, new for each try; a second use is refused as `grant-used`.
    pub request: GrantId,
    /// Which keys.
    pub purpose: GrantPurpose,
    /// The epoch that the host believes in; another is refused as `grant-epoch-moved`.
    pub epoch: Epoch,
}

/// What is signed (DSSE payload, kind `grant`). HPKE info is [`GrantInfo`] as canonical JSON of
/// this structure without the sealed part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Who, what, when.
    pub info: GrantInfo,
    /// HPKE encapsulated key.
    pub enc: Bytes,
    /// HPKE ciphertext; associated data is the word of the purpose.
    pub sealed: Bytes,
}

/// Everything a grant is bound to; serialised with `serde_json::to_vec`, it is HPKE's `info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantInfo {
    /// Used once; equals the request's id.
    pub id: GrantId,
    /// The store's incarnation.
    pub incarnation: Incarnation,
    /// For which VM.
    pub vm: VmId,
    /// To which host.
    pub host: HostId,
    /// In which epoch.
    pub epoch: Epoch,
    /// Which keys.
    pub purpose: GrantPurpose,
    /// Finds the key.
    pub kmi: Kmi,
    /// Digest of the verdict that earned it.
    pub verdict: Digest,
    /// When it was made.
    pub issued_at: u64,
    /// When it stops working.
    pub expires_at: u64,
    /// Until when its keys may be cached under the TPM guard.
    pub lease_until: u64,
    /// Two operators want the volume to be taken for the newest although it is older: the host
    /// counts on from there instead of refusing it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reanchor: bool,
    /// What the authority's record says of the volume's count; absent while none was reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<AnchorStart>,
}

/// Answer to [`GrantRequest`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantAnswer {
    /// The signed grant (DSSE envelope around [`Grant`]).
    pub grant: serde_json::Value,
}

/// `POST /v1/vms/{vm}/key` (host): deposit of what the host generated: the master key (key origins
/// `tcb` and `tpm`), its key-management information (KMI origins `tcb` and `tpm`), or both. Exactly
/// what the VM's origins leave to the host; accepted once, before the first grant.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyDeposit {
    /// The operation under way.
    pub operation: OperationId,
    /// The master key, if the host generates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<DepositedKey>,
    /// The `key_id` of its KMI, if the host makes it. SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Digest>,
}

/// A master key on its way to the authority.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DepositedKey {
    /// HPKE encapsulated key, to the authority's deposit key.
    pub enc: Bytes,
    /// HPKE ciphertext of the 32-byte VMK; info is `vouchsafe:vmk-deposit:v1:<vm>`.
    pub sealed: Bytes,
}

impl std::fmt::Debug for KeyDeposit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyDeposit(..)")
    }
}

impl std::fmt::Debug for DepositedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DepositedKey(..)")
    }
}
