//! The pure heart of a VM's driver: [`next`] says what is to be done now, [`apply`] what an event
//! changes. No I/O, no clock; the same record and memory always give the same step.
//!
//! ```text
//!                 start                    QEMU runs
//!   Stopped ───────────────▶ Launching ───────────────▶ Live ◀─┐ cpus stop, go on; disk process
//!      ▲                      │     ▲                    │  └──┘ restarted; evidence; data volume
//!      │            step      │     │ guest reset        │
//!      │            failed,   ▼     │                    │ stop, vTPM or QEMU gone
//!      └─────────────────── Stopping ◀───────────────────┘
//!                              │ delete
//!                              ▼
//!                             Gone
//!
//!   Launching, in order: set-aside · key · grant · volume · vtpm · certify · disk · qemu
//!   Live, the first that is needed and need not wait: attach · repair a disk · pause or go on ·
//!         await boot · appraise · data key · data volume · data disk · plug
//!   Stopping, in order: power off · QEMU · data disk · boot disk · vTPM · destroy
//! ```
//!
//! **Invariants:** QEMU is started only when its vTPM and boot disk run and no QEMU is known; the
//! data volume is opened only under a good verdict on this launch; nothing is destroyed while a
//! process runs; an operation gets exactly one outcome.

use std::collections::BTreeSet;

use model::api::{policy::OnBadGuest, vm::OnLeaseEnd};

use super::{
    apply_order,
    phase::{Launching, Live, Phase, Stopping, Then},
    record::{Record, VtpmStage},
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

/// What the driver knows beside the record, and forgets when the agent ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Boot keys are in memory.
    pub(crate) boot_keys: bool,
    /// The data volume's key is in memory.
    pub(crate) data_key: bool,
    /// Connected to QEMU.
    pub(crate) attached: bool,
    /// The vTPM process was started for the manufacture that is under way.
    pub(crate) fresh_vtpm: bool,
    /// The host's lease has ended.
    pub(crate) lease_ended: bool,
    /// The guest has powered off, or reset itself (`true`).
    pub(crate) powered_off: Option<bool>,
    /// Steps that have failed and wait for [`Event::Retry`].
    pub(crate) waiting: BTreeSet<Step>,
}

impl Memory {
    fn has(&self, volume: Volume) -> bool {
        match volume {
            Volume::Boot => self.boot_keys,
            Volume::Data => self.data_key,
        }
    }

    fn set(&mut self, volume: Volume) {
        match volume {
            Volume::Boot => self.boot_keys = true,
            Volume::Data => self.data_key = true,
        }
    }
}

/// What is to be done now; `None` if there is nothing but to wait.
pub(crate) fn next(record: &Record, memory: &Memory) -> Option<Step> {
    match &record.phase {
        Phase::Stopped(_) | Phase::Gone => None,
        Phase::Launching(_) => Some(launching(record, memory)).filter(|s| may(memory, *s)),
        Phase::Live(live) => live_steps(record, memory, live).into_iter().find(|s| may(memory, *s)),
        Phase::Stopping(stopping) => {
            stopping_step(record, memory, stopping).filter(|s| may(memory, *s))
        }
    }
}

fn may(memory: &Memory, step: Step) -> bool {
    !memory.waiting.contains(&step)
}

fn runs(record: &Record, role: Role) -> bool {
    record.running.get(role).is_some()
}

fn launching(record: &Record, memory: &Memory) -> Step {
    let deposit = record.job.as_ref().is_some_and(|job| job.deposit) && !record.made.deposited;
    if record.stale.is_some() {
        return Step::SetAside;
    }
    if deposit {
        return Step::Deposit;
    }
    let begun = runs(record, Role::Vtpm) && runs(record, Role::Disk(Volume::Boot));
    if !begun && !memory.boot_keys {
        return Step::Keys(Volume::Boot);
    }
    if !record.made.boot {
        return Step::Create(Volume::Boot);
    }
    let unfinished = record.made.vtpm == VtpmStage::None;
    if unfinished && runs(record, Role::Vtpm) && !memory.fresh_vtpm {
        return Step::End(Role::Vtpm);
    }
    if !runs(record, Role::Vtpm) {
        return Step::Spawn(Role::Vtpm);
    }
    match record.made.vtpm {
        VtpmStage::None => return Step::Manufacture,
        VtpmStage::Manufactured(_) => return Step::Certify,
        VtpmStage::Certified { .. } => {}
    }
    if !runs(record, Role::Disk(Volume::Boot)) {
        return Step::Spawn(Role::Disk(Volume::Boot));
    }
    Step::Spawn(Role::Qemu)
}

