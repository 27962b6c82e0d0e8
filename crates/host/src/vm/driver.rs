//! The task that owns one VM: it takes events from a queue, lets the pure machine decide, writes
//! the record down, and does the next step.
//!
//! **Invariants:** nobody else changes the VM; the record is durable before a step begins that
//! follows from it; a step that is dropped in its middle is the same as a crash in its middle.

use std::{sync::Arc, time::Duration};

use model::{
    agent::{AgentOperation, AgentPhase, AgentPids, AgentVm},
    api::{
        Bytes,
        vm::{VmState, VolumeFormat},
    },
};
use serve::process::ProcessId;
use tokio::sync::{mpsc, watch};

use super::{
    apply,
    machine::{self, Memory},
    phase::Phase,
    record::{Processes, Record, VtpmStage},
    step::{Event, Step},
};
use crate::{
    anchors,
    console::Console,
    host::Host,
    plan::{Role, VmPaths, Volume},
    process,
    trouble::Trouble,
    work::Worker,
};

/// How long failed steps wait at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How many events may wait.
pub(crate) const QUEUE: usize = 256;

/// What the driver shows to others: the local API, and the reporter to the authority.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// For the local API.
    pub(crate) vm: AgentVm,
    /// For the authority.
    pub(crate) state: VmState,
    /// The outcome waits for the authority to take it.
    pub(crate) undelivered: bool,
    /// How it stands, in words, whatever step is under way.
    pub(crate) standing: String,
    /// Percent of the step under way.
    pub(crate) percent: Option<u8>,
    /// Length of the observed list that the last verdict is about, while the guest runs and no
    /// other verdict is awaited.
    pub(crate) appraised: Option<u64>,
    /// Vault volumes whose disk processes run, and what they are called in the table of anchors.
    pub(crate) anchored: Vec<(Volume, String)>,
    /// Length of the observed list that the last verdict on this launch is about.
    pub(crate) judged: Option<u64>,
    /// The certificate of its vTPM's EK, once it is issued.
    pub(crate) ek: Option<Bytes>,
    /// The VM is gone and nothing is left to deliver.
    pub(crate) gone: bool,
}

/// The task's state.
pub(crate) struct Driver {
    host: Arc<Host>,
    paths: VmPaths,
    record: Record,
    saved: Option<Record>,
    memory: Memory,
    worker: Worker,
    inbox: mpsc::Receiver<Event>,
    events: mpsc::Sender<Event>,
    shown: watch::Sender<Shown>,
    step: Option<Step>,
    retry_armed: bool,
    retry_wait: Duration,
}

impl Driver {
    /// A driver for a VM, new or read back.
    pub(crate) fn new(
        host: Arc<Host>,
        record: Record,
        console: Arc<Console>,
    ) -> (Self, mpsc::Sender<Event>, watch::Receiver<Shown>) {
        let vm = record.spec.name.clone();
        let paths = VmPaths::new(&host.config, &vm);
        let (events, inbox) = mpsc::channel(QUEUE);
        let worker = Worker::new(Arc::clone(&host), vm, console, events.clone());
        let memory = Memory::at_start(&record, host.guard.lease_ended());
        let (shown, seen) = watch::channel(show(&record, None, None));
        let driver = Self {
            host,
            paths,
            record,
            saved: None,
            memory,
            worker,
            inbox,
            events: events.clone(),
            shown,
            step: None,
            retry_armed: false,
            retry_wait: RETRY.0,
        };
        (driver, events, seen)
    }

    /// Looks for what is alive, then drives until the VM is gone or the agent ends.
    pub(crate) async fn run(mut self) {
        if let Err(trouble) = self.worker.prepare() {
            tracing::error!(vm.id = %self.record.spec.name, %trouble, "no directory for the VM");
            return;
        }
        self.adopt().await;
        loop {
            self.publish();
            if self.shown.borrow().gone {
                self.forget_record();
                return;
            }
            if self.saved.as_ref() != Some(&self.record) {
                tokio::time::sleep(RETRY.0).await;
                self.save();
                continue;
            }
            self.arm_retry();
            let Some(step) = machine::next(&self.record, &self.memory) else {
                match self.inbox.recv().await {
                    Some(event) => self.apply(event),
                    None => return,
                }
                continue;
            };
            self.perform(step).await;
        }
    }

