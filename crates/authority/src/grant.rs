//! Grants: the only way a VM's keys leave the authority.
//!
//! ```text
//! request ─► decide (pure: host, VM, operation, id, guest) ─► Terms
//!                    Terms + Proof (Appraised, by value) + VMK ─► seal ─► Grant
//! ```
//! **Invariants:** [`seal`] is the only function from which VM keys come out, and it consumes the
//! [`Appraised`] verdicts that earn them; what comes out is encrypted to the attested grant key.
//! The id is recorded as used in the transaction that lets the answer leave.

use attest::{Appraised, Guest, Host};
use http::StatusCode;
use model::{
    HostId, Incarnation, Kmi, Secret,
    api::{
        anchor::AnchorStart,
        grant::{Grant, GrantInfo, GrantPurpose, GrantRequest},
        operate::{Action, Operation, Outcome},
        policy::Policy,
        vm::VmState,
    },
};
use serve::hpke::{self, HpkeError, HpkePublic};
use thiserror::Error;

use crate::{
    record::{
        host::{HostRecord, HostRejection},
        operation::OperationRejection,
        vm::{KeyState, VmRecord, VmRejection, anchored::AnchorRejection},
    },
    refusal::Rejection,
    restore::Restored,
    vmkey::{self, KEY, KeyError, Use},
};

/// Why keys are not granted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum GrantRejection {
    /// The volume is another holder's.
    #[error(transparent)]
    Anchor(#[from] AnchorRejection),
    /// The data volume follows the guest's verdict, and that is not good.
    #[error("the guest has no good and fresh verdict in this epoch: {0}")]
    Guest(String),
    /// The host may not hold keys.
    #[error(transparent)]
    Host(#[from] HostRejection),
    /// The authority was restored, and leases of the lost one may not have ended.
    #[error(
        "the authority was restored; leases of the lost one may run until {until} (Unix \
         milliseconds)"
    )]
    LeasesNotEnded {
        /// Until when nothing is granted.
        until: u64,
    },
    /// The operation does not need these keys.
    #[error(transparent)]
    Operation(#[from] OperationRejection),
    /// The id was used.
    #[error("a grant was made for this request before")]
    Used,
    /// The VM does not give them.
    #[error(transparent)]
    Vm(#[from] VmRejection),
}

impl Rejection for GrantRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::Anchor(rejection) => rejection.name(),
            Self::Guest(_) => "guest-not-trusted",
            Self::Host(rejection) => rejection.name(),
            Self::LeasesNotEnded { .. } => "leases-not-ended",
            Self::Operation(rejection) => rejection.name(),
            Self::Used => "grant-used",
            Self::Vm(rejection) => rejection.name(),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Anchor(rejection) => rejection.hint(),
            Self::Guest(_) => "`vouchsafe vm attest NAME` appraises the guest again",
            Self::Host(rejection) => rejection.hint(),
            Self::LeasesNotEnded { .. } => "wait; running VMs run on by their own leases",
            Self::Operation(rejection) => rejection.hint(),
            Self::Used => "each try of a host has an id of its own; this one was replayed",
            Self::Vm(rejection) => rejection.hint(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Guest(_) | Self::LeasesNotEnded { .. } | Self::Used => StatusCode::FORBIDDEN,
            Self::Anchor(rejection) => rejection.status(),
            Self::Host(rejection) => rejection.status(),
            Self::Operation(rejection) => rejection.status(),
            Self::Vm(rejection) => rejection.status(),
        }
    }
}

/// What is known when a grant is asked for.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// The host that asks, known by its session.
    pub(crate) host: &'a HostRecord,
    /// The VM.
    pub(crate) vm: &'a VmRecord,
    /// The request.
    pub(crate) request: &'a GrantRequest,
    /// The operation that it names.
    pub(crate) operation: Option<&'a Operation>,
    /// Whether its id was used before.
    pub(crate) used: bool,
    /// The policy.
    pub(crate) policy: &'a Policy,
    /// The time.
    pub(crate) now: u64,
    /// The store's incarnation.
    pub(crate) incarnation: Incarnation,
    /// What the last explicit restore left.
    pub(crate) restored: Restored,
}

