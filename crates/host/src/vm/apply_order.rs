//! What an ordered operation changes, and when it has come to its end.

use model::api::operate::{Action, Outcome};

use super::{
    apply::stop,
    machine::Memory,
    phase::{Launching, Phase, Then},
    record::{Made, NewKey, Record},
    step::{Ordered, Reason, Step},
};

/// Takes an operation on.
pub(super) fn apply(record: &mut Record, memory: &mut Memory, ordered: Ordered) {
    let Ordered { job, view } = ordered;
    if let Some(known) = record.job.as_mut().filter(|known| known.id == job.id) {
        // It is listed again because the authority has not taken the outcome.
        known.delivered = false;
        return;
    }
    let (action, id, deposit) = (job.action, job.id, job.deposit);
    record.job = Some(job);
    if let Some(view) = view {
        record.on_bad_guest = view.on_bad_guest;
        if view.epoch < record.epoch {
            let reason = Reason::failed(
                format!(
                    "the order is for epoch {}, this host is in {}",
                    view.epoch.0, record.epoch.0
                ),
                "",
            );
            return end_job(record, reason.outcome());
        }
        let idle = matches!(record.phase, Phase::Stopped(_) | Phase::Gone);
        if idle && action == Action::Start {
            if view.epoch > record.epoch && record.made != Made::default() {
                record.stale = Some(record.epoch);
            }
            (record.spec, record.epoch, record.kmi) = (view.spec, view.epoch, view.kmi);
            // What the authority still awaits is made anew.
            record.made.named &= !deposit;
        }
    }
    match action {
        Action::Start => start(record, memory, id),
        Action::Stop => halt(record, Then::Stopped, true, "stopped by an operator"),
        Action::Delete => halt(record, Then::Destroy, false, "deleted by an operator"),
        Action::Attest => attest(record, memory),
        Action::Rekey => rekey(record, memory),
    }
}

fn start(record: &mut Record, memory: &mut Memory, id: model::OperationId) {
    match &mut record.phase {
        Phase::Stopped(_) | Phase::Gone => {
            memory.waiting.clear();
            record.phase = Phase::Launching(Launching::default());
            record.launched_by = Some(id);
        }
        Phase::Stopping(stopping) if stopping.then == Then::Stopped => {
            stopping.then = Then::Relaunch { resets: 0 };
            record.launched_by = Some(id);
        }
        Phase::Launching(_) => record.launched_by = Some(id),
        Phase::Live(_) | Phase::Stopping(_) => {}
    }
}

fn halt(record: &mut Record, then: Then, ask: bool, detail: &str) {
    match &mut record.phase {
        Phase::Gone => {}
        Phase::Stopped(_) if then == Then::Stopped => {}
        Phase::Stopping(stopping) => {
            if stopping.then != Then::Destroy {
                stopping.then = then;
            }
            stopping.ask &= ask;
        }
        Phase::Live(_) => stop(record, ask, then, detail.to_owned()),
        Phase::Stopped(_) | Phase::Launching(_) => stop(record, false, then, detail.to_owned()),
    }
}

fn attest(record: &mut Record, memory: &mut Memory) {
    match &mut record.phase {
        Phase::Live(live) => {
            live.appraise = true;
            memory.waiting.clear();
        }
        Phase::Stopped(_) | Phase::Launching(_) | Phase::Stopping(_) | Phase::Gone => {
            not_running(record);
        }
    }
}

fn rekey(record: &mut Record, memory: &mut Memory) {
    match &record.phase {
        Phase::Live(_) => memory.waiting.clear(),
        Phase::Stopped(_) | Phase::Launching(_) | Phase::Stopping(_) | Phase::Gone => {
            not_running(record);
        }
    }
}

fn not_running(record: &mut Record) {
    let reason = Reason::failed("the VM does not run on this host", "start it first");
    end_job(record, reason.outcome());
}

/// Gives the open operation its outcome.
pub(super) fn end_job(record: &mut Record, outcome: Outcome) {
    if let Some(job) = record.job.as_mut().filter(|job| job.is_open()) {
        job.outcome = Some(outcome);
    }
}

/// Gives the open operation its outcome if its goal is reached, or out of reach.
pub(super) fn finish(record: &mut Record, memory: &Memory) {
    let Some(job) = record.job.as_ref().filter(|job| job.is_open()) else { return };
    let outcome = match (job.action, &record.phase) {
        (Action::Stop, Phase::Stopped(_) | Phase::Gone) | (Action::Delete, Phase::Gone) => {
            Some(Outcome::Done)
        }
        (Action::Start | Action::Attest, Phase::Live(_)) => live_outcome(record, memory),
        (Action::Rekey, Phase::Live(_)) => rekey_outcome(record),
        (Action::Start | Action::Attest | Action::Rekey, Phase::Stopped(stopped)) => {
            Some(Reason::failed(stopped.detail.clone(), "").outcome())
        }
        (Action::Start | Action::Attest | Action::Rekey, Phase::Gone) => {
            Some(Reason::failed("the VM was deleted", "").outcome())
        }
        _ => None,
    };
    if let Some(outcome) = outcome {
        end_job(record, outcome);
    }
}

fn live_outcome(record: &Record, memory: &Memory) -> Option<Outcome> {
    let (Phase::Live(live), Some(job)) = (&record.phase, &record.job) else { return None };
    if !live.booted {
        return None;
    }
    if live.appraise {
        // A start without the authority is done once the guest is up; its verdict comes later.
        let waits = memory.waiting.contains(&Step::Appraise);
        return (job.local && job.action == Action::Start && waits).then_some(Outcome::Done);
    }
    let verdict = live.verdict.as_ref()?;
    if !verdict.trusted {
        let unnamed = Reason::failed("the guest's verdict is bad", "");
        return Some(verdict.reason.as_ref().unwrap_or(&unnamed).outcome());
    }
    // Evidence on demand also opens a data volume that is still closed: its grant needs the open
    // operation.
    if record.spec.data_mib == 0 || live.plugged {
        return Some(Outcome::Done);
    }
    live.data_failed.as_ref().map(Reason::outcome)
}

/// Done once all volumes have new data keys. A data volume that stays closed cannot get one.
fn rekey_outcome(record: &Record) -> Option<Outcome> {
    let (Phase::Live(live), Some(job)) = (&record.phase, &record.job) else { return None };
    if record.volumes().all(|volume| job.keys.get(volume) == NewKey::Done) {
        return Some(Outcome::Done);
    }
    let closed = record.spec.data_mib > 0 && !live.plugged && live.booted && !live.appraise;
    let verdict = live.verdict.as_ref().filter(|_| closed)?;
    if verdict.trusted {
        return live.data_failed.as_ref().map(Reason::outcome);
    }
    let hint = "only a good verdict opens it; `vouchsafe vm attest` says what is wrong";
    Some(Reason::refused("data-volume-closed", "the data volume is closed", hint).outcome())
}
