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
            Ok(_) => {
                // It is still this host's: what stood because the lease had ended goes on.
                let event = Event::Lease { ended: host.guard.lease_ended() };
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
