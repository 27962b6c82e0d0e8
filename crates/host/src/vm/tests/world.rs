//! The model: what is really there, what a step does to it, and what must never happen.

use std::collections::BTreeMap;

use model::{
    Epoch, Kmi, KmiOrigin, OperationId,
    api::{
        operate::{Action, Outcome},
        policy::OnBadGuest,
        vm::{VmSpec, VtpmPublics},
    },
};
use serve::process::ProcessId;

use super::super::{
    apply,
    machine::{self, Memory},
    phase::{Phase, Verdict},
    record::{Job, NewKey, NewKeys, Processes, Record, VtpmStage},
    step::{Event, Ordered, Reason, Result as Found, Step, View},
};
use crate::{
    plan::{
        Role, Volume,
        tests::{kmi, spec},
    },
    qmp::RunState,
};

/// What is really there, and what must never happen to it.
pub(super) struct World {
    pub(super) record: Record,
    pub(super) memory: Memory,
    pub(super) alive: Processes,
    pub(super) next_pid: i32,
    pub(super) next_job: u8,
    pub(super) outcomes: Vec<(OperationId, Outcome)>,
    pub(super) trusted: bool,
    pub(super) plugged: bool,
    pub(super) on_bad_guest: OnBadGuest,
    pub(super) kmi_origin: KmiOrigin,
    /// The authority awaits what the host makes.
    pub(super) deposit: bool,
    /// What was deposited as the key's KMI.
    pub(super) deposited: Option<model::Digest>,
    /// Data keys that the volumes have had.
    pub(super) data_keys: BTreeMap<Volume, u32>,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Order(Action),
    /// Do the next step, well.
    Step,
    /// The next step fails; `away`: because the authority is.
    Fail {
        away: bool,
        refused: bool,
    },
    /// The agent is killed, before (`false`) or after the next step took effect, and started again.
    Crash {
        after: bool,
    },
    Kill(Role),
    Cpus(RunState),
    PowerOff {
        reset: bool,
    },
    Lease {
        ended: bool,
    },
    Reappraise,
    /// Its home is taken away.
    Disown,
    Retry,
    Delivered,
    Turn {
        trusted: bool,
    },
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            record: Record::new(spec("v1"), Epoch(1), kmi("v1")),
            memory: Memory::default(),
            alive: Processes::default(),
            next_pid: 1,
            next_job: 1,
            outcomes: Vec::new(),
            trusted: true,
            plugged: false,
            on_bad_guest: OnBadGuest::Pause,
            kmi_origin: KmiOrigin::Console,
            deposit: false,
            deposited: None,
            data_keys: BTreeMap::from([(Volume::Boot, 1), (Volume::Data, 1)]),
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        let before = self.record.job.clone();
        apply::apply(&mut self.record, &mut self.memory, event);
        let after = self.record.job.clone();
        if let (Some(before), Some(after)) = (before, after)
            && before.id == after.id
            && let Some(outcome) = before.outcome
        {
            assert_eq!(Some(outcome), after.outcome, "an outcome changed");
        }
        if let Some(job) = &self.record.job
            && let Some(outcome) = &job.outcome
            && self.outcomes.iter().all(|(id, _)| *id != job.id)
        {
            self.outcomes.push((job.id, outcome.clone()));
        }
    }

    pub(super) fn order(&mut self, action: Action) {
        let id = OperationId([self.next_job; 16]);
        self.next_job = self.next_job.wrapping_add(1);
        let job = Job {
            id,
            action,
            local: false,
            deposit: self.deposit && self.deposited.is_none(),
            keys: NewKeys::default(),
            timings: Vec::new(),
            outcome: None,
            delivered: false,
        };
        let view = View {
            spec: VmSpec { kmi_origin: self.kmi_origin, ..spec("v1") },
            epoch: Epoch(1),
            kmi: Kmi { key_id: self.deposited.unwrap_or(kmi("v1").key_id), ..kmi("v1") },
            on_bad_guest: self.on_bad_guest,
        };
        self.event(Event::Ordered(Box::new(Ordered { job, view: Some(view) })));
    }

    /// What a step does to the world, and what it finds.
    pub(super) fn effect(&mut self, step: Step) -> Found {
        match step {
            Step::Spawn(role) => self.spawn(role),
            Step::Manufacture => Found::Publics(VtpmPublics {
                epoch: Epoch(1),
                ek_public: vec![1].into(),
                ek_rsa_public: None,
                ak_public: vec![2].into(),
            }),
            Step::NameKey => Found::KeyId(model::Digest::sha256([self.next_job; 32])),
            Step::Deposit => {
                if self.kmi_origin.is_host() {
                    let told = self.record.kmi.key_id;
                    let held = *self.deposited.get_or_insert(told);
                    assert_eq!(held, told, "two names for one key");
                }
                Found::Done
            }
            Step::Certify => Found::Certificates { ak: vec![3].into(), ek: vec![4].into() },
            Step::Attach => Found::Attached(RunState::Running),
            Step::Appraise => {
                assert!(self.runs(Role::Vtpm), "evidence without a vTPM");
                Found::Verdict(Verdict {
                    act: Some(self.on_bad_guest),
                    entries: 7,
                    trusted: self.trusted,
                    reason: (!self.trusted).then(|| Reason::refused("guest-event-unknown", "", "")),
                })
            }
            Step::Keys(Volume::Data) | Step::Create(Volume::Data) => {
                self.assert_data_may_open();
                Found::Done
            }
            Step::Plug => {
                self.assert_data_may_open();
                self.plugged = true;
                Found::Done
            }
            Step::End(role) => self.end(role),
            Step::Destroy => {
                assert!(self.alive.is_empty(), "destroyed under a process");
                Found::Done
            }
            Step::NextKey(volume) => Found::NextKey(volume, self.data_keys[&volume] + 1),
            Step::Rekey(volume) => self.rekey(volume),
            Step::PowerOff
            | Step::SetAside
            | Step::Keys(Volume::Boot)
            | Step::Create(Volume::Boot)
            | Step::AwaitBoot
            | Step::Pause
            | Step::Continue => Found::Done,
        }
    }

    fn end(&mut self, role: Role) -> Found {
        if role != Role::Qemu {
            let early = matches!(self.record.phase, Phase::Stopping(_));
            assert!(!early || !self.runs(Role::Qemu), "{role:?} ended under QEMU");
        }
        self.alive.set(role, None);
        Found::Done
    }

    fn rekey(&mut self, volume: Volume) -> Found {
        assert!(self.runs(Role::Disk(volume)), "a key of a volume that nobody serves");
        let job = self.record.job.as_ref().unwrap();
        let NewKey::Next(next) = job.keys.get(volume) else { panic!("no key decided on") };
        let now = self.data_keys.insert(volume, next).unwrap();
        assert!(next == now || next == now + 1, "{next} after {now}");
        Found::Done
    }

    pub(super) fn spawn(&mut self, role: Role) -> Found {
        if role == Role::Qemu {
            assert!(self.runs(Role::Vtpm) && self.runs(Role::Disk(Volume::Boot)));
            assert!(matches!(self.record.made.vtpm, VtpmStage::Certified { .. }));
        }
        if role == Role::Disk(Volume::Data) {
            self.assert_data_may_open();
        }
        let process = self.alive.get(role).unwrap_or_else(|| {
            self.next_pid += 1;
            if role == Role::Qemu {
                self.plugged = false;
            }
            ProcessId { pid: self.next_pid, start_time: 1 }
        });
        self.alive.set(role, Some(process));
        Found::Runs(role, process)
    }

    pub(super) fn assert_data_may_open(&self) {
        let Phase::Live(live) = &self.record.phase else {
            panic!("the data volume was opened while {:?}", self.record.phase)
        };
        let trusted = live.verdict.as_ref().is_some_and(|v| v.trusted);
        assert!(trusted || live.plugged, "the data volume was opened without a good verdict");
    }

    pub(super) fn runs(&self, role: Role) -> bool {
        self.alive.get(role).is_some()
    }

    pub(super) fn act(&mut self, act: &Act) {
        match act {
            Act::Order(action) => self.order(*action),
            Act::Step => {
                if let Some(step) = machine::next(&self.record, &self.memory) {
                    let found = self.effect(step);
                    self.event(Event::Done(step, found));
                }
            }
            Act::Fail { away, refused } => {
                if let Some(step) = machine::next(&self.record, &self.memory) {
                    let reason = if *refused {
                        Reason::refused("lease-ended", "", "")
                    } else {
                        Reason::failed("x", "")
                    };
                    self.event(Event::Failed { step, reason, away: *away });
                }
            }
            Act::Crash { after } => {
                if *after && let Some(step) = machine::next(&self.record, &self.memory) {
                    let _lost = self.effect(step);
                }
                let lease_ended = self.memory.lease_ended;
                self.memory = Memory::at_start(&self.record, lease_ended);
                self.event(Event::Found(self.alive));
            }
            Act::Kill(role) => {
                if let Some(process) = self.alive.get(*role) {
                    self.alive.set(*role, None);
                    self.event(Event::Exited(*role, process));
                }
            }
            Act::Cpus(state) => self.event(Event::Cpus(*state)),
            Act::PowerOff { reset } => {
                if let Some(process) = self.alive.get(Role::Qemu) {
                    self.event(Event::PoweredOff { reset: *reset });
                    self.alive.set(Role::Qemu, None);
                    self.event(Event::Exited(Role::Qemu, process));
                }
            }
            Act::Lease { ended } => self.event(Event::Lease { ended: *ended }),
            Act::Reappraise => self.event(Event::Reappraise),
            Act::Disown => {
                let reason = Reason::refused("grant-epoch-moved", "the VM is in epoch 2", "");
                self.event(Event::Disowned(reason));
            }
            Act::Retry => self.event(Event::Retry),
            Act::Delivered => {
                if let Some(job) = self.record.job.clone() {
                    self.event(Event::Delivered(job.id));
                }
            }
            Act::Turn { trusted } => self.trusted = *trusted,
        }
    }

    /// Goes on undisturbed until there is nothing to do.
    pub(super) fn settle(&mut self) {
        self.event(Event::Lease { ended: false });
        for _ in 0..100 {
            self.event(Event::Retry);
            let Some(step) = machine::next(&self.record, &self.memory) else { return };
            let found = self.effect(step);
            self.event(Event::Done(step, found));
        }
        panic!("it does not come to rest: {:?} {:?}", self.record.phase, self.memory);
    }
}
