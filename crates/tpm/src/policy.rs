//! Policies (enhanced authorization): a list of steps whose digest is computed here and which a
//! policy session is taken through when the object is used.
//!
//! To seal for approved states only, the sealed object's policy is
//! `Policy::new().authorize(&key, ref, None)` followed by further steps; to open it, the policy is
//! the approved steps (PCRs), then `authorize(&key, ref, Some(signature))`, then the same further
//! steps. Authorize forgets what was before it, so the digests agree.

use tpm2_protocol::data::TpmCc;

use crate::{
    auth::AuthValue,
    client::{Hierarchy, NvPublic},
    crypt,
    pcr::{PcrSelection, PcrValues},
    public::{Name, Public},
    signature::Signature,
    wire::Writer,
};

/// How PolicyNV and PolicyCounterTimer compare (TPM_EO): the TPM's value on the left, unsigned,
/// big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// At least the operand.
    AtLeast,
    /// At most the operand.
    AtMost,
    /// Less than the operand.
    Below,
}

impl Comparison {
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Equal => 0x0000,
            Self::Below => 0x0005,
            Self::AtLeast => 0x0007,
            Self::AtMost => 0x0009,
        }
    }
}

/// Offset of the clock in TPMS_TIME_INFO.
const CLOCK: u16 = 8;
/// Offset of the reset counter in TPMS_TIME_INFO.
const RESET_COUNT: u16 = 16;

/// includeObject of PolicyDuplicationSelect: the object's Name is part of the policy.
pub(crate) const INCLUDE_OBJECT: u8 = 1;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    AuthValue,
    Authorize { key: Public, policy_ref: Vec<u8>, approval: Option<Signature> },
    CounterTimer { operand: Vec<u8>, offset: u16, comparison: Comparison },
    DuplicationSelect { object: Name, parent: Name },
    Nv { index: NvPublic, auth: AuthValue, operand: Vec<u8>, offset: u16, comparison: Comparison },
    Pcr { selection: PcrSelection, digest: [u8; 32] },
    Secret { hierarchy: Hierarchy, auth: AuthValue },
}

/// A policy: steps in order. SHA-256.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    steps: Vec<Step>,
}

impl Policy {
    /// No step: anybody.
    #[must_use]
    pub const fn new() -> Self {
        Self { steps: Vec::new() }
    }

    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// PolicyPCR: the selected PCRs have these values. `None` if a selected value is missing.
    #[must_use]
    pub fn pcr(self, selection: &PcrSelection, values: &PcrValues) -> Option<Self> {
        let digest = values.digest(selection)?;
        Some(self.then(Step::Pcr { selection: selection.clone(), digest }))
    }

    /// PolicyPCR by the digest over the selected values, as a quote has it.
    #[must_use]
    pub fn pcr_digest(self, selection: &PcrSelection, digest: [u8; 32]) -> Self {
        self.then(Step::Pcr { selection: selection.clone(), digest })
    }

    /// PolicyAuthorize: what came before was approved by `key` under `policy_ref`. `approval` is
    /// the signature over [`Self::approval_message`]; without it the policy can be sealed to, not
    /// satisfied.
    #[must_use]
    pub fn authorize(self, key: &Public, policy_ref: &[u8], approval: Option<Signature>) -> Self {
        let policy_ref = policy_ref.to_vec();
        self.then(Step::Authorize { key: key.clone(), policy_ref, approval })
    }

    /// PolicyNV: the contents of an NV index, readable with `auth` as its authValue.
    #[must_use]
    pub fn nv(
        self,
        index: &NvPublic,
        auth: &AuthValue,
        comparison: Comparison,
        operand: &[u8],
        offset: u16,
    ) -> Self {
        let (index, auth, operand) = (index.written(), auth.clone(), operand.to_vec());
        self.then(Step::Nv { index, auth, operand, offset, comparison })
    }

    /// PolicyCounterTimer on the TPM's clock, in milliseconds.
    #[must_use]
    pub fn clock(self, comparison: Comparison, milliseconds: u64) -> Self {
        let operand = milliseconds.to_be_bytes().to_vec();
        self.then(Step::CounterTimer { operand, offset: CLOCK, comparison })
    }

    /// PolicyCounterTimer on the number of TPM resets.
    #[must_use]
    pub fn reset_count(self, comparison: Comparison, count: u32) -> Self {
        let operand = count.to_be_bytes().to_vec();
        self.then(Step::CounterTimer { operand, offset: RESET_COUNT, comparison })
    }

