//! What the authority is told of a VM: what its volumes count, the progress and outcome of its
//! operation, and how it stands. The newest counts; an outcome is told until it is taken.
//!
//! **Invariant:** what a run left of the volumes is told before that the run has ended, and once
//! more afterwards: by then the authority knows that no other run is under way.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use model::{
    VmId,
    api::{
        anchor::AnchorReport,
        operate::OperationUpdate,
        vm::{VmReport, VmState},
    },
};
use serve::client::CallError;
use tokio::sync::{mpsc, watch};

use crate::{
    anchors::Standing,
    host::Host,
    identity::Session,
    plan::Volume,
    trouble::Trouble,
    vm::{driver::Shown, step::Event},
};

/// How long to wait before what was not taken is told again.
const AGAIN: Duration = Duration::from_secs(2);

/// What the authority has taken.
#[derive(Debug, Default)]
struct Told {
    state: Option<(VmState, String)>,
    volumes: BTreeMap<Volume, Standing>,
}

/// Reports until the driver ends.
pub(crate) async fn report(
    host: Arc<Host>,
    vm: VmId,
    events: mpsc::Sender<Event>,
    mut shown: watch::Receiver<Shown>,
) {
    let mut sessions = host.link.watch();
    let mut changes = host.anchors.changes();
    let mut told = Told::default();
    let mut renewed = false;
    loop {
        let now = shown.borrow_and_update().clone();
        if renewed && now.state != VmState::Stopped {
            // The authority may have taken the VM away while it could not be heard.
            told.state = None;
        }
        if renewed {
            told.volumes.clear();
        }
        renewed = false;
        let done = tell(&host, &vm, &events, &now, &mut told).await;
        let wait = if done { Duration::from_secs(3600) } else { AGAIN };
        tokio::select! {
            changed = shown.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            changed = sessions.changed() => {
                if changed.is_err() {
                    return;
                }
                renewed = true;
            }
            // Its sender lives as long as the host.
            _ = changes.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Tells what is new; `false` if something must be told again.
async fn tell(
    host: &Host,
    vm: &VmId,
    events: &mpsc::Sender<Event>,
    shown: &Shown,
    told: &mut Told,
) -> bool {
    let Ok(session) = host.link.session() else { return false };
    if !tell_volumes(host, &session, (vm, shown), told).await {
        return false;
    }
    let operation = shown.vm.last.as_ref().filter(|last| !last.local);
    if let Some(operation) = operation.filter(|o| o.outcome.is_none() || shown.undelivered) {
        let update = OperationUpdate {
            phase: operation.phase.clone(),
            percent: shown.percent,
            timings: operation.timings.clone(),
            outcome: operation.outcome.clone(),
        };
        let path = format!("/v1/operations/{}", operation.id);
        let taken = session.client.post::<_, serde_json::Value>(&path, &update).await;
        match taken {
            Err(error) if !decided(&error) => return false,
            Err(error) if operation.outcome.is_some() => {
                tracing::warn!(vm.id = %vm, %error, "the authority does not want this outcome");
            }
            Ok(_) | Err(_) => {}
        }
        if operation.outcome.is_some() {
            told.volumes.clear();
        }
        if shown.undelivered && events.send(Event::Delivered(operation.id)).await.is_err() {
            return true;
        }
    }
    let state = (shown.state, shown.standing.clone());
    let settled = shown.state != VmState::Busy;
    if settled && told.state.as_ref() != Some(&state) {
        let body = VmReport { state: shown.state, epoch: shown.vm.epoch, detail: state.1.clone() };
        let path = format!("/v1/vms/{vm}/report");
        let taken = session.client.post::<_, serde_json::Value>(&path, &body).await;
        if let Err(error) = &taken
            && decided(error)
        {
            tracing::warn!(vm.id = %vm, %error, "the report is not wanted");
        }
        let session_over = host.clock.unix_ms() >= session.view.lease_until;
        match answered(taken, host.guard.lease_ended(), session_over) {
            Answered::Again => return false,
            Answered::Said(None) => {}
            Answered::Said(Some(event)) => {
                // The driver may have ended with the agent.
                if events.send(event).await.is_err() {
                    return true;
                }
            }
        }
        told.state = Some(state);
        told.volumes.clear();
    }
    tell_volumes(host, &session, (vm, shown), told).await
}

/// What follows from a report of how a VM stands.
#[derive(Debug)]
enum Answered {
    /// It is told again.
    Again,
    /// It is not, and this is for the driver.
    Said(Option<Event>),
}

/// `ended`: whether the guard's lease is over; `session_over`: whether that of the session is, under
/// which the report was made.
fn answered<T>(taken: Result<T, CallError>, ended: bool, session_over: bool) -> Answered {
    match taken {
        Err(error) if !decided(&error) => Answered::Again,
        Err(error) => {
            let reason = Trouble::from(error).reason;
            Answered::Said(reason.disowns().then_some(Event::Disowned(reason)))
        }
        // The guard has not heard of the session yet: what stands would never be told that it may go on.
        Ok(_) if ended && !session_over => Answered::Again,
        // It is still this host's: what stood because the lease had ended goes on.
        Ok(_) => Answered::Said(Some(Event::Lease { ended })),
    }
}

/// Tells what the volumes count, as far as it is new; `false` if it must be told again.
async fn tell_volumes(
    host: &Host,
    session: &Session,
    (vm, shown): (&VmId, &Shown),
    told: &mut Told,
) -> bool {
    let epoch = shown.vm.epoch;
    let standing = match host.guard.host_key().await {
        Ok(key) => host.anchors.standing(&key, vm, epoch).await,
        Err(trouble) => Err(trouble),
    };
    let standing = match standing {
        Ok(standing) => standing,
        Err(trouble) => {
            tracing::debug!(vm.id = %vm, %trouble, "what the volumes count is not known");
            // The next session tries again; an outcome does not wait for it.
            return true;
        }
    };
    for now in standing {
        if told.volumes.get(&now.volume) == Some(&now) {
            continue;
        }
        let body = AnchorReport {
            epoch,
            volume: now.volume.into(),
            count: now.count,
            head: now.head.digest,
            rest: now.head.rest,
        };
        let path = format!("/v1/vms/{vm}/anchor");
        match session.client.post::<_, serde_json::Value>(&path, &body).await {
            Err(error) if !decided(&error) => return false,
            Err(error) => tracing::warn!(vm.id = %vm, %error, "the volume's count is not taken"),
            Ok(_) => {}
        }
        told.volumes.insert(now.volume, now);
    }
    true
}

/// Whether the authority has looked at it; then telling it again is of no use.
fn decided(error: &CallError) -> bool {
    let session = matches!(error.refusal(), Some("session-expired" | "session-missing"));
    error.problem().is_some_and(|p| p.status < 500 && p.status != 429) && !session
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serve::problem::Problem;

    use super::*;

    fn refused(name: &'static str) -> Result<(), CallError> {
        let problem = Problem::refusal(name, "no").status(StatusCode::CONFLICT);
        Err(CallError::Problem(Box::new(problem)))
    }

    #[test]
    fn what_stood_for_the_lease_goes_on_when_the_report_is_taken_under_a_lease_and_only_then() {
        let taken = answered(Ok(()), false, false);
        assert!(matches!(taken, Answered::Said(Some(Event::Lease { ended: false }))));
        let too_late = answered(Ok(()), true, true);
        assert!(matches!(too_late, Answered::Said(Some(Event::Lease { ended: true }))));
        // The session's lease is not the guard's yet.
        assert!(matches!(answered(Ok(()), true, false), Answered::Again));
    }

    #[test]
    fn a_vm_that_is_not_this_hosts_any_more_ends_and_other_refusals_move_nothing() {
        for name in ["grant-epoch-moved", "vm-homed-elsewhere"] {
            let answer = answered(refused(name), false, false);
            assert!(matches!(answer, Answered::Said(Some(Event::Disowned(_)))), "{name}");
        }
        assert!(matches!(answered(refused("host-draining"), false, false), Answered::Said(None)));
        assert!(matches!(answered(refused("session-expired"), false, false), Answered::Again));
    }
}
