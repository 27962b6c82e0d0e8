//! What events change: the other half of the pure machine.

use model::api::policy::OnBadGuest;

use super::{
    apply_order,
    machine::{Memory, runs},
    phase::{Launching, Live, Phase, Stopping, Then, Verdict},
    record::{NewKey, Record, VtpmStage},
    step::{Event, Reason, Result, Step},
};
use crate::{
    plan::{Role, Volume},
    qmp::RunState,
};

/// How many processes may die on the way of one launch before it is given up.
const MISHAPS: u32 = 3;

/// How often a guest may reset itself in one launch.
const RESETS: u32 = 16;

/// What an event changes.
pub(crate) fn apply(record: &mut Record, memory: &mut Memory, event: Event) {
    match event {
        Event::Ordered(ordered) => apply_order::apply(record, memory, *ordered),
        Event::Done(step, result) => done(record, memory, step, result),
        Event::Failed { step, reason, away } => failed(record, memory, step, reason, away),
        Event::Found(processes) => {
            record.running = processes;
            found(record, memory);
        }
        Event::Exited(role, process) => {
            if record.running.get(role) == Some(process) {
                record.running.set(role, None);
                exited(record, memory, role);
            }
        }
        Event::Cpus(state) => cpus(record, memory, state),
        Event::PoweredOff { reset } => memory.powered_off = Some(reset),
        Event::Lease { ended } => memory.lease_ended = ended,
        Event::Reappraise => {
            if let Phase::Live(live) = &mut record.phase {
                live.appraise |= live.booted;
            }
        }
        Event::Disowned(reason) => disowned(record, &reason),
        Event::Retry => memory.waiting.clear(),
        Event::Delivered(id) => {
            if let Some(job) = record.job.as_mut().filter(|job| job.id == id && !job.is_open()) {
                job.delivered = true;
            }
        }
    }
    settle(record, memory);
    apply_order::finish(record, memory);
}

/// The agent has started and looked for what is alive.
fn found(record: &mut Record, memory: &mut Memory) {
    let (qemu, vtpm) = (runs(record, Role::Qemu), runs(record, Role::Vtpm));
    match &record.phase {
        Phase::Live(_) if !qemu => qemu_gone(record, memory),
        Phase::Live(_) if !vtpm => vtpm_gone(record),
        Phase::Launching(launching) if qemu && !vtpm => {
            let then = Then::Relaunch { resets: launching.resets };
            stop(record, false, then, "its vTPM process had ended".to_owned());
        }
        Phase::Stopped(_) | Phase::Gone if !record.running.is_empty() => {
            stop(record, false, Then::Stopped, "processes of an earlier launch".to_owned());
        }
        Phase::Stopped(_)
        | Phase::Gone
        | Phase::Live(_)
        | Phase::Launching(_)
        | Phase::Stopping(_) => {}
    }
}

fn done(record: &mut Record, memory: &mut Memory, step: Step, result: Result) {
    match (step, result) {
        (_, Result::Runs(role, process)) => started(record, memory, role, process),
        (_, Result::KeyId(key_id)) => {
            record.kmi.key_id = key_id;
            record.made.named = true;
        }
        (_, Result::Publics(publics)) => {
            record.made.vtpm = VtpmStage::Manufactured(publics);
        }
        (_, Result::Certificates { ak, ek }) => {
            record.made.vtpm = VtpmStage::Certified { ak, ek };
        }
        (_, Result::Attached(state)) => {
            memory.attached = true;
            if runs(record, Role::Qemu) && matches!(record.phase, Phase::Launching(_)) {
                go_live(record);
            }
            cpus(record, memory, state);
        }
        (_, Result::Verdict(verdict)) => judged(record, verdict),
        (_, Result::NextKey(volume, epoch)) => new_key(record, volume, NewKey::Next(epoch)),
        (step, Result::Done) => simply_done(record, memory, step),
    }
}

/// A verdict on the running guest. Where a bad one ends the VM, it is cut, not asked.
fn judged(record: &mut Record, verdict: Verdict) {
    record.on_bad_guest = verdict.act.unwrap_or(record.on_bad_guest);
    let ends = !verdict.trusted && record.on_bad() == OnBadGuest::Stop;
    let reason = verdict.reason.clone();
    let Phase::Live(live) = &mut record.phase else { return };
    live.appraise = false;
    live.mishaps = 0;
    live.data_failed = None;
    live.verdict = Some(verdict);
    if ends {
        let reason = reason.unwrap_or_else(|| Reason::failed("the guest's verdict is bad", ""));
        apply_order::end_job(record, reason.outcome());
        let name = reason.refused.unwrap_or_default();
        stop(
            record,
            false,
            Then::Stopped,
            format!("ended by its verdict: {name} {}", reason.detail),
        );
    }
}

