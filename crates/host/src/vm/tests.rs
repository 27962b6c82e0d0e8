//! The machine against a model of the world: whatever happens in whatever order, with crashes of
//! the agent between any two steps, its invariants hold, and it comes to rest.

mod cases;
mod world;

use model::{
    KmiOrigin,
    api::{
        operate::{Action, Outcome},
        policy::OnBadGuest,
    },
};
use proptest::prelude::*;

use self::world::{Act, World};
use super::{phase::Phase, record::Record};
use crate::{
    plan::{Role, Volume},
    qmp::RunState,
};

fn acts() -> impl Strategy<Value = Act> {
    let action = prop_oneof![
        Just(Action::Start),
        Just(Action::Stop),
        Just(Action::Attest),
        Just(Action::Rekey),
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
        1 => Just(Act::Disown),
        1 => Just(Act::Retry),
        1 => Just(Act::Delivered),
        1 => any::<bool>().prop_map(|trusted| Act::Turn { trusted }),
    ]
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
    fn data_keys_are_exchanged_once_wherever_the_agent_or_a_disk_process_is_killed(
        at in 0_usize..6,
        act in prop_oneof![
            any::<bool>().prop_map(|after| Act::Crash { after }),
            Just(Act::Kill(Role::Disk(Volume::Boot))),
            Just(Act::Kill(Role::Disk(Volume::Data))),
        ],
    ) {
        let mut world = World::new();
        world.order(Action::Start);
        world.settle();
        world.order(Action::Rekey);
        for _ in 0..at {
            world.act(&Act::Step);
        }
        world.act(&act);
        world.settle();
        prop_assert_eq!(&world.outcomes.last().unwrap().1, &Outcome::Done);
        prop_assert!(world.data_keys.values().all(|epoch| *epoch == 2), "{:?}", world.data_keys);
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
