//! VMs: what is asked for ([`VmSpec`]) and how one stands ([`VmView`]); the virtual TPM's
//! certification and the guest's evidence.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Bytes;
use crate::{
    Digest, Epoch, Guard, HostId, KeyOrigin, Kmi, KmiOrigin, Nonce, OperationId, PcrBanks, VmId,
};

/// How a volume is laid out on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeFormat {
    /// LUKS2, AES-256-XTS, 4 KiB sectors: confidential only.
    Luks2,
    /// Authenticated: every block is sealed and the volume cannot be set back unnoticed.
    #[default]
    Vault,
}

/// How a VM's volumes reach it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// NBD over a unix socket: the disk process sees the guest's requests, not its memory.
    #[default]
    Nbd,
    /// vhost-user-blk: the disk process shares the guest's memory, which saves the copies.
    VhostUser,
}

/// What happens to a running VM when its host's lease ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnLeaseEnd {
    /// The VM is paused.
    #[default]
    Pause,
    /// It goes on; a takeover then needs fencing.
    Continue,
}

/// The image a VM's boot volume is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// Where the host finds it (a raw disk image).
    pub path: String,
    /// SHA-256 of the whole file; checked while it is encrypted.
    pub sha256: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// What an operator asks for (`POST /v1/vms`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// The VM's name.
    pub name: VmId,
    /// The boot image.
    pub image: ImageRef,
    /// Guest memory in MiB, 64 to 1,048,576.
    pub memory_mib: u32,
    /// Virtual CPUs, 1 to 512.
    pub cpus: u32,
    /// Size of the data volume in MiB; 0: none. It opens only after a good guest verdict.
    pub data_mib: u32,
    /// What guards the keys on the host.
    pub guard: Guard,
    /// Who generates the VM master key.
    pub origin: KeyOrigin,
    /// Who makes the master key's key-management information.
    #[serde(default)]
    pub kmi_origin: KmiOrigin,
    /// The volumes' format.
    pub format: VolumeFormat,
    /// How the volumes reach the guest.
    #[serde(default)]
    pub transport: Transport,
    /// What happens at the end of the host's lease.
    pub on_lease_end: OnLeaseEnd,
    /// Whether the virtual TPM also gets an RSA-2048 EK with its certificate. Costs the time of an
    /// RSA key generation at the first start.
    #[serde(default)]
    pub vtpm_rsa_ek: bool,
    /// The PCR banks of the virtual TPM, chosen when it is made; SHA-256 is among them. The guest's
    /// firmware measures everything once for each.
    #[serde(default)]
    pub pcr_banks: PcrBanks,
    /// What a bad guest verdict does to this VM; absent: what the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_bad_guest: Option<super::policy::OnBadGuest>,
    /// Values the guest's measurements are compared with: `attest::predict::GuestReference`.
    pub reference: serde_json::Value,
}

/// Life of a VM as the authority knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// Asked for, on no host yet.
    Defined,
    /// An operation is under way on its home host.
    Busy,
    /// QEMU runs.
    Running,
    /// QEMU is paused (I/O error, lease end, bad verdict).
    Paused,
    /// On its home host, not running.
    Stopped,
    /// Its keys are gone.
    Retired,
}

/// One VM as operators and hosts see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmView {
    /// What was asked for.
    pub spec: VmSpec,
    /// Where it stands.
    pub state: VmState,
    /// Its home, once it has been started.
    pub home: Option<HostId>,
    /// The present epoch.
    pub epoch: Epoch,
    /// Finds its key.
    pub kmi: Kmi,
    /// Whether the last guest verdict was good.
    pub trusted: Option<bool>,
    /// What the home host last said of it.
    pub detail: String,
    /// Its keys were on a host that turned bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed: Option<Exposure>,
    /// Older volumes are to be taken for the newest at its next start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reanchor: Option<Reanchor>,
    /// What its volumes count, as its home reported it; only of the format vault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anchors: Vec<super::anchor::Anchor>,
    /// The operation under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
}

/// A backup of a VM's volumes is to be used on purpose: one operator proposes it and another one
/// approves; the next start that succeeds, or the end of its time, ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reanchor {
    /// Who proposed it.
    pub proposed_by: String,
    /// Why.
    pub reason: String,
    /// Who approved it; without that it changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Until when it counts, Unix milliseconds.
    pub expires_at: u64,
}

/// A VM's keys were on a host that turned bad, so that they may be known to others. The mark stays
/// until the VM has keys that the host never had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exposure {
    /// When the host was last known to be good, Unix milliseconds.
    pub since: u64,
    /// When it turned out bad.
    pub at: u64,
    /// The host.
    pub host: HostId,
    /// Name of the refusal, or `host-revoked`.
    pub reason: String,
}

/// `POST /v1/vms/{vm}/start`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// Where.
    pub host: HostId,
}