    /// After a start of the agent: which processes of the VM are alive.
    async fn adopt(&mut self) {
        let mut found = Processes::default();
        for role in Role::ALL {
            let alive = process::alive(&self.paths, role, self.record.running.get(role)).await;
            found.set(role, alive);
            if let Some(process) = alive {
                tracing::info!(vm.id = %self.record.spec.name, role = role.word(), pid = process.pid, "adopted");
                self.worker.watch(role, process);
            }
        }
        self.apply(Event::Found(found));
    }

    /// Does a step while events go on arriving.
    async fn perform(&mut self, step: Step) {
        let begun = self.host.clock.monotonic();
        self.step = Some(step);
        self.publish();
        tracing::debug!(vm.id = %self.record.spec.name, ?step, "step");
        let record = self.record.clone();
        let progress = self.worker.progress();
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let mut arrived = Vec::new();
        let result = {
            let work = self.worker.perform(&record, step);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    result = &mut work => break Some(result),
                    Some(event) = self.inbox.recv() => {
                        if step.is_long() {
                            self.retry_armed &= !matches!(event, Event::Retry);
                            apply::apply(&mut self.record, &mut self.memory, event);
                            if machine::next(&self.record, &self.memory) != Some(step) {
                                break None;
                            }
                        } else {
                            arrived.push(event);
                        }
                    }
                    _ = tick.tick() => {
                        let percent = progress.now();
                        self.shown.send_if_modified(|shown| {
                            let changed = shown.percent != percent;
                            shown.percent = percent;
                            changed
                        });
                    }
                }
            }
        };
        self.step = None;
        let spent = self.host.clock.monotonic().saturating_sub(begun);
        self.note_times(step, u64::try_from(spent.as_millis()).unwrap_or(u64::MAX));
        match result {
            Some(Ok(found)) => {
                self.retry_wait = RETRY.0;
                self.apply(Event::Done(step, found));
            }
            Some(Err(trouble)) => self.failed(step, trouble),
            None => self.after_apply(),
        }
        for event in arrived {
            self.apply(event);
        }
    }

    fn failed(&mut self, step: Step, trouble: Trouble) {
        let vm = &self.record.spec.name;
        tracing::warn!(vm.id = %vm, ?step, %trouble, away = trouble.away, "step failed");
        if let (Some(name), true) = (&trouble.reason.refused, trouble.ours) {
            let at = self.host.clock.unix_ms();
            let event = format!("vm-{}", step.word());
            self.host.spool.add(at, Some(vm), &event, Some(name), &trouble.reason.detail);
        }
        self.apply(Event::Failed { step, reason: trouble.reason, away: trouble.away });
    }

    fn note_times(&mut self, step: Step, ms: u64) {
        let measured = self.worker.progress().take_times();
        let Some(job) = self.record.job.as_mut().filter(|job| job.is_open()) else { return };
        job.spent(step.word(), ms);
        for (what, ms) in measured {
            job.spent(&what, ms);
        }
        if step == Step::Spawn(Role::Qemu) {
            let outside = job
                .timings
                .iter()
                .filter(|(word, _)| matches!(word.as_str(), "grant" | "vtpm" | "disk"))
                .fold(0_u64, |sum, (_, ms)| sum.saturating_add(*ms));
            job.spent("outside-qemu", outside);
        }
    }

    fn apply(&mut self, event: Event) {
        self.retry_armed &= !matches!(event, Event::Retry);
        apply::apply(&mut self.record, &mut self.memory, event);
        self.after_apply();
    }

    fn after_apply(&mut self) {
        let memory = &self.memory;
        self.worker.forget(memory.boot_keys, memory.data_key, memory.attached);
        self.save();
    }

    /// Writes the record down if it has changed. A record that cannot be written stops the VM's
    /// life here until it can: going on could start something twice.
    fn save(&mut self) {
        if self.saved.as_ref() == Some(&self.record) {
            return;
        }
        match self.record.save(&self.paths) {
            Ok(()) => self.saved = Some(self.record.clone()),
            Err(error) => {
                let error = serve::exit::chain(&error);
                tracing::error!(vm.id = %self.record.spec.name, error, "the record cannot be written");
            }
        }
    }

    fn arm_retry(&mut self) {
        if self.memory.waiting.is_empty() || self.retry_armed {
            return;
        }
        self.retry_armed = true;
        let (events, wait) = (self.events.clone(), self.retry_wait);
        self.retry_wait = wait.saturating_mul(2).min(RETRY.1);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // The driver may have ended with the agent.
            let _ = events.send(Event::Retry).await;
        });
    }

    fn publish(&self) {
        let next = show(&self.record, self.step, self.worker.progress().now());
        self.shown.send_replace(next);
    }

    fn forget_record(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.paths.state) {
            tracing::warn!(vm.id = %self.record.spec.name, %error, "the VM's directory stays");
        }
    }
}

