//! The lease on what a host caches: one policy, whose approval the authority signs anew for each
//! appraised state, and under which the host's TPM opens the same sealed key again and again.
//!
//! ```text
//!   approved = PolicyPCR(appraised) . PolicyNV(policy counter = n) . PolicyCounterTimer(clock <= end)
//!              . PolicyCounterTimer(reset count = r)
//!   sealed   = PolicyAuthorize(authority's key, reference of the host)
//! ```
//!
//! **Invariants:** the seal names nobody but the approver and the host, so neither an approved
//! update nor a renewal re-seals; every bound is in what the authority signs, taken from a quote.
//! A TPM counter never goes back, not even when its index is defined anew (part 1, 37.2.4), so an
//! approval that has died stays dead.

use model::{Digest, HostId};

use crate::{
    auth::AuthValue,
    client::{NvAttributes, NvPublic, handle},
    error::Malformed,
    pcr::{PCR_COUNT, PcrSelection},
    policy::{Comparison, Policy},
    public::{Public, VerifyingKey},
    signature::Signature,
};

/// The policy counter in a host's TPM: the same index with the same Name on every host.
#[must_use]
pub const fn counter() -> NvPublic {
    NvPublic {
        index: handle::GUARD_COUNTER,
        attributes: NvAttributes::OWNER_COUNTER,
        policy: Vec::new(),
        size: 8,
    }
}

/// The policyRef of a host's approvals: those of one host are not those of another.
#[must_use]
pub fn reference(host: &HostId) -> Vec<u8> {
    format!("vouchsafe:guard:v1:{host}").into_bytes()
}

/// What one approval allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// PCRs of the SHA-256 bank.
    pub pcrs: Vec<u8>,
    /// SHA-256 over their values, as a quote tells it.
    pub pcr_digest: Digest,
    /// Value of the policy counter.
    pub counter: u64,
    /// Last millisecond by the TPM's clock.
    pub clock_until: u64,
    /// The TPM's reset count.
    pub reset_count: u32,
}

impl Lease {
    /// What the approver signs.
    ///
    /// # Errors
    /// [`Malformed`] if the PCRs or their digest are not those of a SHA-256 bank.
    pub fn message(&self, host: &HostId) -> Result<Vec<u8>, Malformed> {
        Ok(Policy::approval_message(&self.approved()?.digest(), &reference(host)))
    }

    /// The policy that opens what was sealed to [`sealed_to`], with the approver's signature
    /// (ECDSA-Sig-Value, DER).
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn opening(
        &self,
        approver: &Approver,
        host: &HostId,
        signature: &[u8],
    ) -> Result<Policy, Malformed> {
        let signature = Signature::from_ecdsa_der(signature)?;
        Ok(self.approved()?.authorize(&approver.0, &reference(host), Some(signature)))
    }

    fn approved(&self) -> Result<Policy, Malformed> {
        let malformed = Malformed::Value { what: "lease" };
        if self.pcrs.is_empty() || self.pcrs.iter().any(|pcr| *pcr >= PCR_COUNT) {
            return Err(malformed);
        }
        let digest = self.pcr_digest.as_bytes().try_into().map_err(|_| malformed)?;
        Ok(Policy::new()
            .pcr_digest(&PcrSelection::sha256(&self.pcrs), digest)
            .nv(&counter(), &AuthValue::empty(), Comparison::Equal, &self.counter.to_be_bytes(), 0)
            .clock(Comparison::AtMost, self.clock_until)
            .reset_count(Comparison::Equal, self.reset_count))
    }
}

/// The key whose approvals count, as a TPM names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver(pub(crate) Public);

impl Approver {
    /// From a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`Malformed`] for anything but a P-256 key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, Malformed> {
        match VerifyingKey::from_spki_der(spki)? {
            key @ VerifyingKey::P256 { .. } => Public::signing_key(&key).map(Self),
            VerifyingKey::Rsa { .. } => {
                Err(Malformed::Unsupported { what: "approving key", value: 1 })
            }
        }
    }
}

/// The policy of what is sealed for this host, whatever its approved state is.
#[must_use]
pub fn sealed_to(approver: &Approver, host: &HostId) -> Policy {
    Policy::new().authorize(&approver.0, &reference(host), None)
}