/// `POST /v1/vms/{vm}/fence`: a VM loses its home, and with it what its guest wrote.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FenceRequest {
    /// Why, for the audit log.
    pub reason: String,
    /// The operator vouches that the home host is switched off, and stays so until it is wiped or
    /// hears that the epoch has moved.
    #[serde(default)]
    pub powered_off: bool,
}

/// `POST /v1/vms/{vm}/vtpm` (host): public areas of a newly manufactured vTPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VtpmPublics {
    /// Epoch of manufacture.
    pub epoch: Epoch,
    /// P-256 EK, TPMT_PUBLIC.
    pub ek_public: Bytes,
    /// RSA-2048 EK, TPMT_PUBLIC, if one was asked for.
    pub ek_rsa_public: Option<Bytes>,
    /// The host-owned AK in the platform hierarchy, TPMT_PUBLIC.
    pub ak_public: Bytes,
}

/// Answer to [`VtpmPublics`]: certificates by the authority's vTPM CA, all DER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VtpmCertificates {
    /// For the P-256 EK; goes to NV 0x01c0000a.
    pub ek_certificate: Bytes,
    /// For the RSA EK; goes to NV 0x01c00002.
    pub ek_rsa_certificate: Option<Bytes>,
    /// The virtual AK certificate: which VM, which host (an opaque reference), epoch, time.
    pub ak_certificate: Bytes,
    /// The vTPM CA's certificate.
    pub vtpm_ca: Bytes,
}

/// One extend that the vTPM proxy saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ObservedExtend {
    /// PCR index, 0 to 23.
    pub pcr: u8,
    /// Digests, one a bank, as extended.
    pub digests: Vec<Digest>,
}

/// `POST /v1/vms/{vm}/evidence` (host): the guest's evidence, taken without its help.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestEvidence {
    /// The challenge answered (purpose `guest-attest`).
    pub nonce: Nonce,
    /// The VM's epoch.
    pub epoch: Epoch,
    /// Virtual AK certificate, DER.
    pub ak_certificate: Bytes,
    /// EK certificate as read back from the vTPM's NV, DER.
    pub ek_certificate: Bytes,
    /// TPMS_ATTEST by the vTPM's host-owned AK.
    pub quote: Bytes,
    /// TPMT_SIGNATURE.
    pub signature: Bytes,
    /// Every extend since the vTPM's last start-up, in order.
    pub observed: Vec<ObservedExtend>,
    /// Whether the list was cut because the guest extended too often.
    pub overflowed: bool,
    /// Why the list cannot be complete, if the proxy met a command it could not see into.
    pub unobservable: Option<String>,
    /// The guest's own `binary_bios_measurements`, if it sent it.
    pub guest_log: Option<Bytes>,
    /// The guest's own IMA list (binary), if it sent it.
    pub ima_log: Option<Bytes>,
}

/// Answer to [`GuestEvidence`], and `GET /v1/vms/{vm}/verdict` (operator).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestVerdict {
    /// The signed attestation result (DSSE envelope).
    pub verdict: serde_json::Value,
    /// Whether it is good.
    pub trusted: bool,
    /// The first rule that said no; absent if the verdict is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// From host EK to kernel, one link an entry.
    pub chain: Vec<ChainLink>,
    /// What the host does with the running VM if the verdict is bad, by the policy of now; only in
    /// answers to hosts. The VM's own [`VmSpec::on_bad_guest`] goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_bad_guest: Option<super::policy::OnBadGuest>,
}

/// A rule that said no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// Its kebab-case name.
    pub name: String,
    /// What was found, in words.
    pub detail: String,
    /// What to do next.
    pub hint: String,
}

/// `GET /v1/vms/{vm}/evidence` (operator): the last appraised evidence with what verifies it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceExport {
    /// The guest's evidence.
    pub evidence: GuestEvidence,
    /// The vTPM CA's certificate, DER.
    pub vtpm_ca: Bytes,
    /// The authority's CA certificate, DER.
    pub ca: Bytes,
    /// Certificate of the host's AK, DER.
    pub host_ak_certificate: Bytes,
    /// Certificate of the host's EK, DER.
    pub host_ek_certificate: Bytes,
    /// CA certificates of the TPM makers that the authority trusts, DER.
    pub ek_roots: Vec<Bytes>,
    /// The key that signs verdicts, SubjectPublicKeyInfo.
    pub signing_key: Bytes,
    /// The verdict over it.
    pub verdict: GuestVerdict,
}

/// One link of the chain from hardware to kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainLink {
    /// `host-tpm-ek`, `host-ak`, `vtpm-ek`, `vtpm-ak` or `kernel`.
    pub role: String,
    /// Who or what, in words.
    pub subject: String,
    /// SHA-256 of the certificate or the measured digest.
    pub fingerprint: String,
    /// What vouches for this link.
    pub vouched_by: String,
}

/// `POST /v1/vms/{vm}/report` (host): how a VM stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmReport {
    /// State now.
    pub state: VmState,
    /// The epoch the host acts in.
    pub epoch: Epoch,
    /// In words.
    pub detail: String,
}