/// Whether anything is granted at `now`: after an explicit restore nothing is until every lease of
/// the lost authority has ended.
///
/// # Errors
/// [`GrantRejection::LeasesNotEnded`].
pub(crate) const fn leases_have_ended(restored: Restored, now: u64) -> Result<(), GrantRejection> {
    if now < restored.quiet_until {
        return Err(GrantRejection::LeasesNotEnded { until: restored.quiet_until });
    }
    Ok(())
}

/// What a grant will say, apart from the verdict that earns it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terms {
    host: HostId,
    kmi: Kmi,
    purpose: GrantPurpose,
    request: model::GrantId,
    incarnation: Incarnation,
    issued_at: u64,
    expires_at: u64,
    lease_until: u64,
    reanchor: bool,
    anchor: Option<AnchorStart>,
    vm: VmRecord,
}

impl Terms {
    /// The VM's record after the grant; written in the transaction that allows the answer.
    pub(crate) const fn vm(&self) -> &VmRecord {
        &self.vm
    }
}

/// Decides whether the keys may be granted, apart from the proof that [`seal`] wants.
///
/// # Errors
/// [`GrantRejection`].
pub(crate) fn decide(asked: &Asked<'_>) -> Result<Terms, GrantRejection> {
    let Asked { host, vm, request, operation, used, policy, now, incarnation, restored } = asked;
    leases_have_ended(*restored, *now)?;
    host.may_hold_keys(*now)?;
    vm.is_homed(&host.name, request.epoch)?;
    if *used {
        return Err(GrantRejection::Used);
    }
    let operation = operation.filter(|operation| needs_keys(operation, asked));
    let operation = operation.ok_or(OperationRejection::Unknown)?;
    let since = operation.accepted_at;
    if !matches!(vm.key, KeyState::Held | KeyState::Granted) {
        return Err(VmRejection::KeyAwaited.into());
    }
    if request.purpose == GrantPurpose::Data {
        guest_is_good(vm, since, policy, *now)?;
    }
    let (after, start) = vm.granted().opens(request.purpose, host, operation.id)?;
    Ok(Terms {
        host: host.name.clone(),
        kmi: vm.kmi(),
        purpose: request.purpose,
        request: request.request,
        incarnation: *incarnation,
        issued_at: *now,
        expires_at: now.saturating_add(policy.grant_life_s.saturating_mul(1000)),
        lease_until: now.saturating_add(policy.lease_s.saturating_mul(1000)),
        reanchor: vm.reanchors_in(operation.id),
        anchor: start.map(AnchorStart::from),
        vm: after,
    })
}

/// The operation is this host's and needs these keys: it is under way, or it is a start or an
/// attestation that succeeded and the VM still runs (a process of it died and is started again).
fn needs_keys(operation: &Operation, asked: &Asked<'_>) -> bool {
    let Asked { host, vm, request, .. } = asked;
    let same = operation.id == request.operation
        && operation.vm == vm.spec.name
        && operation.host == host.name;
    let open = vm.open.is_some_and(|open| open.id == operation.id);
    let kept = operation.outcome == Some(Outcome::Done)
        && matches!(vm.state, VmState::Running | VmState::Paused);
    let fits = match (operation.action, request.purpose) {
        (Action::Start, _) | (Action::Attest, GrantPurpose::Data) => open || kept,
        (Action::Attest, GrantPurpose::Boot) => kept,
        (Action::Stop | Action::Rekey | Action::Delete, _) => false,
    };
    same && fits
}