fn simply_done(record: &mut Record, memory: &mut Memory, step: Step) {
    match step {
        Step::SetAside => {
            record.stale = None;
            record.made = super::record::Made::default();
        }
        Step::Deposit => record.made.deposited = true,
        Step::Keys(volume) => memory.set(volume),
        Step::Create(Volume::Boot) => record.made.boot = true,
        Step::Create(Volume::Data) => record.made.data = true,
        Step::AwaitBoot => {
            if let Phase::Live(live) = &mut record.phase {
                live.booted = true;
                live.appraise = true;
            }
        }
        Step::Plug => {
            if let Phase::Live(live) = &mut record.phase {
                live.plugged = true;
            }
        }
        Step::Rekey(volume) => new_key(record, volume, NewKey::Done),
        Step::Pause => cpus(record, memory, RunState::Paused),
        Step::Continue => cpus(record, memory, RunState::Running),
        Step::PowerOff => no_more_asking(record),
        Step::End(role) => record.running.set(role, None),
        Step::Destroy => {
            record.made = super::record::Made::default();
            record.phase = Phase::Gone;
        }
        Step::NameKey
        | Step::NextKey(_)
        | Step::Spawn(_)
        | Step::Manufacture
        | Step::Certify
        | Step::Attach
        | Step::Appraise => {}
    }
}

fn new_key(record: &mut Record, volume: Volume, key: NewKey) {
    if let Some(job) = record.job.as_mut().filter(|job| job.is_open()) {
        job.keys.set(volume, key);
    }
}

fn started(
    record: &mut Record,
    memory: &mut Memory,
    role: Role,
    process: serve::process::ProcessId,
) {
    record.running.set(role, Some(process));
    if role == Role::Vtpm {
        memory.fresh_vtpm = record.made.vtpm == VtpmStage::None;
    }
    if role == Role::Qemu {
        memory.attached = true;
        memory.powered_off = None;
        go_live(record);
    }
}

fn go_live(record: &mut Record) {
    if let Phase::Launching(Launching { resets, .. }) = record.phase {
        record.phase = Phase::Live(Live { resets, ..Live::default() });
    }
}

fn no_more_asking(record: &mut Record) {
    if let Phase::Stopping(stopping) = &mut record.phase {
        stopping.ask = false;
    }
}

fn failed(record: &mut Record, memory: &mut Memory, step: Step, reason: Reason, away: bool) {
    let local = record.job.as_ref().is_some_and(|job| job.local);
    match &mut record.phase {
        Phase::Live(_) if reason.disowns() => disowned(record, &reason),
        Phase::Launching(_) if away && !local => {
            memory.waiting.insert(step);
        }
        Phase::Launching(_) => {
            let detail = reason.detail.clone();
            apply_order::end_job(record, reason.outcome());
            stop(record, false, Then::Stopped, detail);
        }
        Phase::Live(live) => {
            if let Some(outcome) = live_failed(live, memory, step, reason, away) {
                apply_order::end_job(record, outcome);
            }
        }
        Phase::Stopping(stopping)
            if matches!(step, Step::PowerOff | Step::Attach | Step::Spawn(_)) =>
        {
            stopping.ask = false;
        }
        Phase::Stopping(_) | Phase::Stopped(_) | Phase::Gone => {
            memory.waiting.insert(step);
        }
    }
}

/// A failed step of a running VM: most are tried again; the VM goes on meanwhile.
fn live_failed(
    live: &mut Live,
    memory: &mut Memory,
    step: Step,
    reason: Reason,
    away: bool,
) -> Option<model::api::operate::Outcome> {
    let refused = reason.refused.is_some();
    let opens_data = !live.plugged && step.word() == "data";
    if step == Step::AwaitBoot {
        live.booted = true;
        live.appraise = true;
    } else if !away && matches!((&step, refused), (Step::Rekey(_), _) | (Step::NextKey(_), true)) {
        // A process that died is waited for in the step; what else is met stays until it is mended.
        return Some(reason.outcome());
    } else if opens_data && !away {
        live.data_failed = Some(reason);
    } else if step == Step::Appraise && !away {
        live.mishaps = live.mishaps.saturating_add(1);
        if live.mishaps >= MISHAPS {
            live.appraise = false;
            live.mishaps = 0;
            return Some(reason.outcome());
        }
        memory.waiting.insert(step);
    } else {
        memory.waiting.insert(step);
    }
    None
}

