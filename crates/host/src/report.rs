//! What the authority is told of a VM: the progress and outcome of its operation, and how it
//! stands. The newest counts; an outcome is told until it is taken.

use std::{sync::Arc, time::Duration};

use model::{
    VmId,
    api::{
        operate::OperationUpdate,
        vm::{VmReport, VmState},
    },
};
use serve::client::CallError;
use tokio::sync::{mpsc, watch};

use crate::{
    host::Host,
    trouble::Trouble,
    vm::{driver::Shown, step::Event},
};

/// How long to wait before what was not taken is told again.
const AGAIN: Duration = Duration::from_secs(2);

/// Reports until the driver ends.
pub(crate) async fn report(
    host: Arc<Host>,
    vm: VmId,
    events: mpsc::Sender<Event>,
    mut shown: watch::Receiver<Shown>,
) {
    let mut sessions = host.link.watch();
    let mut told_state: Option<(VmState, String)> = None;
    let mut renewed = false;
    loop {
        let now = shown.borrow_and_update().clone();
        if renewed && now.state != VmState::Stopped {
            // The authority may have taken the VM away while it could not be heard.
            told_state = None;
        }
        renewed = false;
        let done = tell(&host, &vm, &events, &now, &mut told_state).await;
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
    told_state: &mut Option<(VmState, String)>,
) -> bool {
    let Ok(session) = host.link.session() else { return false };
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
        if shown.undelivered && events.send(Event::Delivered(operation.id)).await.is_err() {
            return true;
        }
    }
    let state = (shown.state, shown.standing.clone());
    let settled = shown.state != VmState::Busy;
    if settled && told_state.as_ref() != Some(&state) {
        let body = VmReport { state: shown.state, epoch: shown.vm.epoch, detail: state.1.clone() };
        let path = format!("/v1/vms/{vm}/report");
        match session.client.post::<_, serde_json::Value>(&path, &body).await {
            Err(error) if !decided(&error) => return false,
            Err(error) => {
                tracing::warn!(vm.id = %vm, %error, "the report is not wanted");
                let reason = Trouble::from(error).reason;
                // The driver may have ended with the agent.
                if reason.disowns() && events.send(Event::Disowned(reason)).await.is_err() {
                    return true;
                }
            }
            Ok(_) => {}
        }
        *told_state = Some(state);
    }
    true
}

/// Whether the authority has looked at it; then telling it again is of no use.
fn decided(error: &CallError) -> bool {
    let session = matches!(error.refusal(), Some("session-expired" | "session-missing"));
    error.problem().is_some_and(|p| p.status < 500 && p.status != 429) && !session
}