fn show(record: &Record, step: Option<Step>, percent: Option<u8>) -> Shown {
    let (phase, state, detail, trusted) = words(record);
    let pid = |role| record.running.get(role).map(|process: ProcessId| process.pid);
    let last = record.job.as_ref().map(|job| AgentOperation {
        id: job.id,
        action: job.action,
        local: job.local,
        phase: step.map_or("", Step::word).to_owned(),
        timings: job.timings.clone(),
        outcome: job.outcome.clone(),
    });
    let undelivered =
        record.job.as_ref().is_some_and(|job| !job.local && !job.is_open() && !job.delivered);
    let vm = AgentVm {
        vm: record.spec.name.clone(),
        phase,
        detail: step.map_or_else(|| detail.clone(), |step| step.word().to_owned()),
        epoch: record.epoch,
        trusted,
        pids: AgentPids {
            vtpm: pid(Role::Vtpm),
            disk_boot: pid(Role::Disk(Volume::Boot)),
            disk_data: pid(Role::Disk(Volume::Data)),
            qemu: pid(Role::Qemu),
        },
        last,
    };
    let gone = matches!(record.phase, Phase::Gone)
        && record.job.as_ref().is_none_or(|job| !job.is_open() && (job.local || job.delivered));
    let live = if let Phase::Live(live) = &record.phase { Some(live) } else { None };
    let judged = live.and_then(|live| live.verdict.as_ref()).map(|verdict| verdict.entries);
    let moves = live.filter(|live| !live.appraise && !live.paused && !live.io_stopped);
    let appraised = moves.and_then(|live| live.verdict.as_ref()).map(|verdict| verdict.entries);
    let anchored = anchored(record);
    let ek = match &record.made.vtpm {
        VtpmStage::Certified { ek, .. } => Some(ek.clone()),
        VtpmStage::None | VtpmStage::Manufactured(_) => None,
    };
    Shown {
        vm,
        state,
        undelivered,
        standing: detail,
        percent,
        appraised,
        anchored,
        judged,
        ek,
        gone,
    }
}

fn anchored(record: &Record) -> Vec<(Volume, String)> {
    let vault = record.spec.format == VolumeFormat::Vault;
    let served = |volume: &Volume| vault && record.running.get(Role::Disk(*volume)).is_some();
    let name = |volume| (volume, anchors::name(&record.spec.name, record.epoch, volume));
    [Volume::Boot, Volume::Data].into_iter().filter(served).map(name).collect()
}

fn words(record: &Record) -> (AgentPhase, VmState, String, Option<bool>) {
    match &record.phase {
        Phase::Stopped(stopped) => {
            (AgentPhase::Stopped, VmState::Stopped, stopped.detail.clone(), None)
        }
        Phase::Launching(_) => (AgentPhase::Launching, VmState::Busy, "launching".to_owned(), None),
        Phase::Stopping(stopping) => {
            (AgentPhase::Stopping, VmState::Busy, stopping.detail.clone(), None)
        }
        Phase::Gone => (AgentPhase::Stopped, VmState::Stopped, "deleted".to_owned(), None),
        Phase::Live(live) => {
            let trusted = live.verdict.as_ref().map(|v| v.trusted);
            let why = live.verdict.as_ref().and_then(|v| v.reason.as_ref());
            let detail = match (why, live.io_stopped, live.paused) {
                (Some(reason), _, _) => match &reason.refused {
                    Some(name) => format!("{name}: {}", reason.detail),
                    None => reason.detail.clone(),
                },
                (None, true, _) => "stopped by a failed volume".to_owned(),
                (None, false, true) => "paused: the lease has ended".to_owned(),
                (None, false, false) => String::new(),
            };
            if live.paused || live.io_stopped {
                (AgentPhase::Paused, VmState::Paused, detail, trusted)
            } else {
                (AgentPhase::Running, VmState::Running, detail, trusted)
            }
        }
    }
}