/// Whether the CPUs must stand still.
fn must_stand(record: &Record, memory: &Memory, live: &Live) -> bool {
    let lease = memory.lease_ended && record.spec.on_lease_end == OnLeaseEnd::Pause;
    let bad = live.verdict.as_ref().is_some_and(|v| !v.trusted);
    lease || (bad && record.on_bad_guest == OnBadGuest::Pause)
}

fn live_steps(record: &Record, memory: &Memory, live: &Live) -> Vec<Step> {
    if !memory.attached {
        return vec![Step::Attach];
    }
    let mut steps = Vec::new();
    let data_runs = runs(record, Role::Disk(Volume::Data));
    for (volume, needed) in [(Volume::Boot, true), (Volume::Data, live.plugged)] {
        if needed && !runs(record, Role::Disk(volume)) {
            let ready = memory.has(volume);
            steps.push(if ready { Step::Spawn(Role::Disk(volume)) } else { Step::Keys(volume) });
        }
    }
    let broken = !steps.is_empty();
    let stands = live.paused || live.io_stopped;
    let must_stand = must_stand(record, memory, live);
    if must_stand && !stands {
        steps.push(Step::Pause);
    }
    if !must_stand && stands && !broken {
        steps.push(Step::Continue);
    }
    if !live.booted {
        steps.push(Step::AwaitBoot);
        return steps;
    }
    if live.appraise {
        steps.push(Step::Appraise);
        return steps;
    }
    if opens_data(record, live) && !must_stand {
        steps.push(if !memory.data_key && !data_runs {
            Step::Keys(Volume::Data)
        } else if !record.made.data {
            Step::Create(Volume::Data)
        } else if !data_runs {
            Step::Spawn(Role::Disk(Volume::Data))
        } else {
            Step::Plug
        });
    }
    steps
}

/// Whether the data volume is to be opened now: only under a good verdict on this launch.
fn opens_data(record: &Record, live: &Live) -> bool {
    record.spec.data_mib > 0
        && live.verdict.as_ref().is_some_and(|v| v.trusted)
        && !live.plugged
        && live.data_failed.is_none()
}

fn stopping_step(record: &Record, memory: &Memory, stopping: &Stopping) -> Option<Step> {
    if runs(record, Role::Qemu) {
        return Some(match (stopping.ask, memory.attached) {
            (true, true) => Step::PowerOff,
            (true, false) => Step::Attach,
            (false, _) => Step::End(Role::Qemu),
        });
    }
    let order = [Role::Disk(Volume::Data), Role::Disk(Volume::Boot), Role::Vtpm];
    if let Some(role) = order.into_iter().find(|role| runs(record, *role)) {
        return Some(Step::End(role));
    }
    (stopping.then == Then::Destroy).then_some(Step::Destroy)
}

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
        (_, Result::Verdict(verdict)) => {
            if let Phase::Live(live) = &mut record.phase {
                live.appraise = false;
                live.mishaps = 0;
                live.data_failed = None;
                live.verdict = Some(verdict);
            }
        }
        (step, Result::Done) => simply_done(record, memory, step),
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
        Step::Pause => cpus(record, memory, RunState::Paused),
        Step::Continue => cpus(record, memory, RunState::Running),
        Step::PowerOff => no_more_asking(record),
        Step::End(role) => record.running.set(role, None),
        Step::Destroy => {
            record.made = super::record::Made::default();
            record.phase = Phase::Gone;
        }
        Step::Spawn(_) | Step::Manufacture | Step::Certify | Step::Attach | Step::Appraise => {}
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
        Phase::Launching(_) if away && !local => {
            memory.waiting.insert(step);
        }
        Phase::Launching(_) => {
            let detail = reason.detail.clone();
            apply_order::end_job(record, reason.outcome());
            stop(record, false, Then::Stopped, detail);
        }
        Phase::Live(_) if step == Step::Attach => {
            let reason = Reason::failed("QEMU does not answer on its control socket", "");
            apply_order::end_job(record, reason.outcome());
            stop(record, false, Then::Stopped, reason.detail);
        }
        Phase::Live(live) => {
            if let Some(outcome) = live_failed(live, memory, step, reason, away) {
                apply_order::end_job(record, outcome);
            }
        }
        Phase::Stopping(stopping) if matches!(step, Step::PowerOff | Step::Attach) => {
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
    let opens_data = !live.plugged && step.word() == "data";
    if step == Step::AwaitBoot {
        live.booted = true;
        live.appraise = true;
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
