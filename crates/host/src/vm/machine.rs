//! The pure heart of a VM's driver: [`next`] says what is to be done now, [`super::apply`] what an
//! event changes. No I/O, no clock; the same record and memory always give the same step.
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
//!   Live, the first that is needed and need not wait: repair a disk · attach · pause or go on ·
//!         await boot · appraise · data key · data volume · data disk · plug · new data keys
//!   Stopping, in order: power off · QEMU · data disk · boot disk · vTPM · destroy
//! ```
//!
//! **Invariants:** QEMU is started only when its vTPM and boot disk run and no QEMU is known; the
//! data volume is opened only under a good verdict on this launch; nothing is destroyed while a
//! process runs; an operation gets exactly one outcome.

use std::collections::BTreeSet;

use model::api::{operate::Action, policy::OnBadGuest, vm::OnLeaseEnd};

use super::{
    phase::{Live, Phase, Stopping, Then},
    record::{Job, NewKey, Record, VtpmStage},
    step::Step,
};
use crate::plan::{Role, Volume};

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
    /// Steps that have failed and wait for [`super::step::Event::Retry`].
    pub(crate) waiting: BTreeSet<Step>,
}

impl Memory {
    /// What is known when the agent starts. A VM that stands may stand because the lease had ended,
    /// whatever the lease says now: its first report that is taken lets it go on.
    pub(super) fn at_start(record: &Record, lease_ended: bool) -> Self {
        let stands = matches!(&record.phase, Phase::Live(live) if live.paused);
        Self { lease_ended: stands || lease_ended, ..Self::default() }
    }

    fn has(&self, volume: Volume) -> bool {
        match volume {
            Volume::Boot => self.boot_keys,
            Volume::Data => self.data_key,
        }
    }

    pub(super) fn set(&mut self, volume: Volume) {
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

/// Whether a process of this role is known to run.
pub(super) fn runs(record: &Record, role: Role) -> bool {
    record.running.get(role).is_some()
}

fn launching(record: &Record, memory: &Memory) -> Step {
    let deposit = record.job.as_ref().is_some_and(|job| job.deposit) && !record.made.deposited;
    if record.stale.is_some() {
        return Step::SetAside;
    }
    if deposit {
        // The name is durable before it is told: a repeated deposit tells the same.
        let unnamed = record.spec.kmi_origin.is_host() && !record.made.named;
        return if unnamed { Step::NameKey } else { Step::Deposit };
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
    lease || (bad && record.on_bad() == OnBadGuest::Pause)
}

fn live_steps(record: &Record, memory: &Memory, live: &Live) -> Vec<Step> {
    let mut steps = Vec::new();
    let data_runs = runs(record, Role::Disk(Volume::Data));
    for (volume, needed) in [(Volume::Boot, true), (Volume::Data, live.plugged)] {
        if needed && !runs(record, Role::Disk(volume)) {
            let ready = memory.has(volume);
            steps.push(if ready { Step::Spawn(Role::Disk(volume)) } else { Step::Keys(volume) });
        }
    }
    let broken = !steps.is_empty();
    if !memory.attached {
        // A QEMU that waits for its disk may not answer before it is there.
        steps.push(Step::Attach);
        return steps;
    }
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
    steps.extend(rekeying(record, live));
    steps
}

/// The next step towards new data keys, one volume after the other, if they are ordered.
fn rekeying(record: &Record, live: &Live) -> Option<Step> {
    let ordered = |job: &&Job| job.is_open() && job.action == Action::Rekey;
    let job = record.job.as_ref().filter(ordered)?;
    let open = |volume: &Volume| {
        let there = *volume == Volume::Boot || live.plugged;
        there && runs(record, Role::Disk(*volume)) && job.keys.get(*volume) != NewKey::Done
    };
    let volume = record.volumes().find(open)?;
    Some(match job.keys.get(volume) {
        NewKey::Open => Step::NextKey(volume),
        NewKey::Next(_) | NewKey::Done => Step::Rekey(volume),
    })
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
        let disk = Role::Disk(Volume::Boot);
        return Some(match (stopping.ask, runs(record, disk)) {
            // A guest that is to power off needs its disk.
            (true, false) if memory.boot_keys => Step::Spawn(disk),
            (true, true) if memory.attached => Step::PowerOff,
            (true, true) => Step::Attach,
            (true, false) | (false, _) => Step::End(Role::Qemu),
        });
    }
    let order = [Role::Disk(Volume::Data), Role::Disk(Volume::Boot), Role::Vtpm];
    if let Some(role) = order.into_iter().find(|role| runs(record, *role)) {
        return Some(Step::End(role));
    }
    (stopping.then == Then::Destroy).then_some(Step::Destroy)
}