/// The guest was appraised in this epoch, since this operation began, and well.
fn guest_is_good(
    vm: &VmRecord,
    since: u64,
    policy: &Policy,
    now: u64,
) -> Result<(), GrantRejection> {
    let no = |why: &str| Err(GrantRejection::Guest(why.to_owned()));
    let Some(guest) = &vm.guest else { return no("it was not appraised") };
    if let Some(refused) = &guest.refused {
        return no(&format!("{}: {}", refused.name, refused.detail));
    }
    if guest.epoch != vm.epoch || guest.at < since {
        return no("its verdict is of an earlier start");
    }
    let old = now.saturating_sub(guest.at) > policy.guest_verdict_life_s.saturating_mul(1000);
    if old { no("its verdict is too old") } else { Ok(()) }
}

/// The verdicts that earn keys. Given up to get them.
#[derive(Debug)]
pub(crate) enum Proof {
    /// The host's: boot volume and vTPM.
    Boot(Box<Appraised<Host>>),
    /// The host's and the guest's: data volume.
    Data(Box<Appraised<Host>>, Box<Appraised<Guest>>),
}

/// Why a grant could not be sealed.
#[derive(Debug, Error)]
pub(crate) enum GrantError {
    /// The verdicts are not about this host, VM and epoch, or not for these keys.
    #[error("the verdicts do not fit the grant")]
    Proof,
    /// The attested grant key cannot be sealed to.
    #[error("the grant cannot be sealed to the attested key")]
    Hpke(#[from] HpkeError),
    /// Derivation.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The grant has no JSON form.
    #[error("the grant cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

/// Derives the keys of the VM's epoch and seals them to the attested grant key.
///
/// # Errors
/// [`GrantError`].
pub(crate) fn seal(
    proof: Proof,
    terms: Terms,
    vmk: &Secret<[u8; KEY]>,
) -> Result<Grant, GrantError> {
    let (uses, aad): (&[Use], &[u8]) = match terms.purpose {
        GrantPurpose::Boot => {
            (&[Use::BootVolume, Use::VtpmState, Use::VtpmMigration, Use::VtpmAkAuth], b"boot")
        }
        GrantPurpose::Data => (&[Use::DataVolume], b"data"),
    };
    let host = fitting(proof, &terms)?;
    let mut keys = Secret::new(Vec::with_capacity(uses.len().saturating_mul(KEY)));
    for purpose in uses {
        let key = vmkey::derive(vmk, &terms.kmi, *purpose)?;
        keys.expose_mut().extend_from_slice(key.expose());
    }
    let info = GrantInfo {
        id: terms.request,
        incarnation: terms.incarnation,
        vm: terms.kmi.vm.clone(),
        host: terms.host,
        epoch: terms.kmi.epoch,
        purpose: terms.purpose,
        kmi: terms.kmi,
        verdict: host.verdict_digest(),
        issued_at: terms.issued_at,
        expires_at: terms.expires_at,
        lease_until: terms.lease_until,
        reanchor: terms.reanchor,
        anchor: terms.anchor,
    };
    let public = HpkePublic(host.facts().grant_key.clone());
    let sealed = hpke::seal(&public, &serde_json::to_vec(&info)?, aad, keys.expose())?;
    Ok(Grant { info, enc: sealed.enc.into(), sealed: sealed.ciphertext.into() })
}

/// The host's verdict, if the proof is of the right kind and about the right host, VM and epoch.
fn fitting(proof: Proof, terms: &Terms) -> Result<Box<Appraised<Host>>, GrantError> {
    let host = match (proof, terms.purpose) {
        (Proof::Boot(host), GrantPurpose::Boot) => host,
        (Proof::Data(host, guest), GrantPurpose::Data) => {
            let facts = guest.facts();
            let same = facts.vm == terms.kmi.vm
                && facts.epoch == terms.kmi.epoch
                && facts.host == terms.host;
            if !same {
                return Err(GrantError::Proof);
            }
            host
        }
        (Proof::Boot(_), GrantPurpose::Data) | (Proof::Data(..), GrantPurpose::Boot) => {
            return Err(GrantError::Proof);
        }
    };
    if host.facts().host == terms.host { Ok(host) } else { Err(GrantError::Proof) }
}

#[cfg(test)]
mod tests;
