//! The machine against a model of the world: whatever happens in whatever order, with crashes of
//! the agent between any two steps, its invariants hold, and it comes to rest.

use model::{
    Epoch, Kmi, KmiOrigin, OperationId,
    api::{
        operate::{Action, Outcome},
        policy::OnBadGuest,
        vm::{VmSpec, VtpmPublics},
    },
};
use proptest::prelude::*;
use serve::process::ProcessId;

use super::{
    apply,
    machine::{self, Memory},
    phase::{Phase, Verdict},
    record::{Job, Processes, Record, VtpmStage},
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
struct World {
    record: Record,
    memory: Memory,
    alive: Processes,
    next_pid: i32,
    next_job: u8,
    outcomes: Vec<(OperationId, Outcome)>,
    trusted: bool,
    plugged: bool,
    on_bad_guest: OnBadGuest,
    kmi_origin: KmiOrigin,
    /// The authority awaits what the host makes.
    deposit: bool,
    /// What was deposited as the key's KMI.
    deposited: Option<model::Digest>,
}

#[derive(Clone, Debug)]
enum Act {
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
    Retry,
    Delivered,
    Turn {
        trusted: bool,
    },
}

fn acts() -> impl Strategy<Value = Act> {
    let action = prop_oneof![
        Just(Action::Start),
        Just(Action::Stop),
        Just(Action::Attest),
        Just(Action::Delete)
    ];
    let role = prop_oneof![
        Just(Role::Vtpm),
        Just(Role::Qemu),
        Just(Role::Disk(Volume::Boot)),
        Just(Role::Disk(Volume::Data))
    ];
    prop_oneof![
        2 => action.prop_map(Act::Order),
        20 => Just(Act::Step),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(away, refused)| Act::Fail { away, refused }),
        2 => any::<bool>().prop_map(|after| Act::Crash { after }),
        1 => role.prop_map(Act::Kill),
        1 => prop_oneof![Just(RunState::IoError), Just(RunState::Running), Just(RunState::Paused)]
            .prop_map(Act::Cpus),
        1 => any::<bool>().prop_map(|reset| Act::PowerOff { reset }),
        1 => any::<bool>().prop_map(|ended| Act::Lease { ended }),
        1 => Just(Act::Reappraise),
        1 => Just(Act::Retry),
        1 => Just(Act::Delivered),
        1 => any::<bool>().prop_map(|trusted| Act::Turn { trusted }),
    ]
}

