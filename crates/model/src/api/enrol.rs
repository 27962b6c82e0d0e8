//! How a host becomes known (credential activation) and how it proves itself (evidence for a
//! session certificate).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Bytes;
use crate::{HostId, Nonce, OperationId};

/// `POST /v1/tokens` (operator): asks for a one-time enrolment token for one host name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The name that the token will admit.
    pub host: HostId,
}

/// Answer to [`TokenRequest`]. The token is shown once; the authority keeps only its digest.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenAnswer {
    /// 64 hexadecimal digits.
    pub token: String,
    /// When it stops working.
    pub expires_at: u64,
}

/// `POST /v1/hosts/enrol`: a host presents its TPM.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The name it was given a token for.
    pub host: HostId,
    /// The one-time token.
    pub token: String,
    /// EK certificate, DER, as read from the TPM's NV.
    pub ek_certificate: Bytes,
    /// Intermediate certificates, DER, leaf side first.
    pub ek_intermediates: Vec<Bytes>,
    /// EK public area, TPMT_PUBLIC (TPM 2.0 part 2, 12.2.4).
    pub ek_public: Bytes,
    /// AK public area, TPMT_PUBLIC.
    pub ak_public: Bytes,
}

/// Answer to [`EnrolRequest`]: only the TPM that holds both the EK and the AK can open it
/// (TPM2_ActivateCredential).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolChallenge {
    /// Names this enrolment in the next call.
    pub enrolment: OperationId,
    /// Content of the TPM2B_ID_OBJECT, without its length.
    pub credential_blob: Bytes,
    /// Content of the TPM2B_ENCRYPTED_SECRET, without its length.
    pub encrypted_secret: Bytes,
}

/// `POST /v1/hosts/enrol/{enrolment}`: the opened secret.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolProof {
    /// What TPM2_ActivateCredential returned.
    pub secret: Bytes,
}

impl std::fmt::Debug for EnrolProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnrolProof(..)")
    }
}

/// Whether a host may hold keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostMode {
    /// Enrolled, waiting for an operator's approval: no verdicts, no grants.
    Pending,
    /// Gets verdicts and, while they are good, grants.
    Enforcing,
    /// Gets verdicts, never grants.
    AuditOnly,
    /// Refused everything; its AK certificate is on the CRL.
    Revoked,
}

/// Answer to [`EnrolProof`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Where the host stands now.
    pub mode: HostMode,
    /// AK certificate by the privacy CA, DER.
    pub ak_certificate: Bytes,
    /// The CA's certificate, DER.
    pub ca_certificate: Bytes,
    /// Key that signs grants and verdicts, SubjectPublicKeyInfo, DER.
    pub signing_key: Bytes,
}

/// What a nonce will be used for; a nonce of one kind is refused for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChallengePurpose {
    /// Evidence of the host itself.
    HostAttest,
    /// Evidence of a guest, from its vTPM.
    GuestAttest,
}

/// `POST /v1/challenges`: asks for a nonce.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRequest {
    /// Who will answer.
    pub host: HostId,
    /// For what.
    pub purpose: ChallengePurpose,
    /// The host's clock; too far from the authority's, and the request is refused as `clock-skew`.
    pub now: u64,
}

/// Answer to [`ChallengeRequest`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// To be bound into qualifyingData; used once.
    pub nonce: Nonce,
    /// When the nonce stops working.
    pub expires_at: u64,
    /// PCRs (SHA-256 bank) that the quote must cover.
    pub pcrs: Vec<u8>,
}

/// `POST /v1/hosts/{host}/attest`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostEvidence {
    /// The challenge answered.
    pub nonce: Nonce,
    /// Public key of the TLS session key, SubjectPublicKeyInfo, DER.
    pub session_key: Bytes,
    /// HPKE public key that grants are sealed to.
    pub grant_key: Bytes,
    /// AK public area, TPMT_PUBLIC; must be the enrolled one.
    pub ak_public: Bytes,
    /// TPMS_ATTEST.
    pub quote: Bytes,
    /// TPMT_SIGNATURE.
    pub signature: Bytes,
    /// TCG2 event log (`binary_bios_measurements`).
    pub event_log: Bytes,
    /// Value of the policy counter in the host's TPM (NV index of `tpm::lease`), if it guards keys.
    /// Claimed, not proved: a wrong one only makes an approval that this TPM does not take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_counter: Option<u64>,
}

/// What lets a host's TPM open the keys that it caches: the state that was just appraised, approved
/// until the end of the lease. Every bound is the authority's, from what the quote attests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardApproval {
    /// PCRs (SHA-256 bank) of the appraised quote.
    pub pcrs: Vec<u8>,
    /// Their digest, as quoted.
    pub pcr_digest: crate::Digest,
    /// What the host's policy counter must be; the host raises it if it is lower. One more than
    /// before whenever policy or reference values have changed: approvals of before die with it.
    pub counter: u64,
    /// Until when by the TPM's clock, milliseconds.
    pub clock_until: u64,
    /// The TPM's reset count, as quoted.
    pub reset_count: u32,
    /// ECDSA P-256 with SHA-256 (ECDSA-Sig-Value, DER) by the key that signs grants, over
    /// `tpm::lease::Lease::message`.
    pub signature: Bytes,
}

/// Answer to [`HostEvidence`] when the verdict is good.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSession {
    /// The signed attestation result (a DSSE envelope).
    pub verdict: serde_json::Value,
    /// Session certificate over `session_key`, DER. Absent for audit-only hosts' failed policy.
    pub certificate: Bytes,
    /// End of the session certificate.
    pub expires_at: u64,
    /// Until when keys that this host caches may be used without the authority.
    pub lease_until: u64,
    /// The host's mode.
    pub mode: HostMode,
    /// Opens what the host caches, until `lease_until`. Absent for audit-only hosts, and for hosts
    /// that told no counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardApproval>,
}

/// One host as operators see it (`GET /v1/hosts`, `GET /v1/hosts/{host}`).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostView {
    /// Its name.
    pub name: HostId,
    /// Its mode.
    pub mode: HostMode,
    /// SHA-256 of the EK certificate.
    pub ek_fingerprint: String,
    /// Subject of the EK certificate's issuer.
    pub ek_issuer: String,
    /// The AK's TPM Name, hexadecimal.
    pub ak_name: String,
    /// The last attestation result (DSSE envelope), if any.
    pub verdict: Option<serde_json::Value>,
    /// Whether that verdict is good and fresh now.
    pub trusted: bool,
    /// Whether it takes no new starts.
    #[serde(default)]
    pub draining: bool,
    /// What the last genuine evidence was refused for, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<super::vm::Refusal>,
    /// When it last spoke to the authority.
    pub last_seen: Option<u64>,
    /// VMs homed there.
    pub vms: Vec<crate::VmId>,
}

/// `POST /v1/hosts/{host}/approve`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// Verdicts but never grants.
    #[serde(default)]
    pub audit_only: bool,
}

/// `POST /v1/hosts/{host}/drain`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrainRequest {
    /// Order the stop of every VM that runs there.
    pub stop: bool,
    /// Take new starts again.
    pub end: bool,
}

/// Answer to [`DrainRequest`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainAnswer {
    /// The host.
    pub host: HostView,
    /// The stops that were ordered.
    pub stops: Vec<super::operate::Operation>,
    /// VMs that run or are busy there, stops that were ordered included.
    pub running: Vec<crate::VmId>,
}

/// `GET /v1/crl`: the AK certificates of revoked hosts.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationList {
    /// CRL (RFC 5280) by the CA that certifies host AKs, DER.
    pub crl: Bytes,
}
