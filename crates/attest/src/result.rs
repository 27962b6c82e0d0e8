//! Attestation results: what an appraisal found, claim by claim, for relying parties. Signed as an
//! envelope of kind `verdict`; anyone with the authority's key can verify and read one.
//!
//! A result never carries the host's quote or PCR values: they would link the VMs of one host.

use std::borrow::Cow;

use model::{
    Digest, Epoch, HostId, Nonce, VmId,
    api::{Bytes, vm::ChainLink},
};
use serde::{Deserialize, Serialize};

use crate::{
    Rejection,
    envelope::{Envelope, Kind, Sign, SigningError, sha256},
};

/// What kind of TPM stands at the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assurance {
    /// A hardware TPM whose EK certificate leads to a configured vendor root.
    Hardware,
    /// A software TPM: laboratory only.
    Software,
}

/// The verdict (AR4SI words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// All claims passed.
    Affirming,
    /// A claim did not pass.
    Contraindicated,
}

/// Who was appraised, and what the verdict is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "kind")]
pub enum Subject {
    /// A host.
    Host {
        /// Its name.
        host: HostId,
        /// SHA-256 of the SubjectPublicKeyInfo of its session key.
        session_key: Digest,
        /// The HPKE public key that grants are sealed to.
        grant_key: Bytes,
    },
    /// A guest.
    Guest {
        /// Its VM.
        vm: VmId,
        /// The VM's epoch.
        epoch: Epoch,
        /// The host it ran on.
        host: HostId,
        /// Digest of that host's verdict.
        host_verdict: Digest,
    },
}

/// One thing that was examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// What, in kebab case; the rejection's code if it did not pass.
    pub name: Cow<'static, str>,
    /// Whether it holds.
    pub passed: bool,
    /// Why, in words.
    pub reason: Cow<'static, str>,
}

impl Claim {
    pub(crate) fn passed(name: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), passed: true, reason: reason.into() }
    }

    pub(crate) fn failed(rejection: &Rejection) -> Self {
        let reason = rejection.to_string().into();
        Self { name: rejection.code().into(), passed: false, reason }
    }
}

/// An attestation result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationResult {
    /// Who.
    pub subject: Subject,
    /// The verdict.
    pub status: Status,
    /// What it rests on.
    pub assurance: Assurance,
    /// When it was made, Unix milliseconds.
    pub issued_at: u64,
    /// When it stops counting, Unix milliseconds.
    pub expires_at: u64,
    /// The challenge that was answered.
    pub nonce: Nonce,
    /// Names the policy and reference values.
    pub policy: Digest,
    /// SHA-256 over the evidence (quote, signature, logs).
    pub evidence: Digest,
    /// What was examined, in order, up to the first that stopped the appraisal.
    pub claims: Vec<Claim>,
    /// What vouches for what, from the host's TPM downwards.
    pub chain: Vec<ChainLink>,
}

impl AttestationResult {
    /// Whether the verdict is good and in force.
    #[must_use]
    pub fn is_good_at(&self, now: u64) -> bool {
        self.status == Status::Affirming && now < self.expires_at
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// SHA-256 of the signed bytes: what names this verdict elsewhere, the same as
    /// [`crate::envelope::Signed::digest`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        sha256(&self.to_payload())
    }

    /// Signs the result.
    ///
    /// # Errors
    /// [`SigningError`].
    pub fn sign(&self, signer: &dyn Sign) -> Result<Envelope, SigningError> {
        Envelope::sign(Kind::Verdict, self, &[signer])
    }
}