    /// PolicyDuplicationSelect: this object is duplicated to this new parent, and nothing else.
    #[must_use]
    pub fn duplication(self, object: &Name, parent: &Name) -> Self {
        let (object, parent) = (object.clone(), parent.clone());
        self.then(Step::DuplicationSelect { object, parent })
    }

    /// PolicySecret: the caller knows the authValue of a hierarchy (as default EKs demand).
    #[must_use]
    pub fn secret(self, hierarchy: Hierarchy, auth: &AuthValue) -> Self {
        self.then(Step::Secret { hierarchy, auth: auth.clone() })
    }

    /// PolicyAuthValue: the caller knows the object's authValue.
    #[must_use]
    pub fn auth_value(self) -> Self {
        self.then(Step::AuthValue)
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The policy digest, as the object's authPolicy has it. Computed without a TPM.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.steps.iter().fold([0; 32], |digest, step| step.extend(&digest))
    }

    /// What an approver signs (ECDSA or RSASSA with SHA-256) to approve `policy` under
    /// `policy_ref`.
    #[must_use]
    pub fn approval_message(policy: &[u8; 32], policy_ref: &[u8]) -> Vec<u8> {
        [&policy[..], policy_ref].concat()
    }
}

impl Step {
    fn extend(&self, old: &[u8; 32]) -> [u8; 32] {
        let update = |code: TpmCc, parts: &[&[u8]]| {
            let code = code.value().to_be_bytes();
            let mut all: Vec<&[u8]> = vec![old, &code];
            all.extend_from_slice(parts);
            crypt::sha256(&all)
        };
        match self {
            Self::AuthValue => update(TpmCc::PolicyAuthValue, &[]),
            Self::Authorize { key, policy_ref, .. } => {
                let code = TpmCc::PolicyAuthorize.value().to_be_bytes();
                let name = key.name();
                let first = crypt::sha256(&[&[0; 32], &code, name.as_bytes()]);
                crypt::sha256(&[&first, policy_ref])
            }
            Self::CounterTimer { operand, offset, comparison } => {
                update(TpmCc::PolicyCounterTimer, &[&arguments(operand, *offset, *comparison)])
            }
            Self::DuplicationSelect { object, parent } => {
                let names: [&[u8]; 3] = [object.as_bytes(), parent.as_bytes(), &[INCLUDE_OBJECT]];
                update(TpmCc::PolicyDuplicationSelect, &names)
            }
            Self::Nv { index, operand, offset, comparison, .. } => {
                let arguments = arguments(operand, *offset, *comparison);
                update(TpmCc::PolicyNv, &[&arguments, index.name().as_bytes()])
            }
            Self::Pcr { selection, digest } => {
                let mut writer = Writer::small();
                selection.write(&mut writer);
                let selection = writer.finish_public().unwrap_or_default();
                update(TpmCc::PolicyPcr, &[&selection, digest])
            }
            Self::Secret { hierarchy, .. } => {
                let name = hierarchy.handle().to_be_bytes();
                crypt::sha256(&[&update(TpmCc::PolicySecret, &[&name])])
            }
        }
    }
}

fn arguments(operand: &[u8], offset: u16, comparison: Comparison) -> [u8; 32] {
    crypt::sha256(&[operand, &offset.to_be_bytes(), &comparison.code().to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Public, template};

    #[test]
    fn the_policy_of_default_eks_is_policy_secret_of_the_endorsement_hierarchy() {
        let policy = Policy::new().secret(Hierarchy::Endorsement, &AuthValue::empty());
        let ek = Public::parse(template::ek_p256().as_bytes()).unwrap();
        assert_eq!(policy.digest(), ek.policy());
    }

    #[test]
    fn an_authorized_policy_does_not_depend_on_what_was_approved() {
        let key = Public::parse(template::ak_p256().as_bytes()).unwrap();
        let sealed = Policy::new().authorize(&key, b"ref", None).reset_count(Comparison::Equal, 7);
        let opened = Policy::new()
            .auth_value()
            .authorize(&key, b"ref", None)
            .reset_count(Comparison::Equal, 7);
        assert_eq!(sealed.digest(), opened.digest());
        assert_ne!(sealed.digest(), Policy::new().authorize(&key, b"other", None).digest());
    }
}