fn exited(record: &mut Record, memory: &mut Memory, role: Role) {
    match (&mut record.phase, role) {
        (Phase::Live(_), Role::Qemu) => qemu_gone(record, memory),
        (Phase::Live(_), Role::Vtpm) => vtpm_gone(record),
        (Phase::Launching(_), _) => mishap(record, role),
        (Phase::Stopped(_) | Phase::Live(_) | Phase::Stopping(_) | Phase::Gone, _) => {}
    }
}

/// A process has ended on the way: it is started again, a few times. QEMU with a vTPM that is gone
/// must go too.
fn mishap(record: &mut Record, role: Role) {
    let qemu = runs(record, Role::Qemu);
    let Phase::Launching(launching) = &mut record.phase else { return };
    launching.mishaps = launching.mishaps.saturating_add(1);
    let resets = launching.resets;
    if launching.mishaps >= MISHAPS {
        let reason = Reason::failed(
            format!("the {} process ended again and again", role.word()),
            "its log is in the VM's directory",
        );
        apply_order::end_job(record, reason.outcome());
        stop(record, false, Then::Stopped, reason.detail);
    } else if role == Role::Vtpm && qemu {
        let detail = "its vTPM process has ended".to_owned();
        stop(record, false, Then::Relaunch { resets }, detail);
    }
}

/// Its home was taken away while it ran: another copy may begin elsewhere, so this one is cut.
fn disowned(record: &mut Record, reason: &Reason) {
    if matches!(record.phase, Phase::Launching(_) | Phase::Live(_)) {
        let detail = format!("ended: it is not this host's any more ({})", reason.detail);
        apply_order::end_job(record, reason.outcome());
        stop(record, false, Then::Stopped, detail);
    }
}

/// QEMU has ended: by the guest's wish, or on its own.
fn qemu_gone(record: &mut Record, memory: &mut Memory) {
    memory.attached = false;
    let Phase::Live(live) = &record.phase else { return };
    let resets = live.resets.saturating_add(1);
    let (then, detail) = match memory.powered_off.take() {
        Some(true) if resets < RESETS => (Then::Relaunch { resets }, "the guest has reset itself"),
        Some(true) => (Then::Stopped, "the guest resets itself again and again"),
        Some(false) => (Then::Stopped, "the guest has powered off"),
        None => (Then::Stopped, "QEMU has ended"),
    };
    stop(record, false, then, detail.to_owned());
}

/// A VM whose vTPM is gone could not be attested any more.
fn vtpm_gone(record: &mut Record) {
    let detail = "its vTPM process has ended, so the VM was cut off";
    apply_order::end_job(record, Reason::failed(detail, "start it again").outcome());
    stop(record, false, Then::Stopped, detail.to_owned());
}

/// Enters the phase of stopping, or changes what comes after it.
pub(super) fn stop(record: &mut Record, ask: bool, then: Then, detail: String) {
    record.phase = Phase::Stopping(Stopping { ask, then, detail });
}

fn cpus(record: &mut Record, memory: &mut Memory, state: RunState) {
    if state == RunState::Shutdown && memory.powered_off.is_none() {
        memory.powered_off = Some(false);
    }
    if let Phase::Live(live) = &mut record.phase {
        live.paused = state == RunState::Paused;
        live.io_stopped = state == RunState::IoError;
    }
}

/// Phases that end when nothing runs any more.
fn settle(record: &mut Record, memory: &mut Memory) {
    let Phase::Stopping(stopping) = &record.phase else { return };
    if !record.running.is_empty() {
        return;
    }
    let detail = stopping.detail.clone();
    match stopping.then {
        Then::Destroy => return,
        Then::Relaunch { resets } => {
            record.phase = Phase::Launching(Launching { resets, mishaps: 0 });
        }
        Then::Stopped => {
            memory.boot_keys = false;
            memory.data_key = false;
            record.phase = Phase::Stopped(super::phase::Stopped { detail });
        }
    }
    memory.attached = false;
    memory.fresh_vtpm = false;
    memory.powered_off = None;
    memory.waiting.clear();
}
