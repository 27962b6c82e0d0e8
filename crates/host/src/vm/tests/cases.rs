//! Situations by name, each from its beginning to its end.

use model::{
    KmiOrigin,
    api::{
        operate::{Action, Outcome},
        policy::OnBadGuest,
    },
};

use super::super::{
    machine::{self},
    phase::Phase,
    step::{Event, Reason, Step},
};
use super::world::{Act, World};
use crate::{
    plan::{Role, Volume, tests::kmi},
    qmp::RunState,
};

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
fn a_vm_that_stands_when_the_agent_starts_waits_for_its_report_whatever_the_lease_says() {
    let mut world = World::new();
    world.order(Action::Start);
    world.settle();
    world.act(&Act::Lease { ended: true });
    world.act(&Act::Step);
    // The lease is renewed while no agent runs.
    world.memory.lease_ended = false;
    world.act(&Act::Crash { after: false });
    while let Some(step) = machine::next(&world.record, &world.memory) {
        assert_ne!(step, Step::Continue);
        world.act(&Act::Step);
    }
    assert!(matches!(&world.record.phase, Phase::Live(live) if live.paused));
    world.act(&Act::Lease { ended: false });
    assert_eq!(machine::next(&world.record, &world.memory), Some(Step::Continue));
}

#[test]
fn a_vm_whose_home_was_taken_away_is_cut_whoever_says_it_first() {
    let running = || {
        let mut world = World::new();
        world.order(Action::Start);
        world.settle();
        assert!(world.runs(Role::Qemu));
        world
    };
    let mut told = running();
    told.act(&Act::Disown);
    let mut judged = running();
    judged.act(&Act::Reappraise);
    let reason = Reason::refused("grant-epoch-moved", "the VM is in epoch 2", "");
    judged.event(Event::Failed { step: Step::Appraise, reason, away: false });
    for mut world in [told, judged] {
        world.settle();
        assert!(world.alive.is_empty());
        let Phase::Stopped(stopped) = &world.record.phase else { panic!("it goes on") };
        assert!(stopped.detail.contains("epoch 2"), "{}", stopped.detail);
    }
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

#[test]
fn new_data_keys_are_made_one_volume_after_the_other() {
    let mut world = World::new();
    world.order(Action::Start);
    world.settle();
    world.order(Action::Rekey);
    let mut steps = Vec::new();
    while let Some(step) = machine::next(&world.record, &world.memory) {
        steps.push(step);
        world.act(&Act::Step);
    }
    let (boot, data) = (Volume::Boot, Volume::Data);
    let wanted = [boot, data].map(|volume| [Step::NextKey(volume), Step::Rekey(volume)]);
    assert_eq!(steps, wanted.as_flattened());
    assert_eq!(world.outcomes.pop().unwrap().1, Outcome::Done);
}

#[test]
fn a_data_volume_that_is_closed_gets_no_new_key_and_what_is_damaged_ends_the_operation() {
    let mut world = World { trusted: false, ..World::new() };
    world.order(Action::Start);
    world.settle();
    world.order(Action::Rekey);
    world.settle();
    let outcome = world.outcomes.pop().unwrap().1;
    assert!(matches!(outcome, Outcome::Refused { name, .. } if name == "data-volume-closed"));
    assert!(world.data_keys.values().all(|epoch| *epoch == 1));
    let mut world = World::new();
    world.order(Action::Start);
    world.settle();
    world.order(Action::Rekey);
    world.act(&Act::Step);
    let reason = Reason::refused("sector-damaged", "", "");
    world.event(Event::Failed { step: Step::Rekey(Volume::Boot), reason, away: false });
    let outcome = world.outcomes.pop().unwrap().1;
    assert!(matches!(outcome, Outcome::Refused { name, .. } if name == "sector-damaged"));
    assert!(matches!(world.record.phase, Phase::Live(_)));
}
