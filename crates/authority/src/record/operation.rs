//! Operations: what an operator wants of a VM, until the home host says what came of it.
//!
//! ```text
//! accepted ─► phases as the host reports them ─► done | refused | failed
//! ```
//! **Invariant:** an outcome is written once; later reports change nothing.

use http::StatusCode;
use model::{
    HostId, OperationId, VmId,
    api::operate::{Action, Operation, OperationUpdate, Outcome},
};
use thiserror::Error;

use crate::refusal::Rejection;

/// Longest name of a phase, and most timings that are kept.
const MAX_PHASE: usize = 64;
const MAX_TIMINGS: usize = 64;

/// Why an operation's report or use is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum OperationRejection {
    /// It is another host's.
    #[error("the operation belongs to another host")]
    OtherHost,
    /// There is none, or it has ended.
    #[error("there is no such open operation")]
    Unknown,
}

impl Rejection for OperationRejection {
    fn name(&self) -> &'static str {
        "operation-unknown"
    }

    fn hint(&self) -> &'static str {
        "ask for the orders again"
    }

    fn status(&self) -> StatusCode {
        StatusCode::NOT_FOUND
    }
}

/// A new operation.
pub(crate) fn accepted(
    id: OperationId,
    vm: VmId,
    action: Action,
    host: HostId,
    now: u64,
) -> Operation {
    Operation {
        id,
        vm,
        action,
        host,
        accepted_at: now,
        phase: "accepted".to_owned(),
        percent: None,
        timings: Vec::new(),
        outcome: None,
    }
}

/// The operation after its host's report. A report to one that has ended changes nothing.
///
/// # Errors
/// [`OperationRejection::OtherHost`].
pub(crate) fn updated(
    operation: Operation,
    host: &HostId,
    update: OperationUpdate,
) -> Result<Operation, OperationRejection> {
    if operation.host != *host {
        return Err(OperationRejection::OtherHost);
    }
    if operation.outcome.is_some() {
        return Ok(operation);
    }
    let OperationUpdate { phase, percent, timings, outcome } = update;
    let short = |text: String| text.chars().take(MAX_PHASE).collect::<String>();
    Ok(Operation {
        phase: short(phase),
        percent: percent.map(|p| p.min(100)),
        timings: timings.into_iter().take(MAX_TIMINGS).map(|(p, ms)| (short(p), ms)).collect(),
        outcome,
        ..operation
    })
}

/// The operation after the authority ended it.
pub(crate) fn ended(mut operation: Operation, outcome: Outcome) -> Operation {
    if operation.outcome.is_none() {
        operation.outcome = Some(outcome);
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_written_once_by_its_host() {
        let host: HostId = "a".parse().unwrap();
        let id = OperationId([1; 16]);
        let operation = accepted(id, "v1".parse().unwrap(), Action::Start, host.clone(), 5);
        let update = |phase: &str, outcome| OperationUpdate {
            phase: phase.to_owned(),
            percent: Some(200),
            timings: vec![("volume".to_owned(), 7)],
            outcome,
        };
        let other: HostId = "b".parse().unwrap();
        let report = update("boot", None);
        assert!(updated(operation.clone(), &other, report.clone()).is_err());
        let booting = updated(operation, &host, report).unwrap();
        assert_eq!((booting.phase.as_str(), booting.percent), ("boot", Some(100)));
        let done = updated(booting, &host, update("end", Some(Outcome::Done))).unwrap();
        let again = updated(done.clone(), &host, update("boot", None)).unwrap();
        assert_eq!(again, done);
    }
}
