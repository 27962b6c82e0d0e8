//! Taking older volumes of a VM for the newest, on purpose: how a backup is restored.
//!
//! ```text
//! one operator proposes ─► another one approves ─► start: its grants say so ─► done: ended
//!          └── an hour, or a fence, ends it at any point ──┘
//! ```
//! **Invariant:** no single person can make a host accept an older volume, and no approval outlives
//! its hour or the first start that succeeds.

use http::StatusCode;
use model::{
    OperationId,
    api::vm::{Reanchor, VmState, VolumeFormat},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{VmRecord, VmRejection};
use crate::refusal::Rejection;

/// How long a proposal, and an approval, counts, milliseconds.
const LIFE: u64 = 3_600_000;

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reanchoring {
    /// As operators see it.
    pub(crate) view: Reanchor,
    /// The start under way that uses it.
    pub(crate) used_by: Option<OperationId>,
}

/// Why a volume is not re-anchored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ReanchorRejection {
    /// It was approved, and nothing is left to be said.
    #[error("it was proposed and approved already")]
    Approved,
    /// Only vault volumes have an anchor.
    #[error("volumes of this VM's format are not anchored")]
    NotAnchored,
    /// Nobody can approve what they proposed.
    #[error("{0} proposed it, and another operator must approve it")]
    SamePerson(String),
    /// The VM.
    #[error(transparent)]
    Vm(#[from] VmRejection),
}

impl Rejection for ReanchorRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::Approved => "reanchor-approved",
            Self::NotAnchored => "reanchor-not-anchored",
            Self::SamePerson(_) => "reanchor-same-person",
            Self::Vm(rejection) => rejection.name(),
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Approved => "`vouchsafe vm start NAME` uses it",
            Self::NotAnchored => "they start as they are, whatever their age",
            Self::SamePerson(_) => {
                "a second operator repeats the command with a certificate of theirs"
            }
            Self::Vm(rejection) => rejection.hint(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Approved | Self::NotAnchored => StatusCode::CONFLICT,
            Self::SamePerson(_) => StatusCode::FORBIDDEN,
            Self::Vm(rejection) => rejection.status(),
        }
    }
}

impl VmRecord {
    /// After `operator` proposed that older volumes be taken for the newest, or approved what
    /// another one proposed.
    ///
    /// # Errors
    /// [`ReanchorRejection`].
    pub(crate) fn reanchored(
        &self,
        operator: &str,
        reason: &str,
        now: u64,
    ) -> Result<Self, ReanchorRejection> {
        self.is_live()?;
        if self.spec.format != VolumeFormat::Vault {
            return Err(ReanchorRejection::NotAnchored);
        }
        if let Some(open) = self.open {
            return Err(VmRejection::Busy(open.id).into());
        }
        match self.state {
            VmState::Stopped => {}
            VmState::Running | VmState::Paused => return Err(VmRejection::Running.into()),
            // There is no volume yet.
            VmState::Defined | VmState::Busy | VmState::Retired => {
                return Err(VmRejection::NotRunning.into());
            }
        }
        let expires_at = now.saturating_add(LIFE);
        let view = match self.standing(now) {
            Some(Reanchor { approved_by: Some(_), .. }) => return Err(ReanchorRejection::Approved),
            Some(proposed) if proposed.proposed_by == operator => {
                return Err(ReanchorRejection::SamePerson(operator.to_owned()));
            }
            Some(proposed) => {
                Reanchor { approved_by: Some(operator.to_owned()), expires_at, ..proposed.clone() }
            }
            None => {
                let (proposed_by, reason) = (operator.to_owned(), reason.chars().take(512));
                Reanchor { proposed_by, reason: reason.collect(), approved_by: None, expires_at }
            }
        };
        Ok(Self { reanchor: Some(Reanchoring { view, used_by: None }), ..self.clone() })
    }

    fn standing(&self, now: u64) -> Option<&Reanchor> {
        self.reanchor.as_ref().map(|of| &of.view).filter(|of| now < of.expires_at)
    }

    /// What the start `id` may use.
    pub(super) fn reanchor_for(&self, id: OperationId, now: u64) -> Option<Reanchoring> {
        let view = self.standing(now)?.clone();
        let used_by = view.approved_by.is_some().then_some(id);
        Some(Reanchoring { view, used_by })
    }

    /// Whether grants of the operation `id` say that older volumes count.
    pub(crate) fn reanchors_in(&self, id: OperationId) -> bool {
        self.reanchor.as_ref().is_some_and(|of| of.used_by == Some(id))
    }
}

#[cfg(test)]
mod tests {
    use model::api::operate::Outcome;

    use super::{
        super::{
            change::Accepted,
            tests::{started, vm},
        },
        *,
    };

    fn stopped() -> VmRecord {
        let mut vm = VmRecord { state: VmState::Stopped, open: None, ..started("a", 1) };
        vm.spec.format = VolumeFormat::Vault;
        vm
    }

    fn name(result: Result<VmRecord, ReanchorRejection>) -> &'static str {
        result.unwrap_err().name()
    }

    fn start(vm: &VmRecord, n: u8, now: u64) -> VmRecord {
        match vm.start(&"a".parse().unwrap(), OperationId([n; 16]), now).unwrap() {
            Accepted::New { vm, .. } => *vm,
            other @ (Accepted::Already(_) | Accepted::Settled(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_takes_two_persons_and_ends_with_the_start_that_succeeds() {
        let proposed = stopped().reanchored("alice", "disk lost", 10).unwrap();
        assert_eq!(name(proposed.reanchored("alice", "", 11)), "reanchor-same-person");
        assert!(!start(&proposed, 2, 12).reanchors_in(OperationId([2; 16])));
        let approved = proposed.reanchored("bob", "", 11).unwrap();
        assert_eq!(name(approved.reanchored("carol", "", 12)), "reanchor-approved");
        let (first, second) = (OperationId([3; 16]), OperationId([4; 16]));
        let failed = Outcome::Failed { detail: String::new(), hint: String::new() };
        let again = start(&approved, 3, 12);
        assert!(again.reanchors_in(first) && !again.reanchors_in(second));
        let again = start(&again.settled(first, &failed), 4, 13);
        assert!(again.reanchors_in(second) && !again.reanchors_in(first));
        let done = again.settled(second, &Outcome::Done);
        assert_eq!(done.reanchor, None);
    }

    #[test]
    fn it_ends_by_itself_and_with_a_fence() {
        let proposed = stopped().reanchored("alice", "", 10).unwrap();
        let late = 10 + LIFE;
        assert_eq!(
            proposed.reanchored("bob", "", late).unwrap().reanchor.unwrap().view.proposed_by,
            "bob"
        );
        let approved = proposed.reanchored("bob", "", 11).unwrap();
        assert!(!start(&approved, 2, 11 + LIFE).reanchors_in(OperationId([2; 16])));
        assert_eq!(approved.fenced(model::Epoch(0)).unwrap().reanchor, None);
    }

    #[test]
    fn what_has_no_older_volume_is_refused() {
        assert_eq!(name(vm().reanchored("alice", "", 1)), "reanchor-not-anchored");
        let running = VmRecord { state: VmState::Running, ..stopped() };
        assert_eq!(name(running.reanchored("alice", "", 1)), "vm-running");
        let mut busy = started("a", 1);
        busy.spec.format = VolumeFormat::Vault;
        assert_eq!(name(busy.reanchored("alice", "", 1)), "vm-busy");
        let mut new = vm();
        new.spec.format = VolumeFormat::Vault;
        assert_eq!(name(new.reanchored("alice", "", 1)), "vm-not-running");
    }
}