impl World {
    fn new() -> Self {
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
        }
    }

    fn event(&mut self, event: Event) {
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

    fn order(&mut self, action: Action) {
        let id = OperationId([self.next_job; 16]);
        self.next_job = self.next_job.wrapping_add(1);
        let job = Job {
            id,
            action,
            local: false,
            deposit: self.deposit && self.deposited.is_none(),
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
    fn effect(&mut self, step: Step) -> Found {
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
            Step::End(role) => {
                if role != Role::Qemu {
                    let early = matches!(self.record.phase, Phase::Stopping(_));
                    assert!(!early || !self.runs(Role::Qemu), "{role:?} ended under QEMU");
                }
                self.alive.set(role, None);
                Found::Done
            }
            Step::Destroy => {
                assert!(self.alive.is_empty(), "destroyed under a process");
                Found::Done
            }
            Step::PowerOff
            | Step::SetAside
            | Step::Keys(Volume::Boot)
            | Step::Create(Volume::Boot)
            | Step::AwaitBoot
            | Step::Pause
            | Step::Continue => Found::Done,
        }
    }

    fn spawn(&mut self, role: Role) -> Found {
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

    fn assert_data_may_open(&self) {
        let Phase::Live(live) = &self.record.phase else {
            panic!("the data volume was opened while {:?}", self.record.phase)
        };
        let trusted = live.verdict.as_ref().is_some_and(|v| v.trusted);
        assert!(trusted || live.plugged, "the data volume was opened without a good verdict");
    }

    fn runs(&self, role: Role) -> bool {
        self.alive.get(role).is_some()
    }

    fn act(&mut self, act: &Act) {
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
                self.memory = Memory { lease_ended, ..Memory::default() };
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
    fn settle(&mut self) {
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

#[test]
fn a_start_goes_through_every_step_in_order_and_a_stop_ends_them_in_reverse() {
    let mut world = World::new();
    world.order(Action::Start);
    let mut steps = Vec::new();
    while let Some(step) = machine::next(&world.record, &world.memory) {
        steps.push(step);
        world.act(&Act::Step);
    }
    let (boot, data) = (Volume::Boot, Volume::Data);
    assert_eq!(
        steps,
        [
            Step::Keys(boot),
            Step::Create(boot),
            Step::Spawn(Role::Vtpm),
            Step::Manufacture,
            Step::Certify,
            Step::Spawn(Role::Disk(boot)),
            Step::Spawn(Role::Qemu),
            Step::AwaitBoot,
            Step::Appraise,
            Step::Keys(data),
            Step::Create(data),
            Step::Spawn(Role::Disk(data)),
            Step::Plug,
        ]
    );
    assert_eq!(world.outcomes.pop().unwrap().1, Outcome::Done);
    world.order(Action::Stop);
    let mut steps = Vec::new();
    while let Some(step) = machine::next(&world.record, &world.memory) {
        steps.push(step);
        world.act(&Act::Step);
    }
    let ends = [Role::Qemu, Role::Disk(data), Role::Disk(boot), Role::Vtpm].map(Step::End);
    assert_eq!(steps.split_first().unwrap(), (&Step::PowerOff, &ends[..]));
    assert_eq!(world.outcomes.pop().unwrap().1, Outcome::Done);
    assert!(!world.memory.boot_keys && !world.memory.data_key);
}

#[test]
fn what_the_host_makes_is_named_durably_before_it_is_deposited() {
    let mut world = World { deposit: true, kmi_origin: KmiOrigin::Tcb, ..World::new() };
    world.order(Action::Start);
    for step in [Step::NameKey, Step::Deposit, Step::Keys(Volume::Boot)] {
        assert_eq!(machine::next(&world.record, &world.memory), Some(step));
        world.act(&Act::Step);
    }
    assert_eq!(world.deposited, Some(world.record.kmi.key_id));
    assert_ne!(world.deposited, Some(kmi("v1").key_id));
    world.settle();
    assert_eq!(world.outcomes.pop().unwrap().1, Outcome::Done);
}

#[test]
fn a_bad_verdict_refuses_the_start_pauses_the_guest_and_keeps_the_data_volume_closed() {
    let mut world = World::new();
    world.trusted = false;
    world.order(Action::Start);
    world.settle();
    let Phase::Live(live) = &world.record.phase else { panic!("not live") };
    assert!(live.paused && !live.plugged);
    let outcome = world.outcomes.pop().unwrap().1;
    assert!(matches!(outcome, Outcome::Refused { name, .. } if name == "guest-event-unknown"));
    assert!(!world.runs(Role::Disk(Volume::Data)));
}

#[test]
fn a_guest_that_turns_bad_while_it_runs_is_paused_ended_or_reported_as_the_policy_of_now_says() {
    for act in [OnBadGuest::Pause, OnBadGuest::Stop, OnBadGuest::Report] {
        let mut world = World::new();
        world.order(Action::Start);
        world.settle();
        assert_eq!(world.outcomes.pop().unwrap().1, Outcome::Done);
        // The policy changed after the start; the verdict brings it.
        (world.on_bad_guest, world.trusted) = (act, false);
        world.act(&Act::Reappraise);
        assert_eq!(machine::next(&world.record, &world.memory), Some(Step::Appraise));
        world.settle();
        match (act, &world.record.phase) {
            (OnBadGuest::Pause, Phase::Live(live)) => assert!(live.paused),
            (OnBadGuest::Report, Phase::Live(live)) => assert!(!live.paused && live.plugged),
            (OnBadGuest::Stop, Phase::Stopped(stopped)) => {
                assert!(stopped.detail.contains("guest-event-unknown"), "{}", stopped.detail);
                assert!(world.alive.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_a_vm_says_of_its_own_bad_verdicts_goes_before_the_policy() {
    let mut world = World::new();
    world.order(Action::Start);
    world.settle();
    world.record.spec.on_bad_guest = Some(OnBadGuest::Report);
    world.trusted = false;
    world.act(&Act::Reappraise);
    world.settle();
    assert!(matches!(&world.record.phase, Phase::Live(live) if !live.paused));
}

#[test]
fn a_failed_disk_process_is_replaced_and_the_guest_goes_on() {
    let mut world = World::new();
    world.order(Action::Start);
    world.settle();
    world.act(&Act::Kill(Role::Disk(Volume::Boot)));
    world.act(&Act::Cpus(RunState::IoError));
    let spawn = Step::Spawn(Role::Disk(Volume::Boot));
    assert_eq!(machine::next(&world.record, &world.memory), Some(spawn));
    world.act(&Act::Step);
    assert_eq!(machine::next(&world.record, &world.memory), Some(Step::Continue));
    world.settle();
    assert!(matches!(&world.record.phase, Phase::Live(live) if !live.io_stopped && live.plugged));
}

#[test]
fn the_end_of_the_lease_pauses_and_its_renewal_goes_on() {
    let mut world = World::new();
    world.order(Action::Start);
    world.settle();
    world.act(&Act::Lease { ended: true });
    world.act(&Act::Step);
    assert!(matches!(&world.record.phase, Phase::Live(live) if live.paused));
    assert_eq!(machine::next(&world.record, &world.memory), None);
    world.settle();
    assert!(matches!(&world.record.phase, Phase::Live(live) if !live.paused));
}

#[test]
fn evidence_on_demand_opens_a_data_volume_that_was_left_closed() {
    let mut world = World::new();
    world.order(Action::Start);
    while machine::next(&world.record, &world.memory) != Some(Step::Keys(Volume::Data)) {
        world.act(&Act::Step);
    }
    world.act(&Act::Fail { away: false, refused: true });
    world.settle();
    assert!(matches!(world.outcomes.pop().unwrap().1, Outcome::Refused { .. }));
    world.order(Action::Attest);
    world.settle();
    assert_eq!(world.outcomes.pop().unwrap().1, Outcome::Done);
    assert!(world.plugged);
}

#[test]
fn a_guest_that_resets_is_launched_anew_with_its_data_volume_closed() {
    let mut world = World::new();
    world.order(Action::Start);
    world.settle();
    world.trusted = false;
    world.act(&Act::PowerOff { reset: true });
    world.settle();
    let Phase::Live(live) = &world.record.phase else { panic!("not live") };
    assert_eq!((live.resets, live.plugged, live.paused), (1, false, true));
    assert!(!world.runs(Role::Disk(Volume::Data)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn invariants_hold_whatever_happens(
        acts in proptest::collection::vec(acts(), 1..120),
        on_bad_guest in prop_oneof![
            Just(OnBadGuest::Pause),
            Just(OnBadGuest::Report),
            Just(OnBadGuest::Stop),
        ],
        deposit: bool,
    ) {
        let kmi_origin = KmiOrigin::Tpm;
        let mut world = World { deposit, kmi_origin, on_bad_guest, ..World::new() };
        for act in &acts {
            world.act(act);
            // The record on disk says the same when it is read back.
            let text = serde_json::to_vec(&world.record).unwrap();
            let back: Record = serde_json::from_slice(&text).unwrap();
            prop_assert!(back == world.record);
        }
        world.settle();
        prop_assert!(world.record.job.as_ref().is_none_or(|job| !job.is_open()), "left open");
        prop_assert!(world.record.running == world.alive, "the record knows what runs");
        if matches!(world.record.phase, Phase::Stopped(_) | Phase::Gone) {
            prop_assert!(world.alive.is_empty());
        }
    }

    #[test]
    fn a_start_succeeds_wherever_the_agent_is_killed(at in 0_usize..16, after: bool) {
        let mut world = World { deposit: true, kmi_origin: KmiOrigin::Tcb, ..World::new() };
        world.order(Action::Start);
        for _ in 0..at {
            world.act(&Act::Step);
        }
        world.act(&Act::Crash { after });
        world.settle();
        prop_assert_eq!(&world.outcomes.last().unwrap().1, &Outcome::Done);
        prop_assert!(matches!(&world.record.phase, Phase::Live(live) if live.plugged));
    }
}
