//! The protocol, model-checked: the [`step`] that runs, in a world of three services where messages
//! are lost, repeated and reordered without end, processes die between what is stored and what is
//! said, operators begin and cancel, and hosts turn bad and good again.
//!
//! A message that was said once stays in the world for ever: whether it is delivered never, once or
//! many times, and in which order, is the explorer's choice.

#![expect(
    clippy::tests_outside_test_module,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "an integration test is a test module"
)]

use std::collections::BTreeSet;

use model::{
    HostId, MigrationId,
    migration::{Change, Event, Move, Place, Rejection, Say, Step, step},
};
use stateright::{Checker, HasDiscoveries, Model, Property};

const SERVICES: usize = 3;

/// A message, from one service to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    from: usize,
    to: usize,
    say: Say,
    id: MigrationId,
    epoch: u64,
}

/// What a service has of the keys, as the changes that it was told to make left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Has {
    live: bool,
    held: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    places: [Place; SERVICES],
    has: [Has; SERVICES],
    bad: [bool; SERVICES],
    said: BTreeSet<Message>,
    begun: u8,
    cancelled: u8,
    turns: u8,
    /// Keys were sent or released to a service that was bad at that moment.
    given_to_bad: bool,
    /// A second migration of the owner was refused.
    second_refused: bool,
    withdrawn: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Act {
    Begin(usize, usize),
    Cancel(usize),
    Again(usize),
    /// A message arrives; `true`: the process dies once the outcome is stored, before it answers.
    Deliver(Message, bool),
    Turn(usize),
}

/// What is wrong in the tests that show that the model sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The source deletes when it sends.
    DeletesEarly,
    /// The target answers as soon as it has the parcel.
    AnswersEarly,
    /// The source releases without looking at the target again.
    LooksOnce,
    /// A withdrawn migration is forgotten by the target's side.
    ForgetsEpochs,
}

struct Moving {
    begins: u8,
    cancels: u8,
    turns: u8,
    wrong: Wrong,
}

fn host(at: usize) -> HostId {
    ["a", "b", "c"][at].parse().unwrap()
}

fn index(host: &HostId) -> usize {
    ["a", "b", "c"].iter().position(|name| *name == host.as_str()).unwrap()
}

/// The event that a message is at its receiver.
fn event(world: &World, message: &Message) -> Event {
    let Message { from, say, id, epoch, .. } = message.clone();
    let of = Move { id, peer: host(from), epoch };
    let trusted = !world.bad[from];
    match say {
        Say::Offer => Event::Offer { of, trusted },
        Say::Parcel => Event::Parcel { of, unfit: None },
        Say::Activate => Event::Activate { of },
        Say::Discard => Event::Discard { of },
        Say::Ready => Event::Ready { id, trusted },
        Say::Receipt => Event::Receipt { id, whole: true, trusted },
        Say::Activated => Event::Activated { id },
        Say::Discarded => Event::Discarded { id },
    }
}

impl Moving {
    fn step(&self, place: &Place, event: Event) -> Result<Step, Rejection> {
        let event = match event {
            Event::Receipt { id, whole, .. } if self.wrong == Wrong::LooksOnce => {
                Event::Receipt { id, whole, trusted: true }
            }
            other => other,
        };
        let mut next = step(place, event)?;
        match (self.wrong, next.change, next.say) {
            (Wrong::DeletesEarly, None, Some(Say::Parcel)) => next.change = Some(Change::Delete),
            (Wrong::AnswersEarly, Some(Change::Hold), _) => next.change = Some(Change::Take),
            (Wrong::ForgetsEpochs, Some(Change::Drop), _) => {
                next.place = Place::Absent { epoch: 0 };
            }
            _ => {}
        }
        Ok(next)
    }

    /// Lets something happen at a service; what it says then. `reply_to`: who asked, and in which
    /// migration.
    fn happen(
        &self,
        world: &mut World,
        at: usize,
        event: Event,
        reply_to: Option<(usize, MigrationId, u64)>,
    ) -> Option<Message> {
        let before = world.places[at].clone();
        let refusable = matches!(event, Event::Offer { .. } | Event::Parcel { .. });
        let next = match self.step(&before, event) {
            Ok(next) => next,
            Err(why) => {
                world.second_refused |= why == Rejection::OwnerMigrating;
                // A refusal is an answer too; here it arrives at once or never.
                if let Some((from, id, _)) = reply_to.filter(|_| refusable) {
                    let refused = Event::Refused { id, why };
                    return self.happen(world, from, refused, None);
                }
                return None;
            }
        };
        let has = &mut world.has[at];
        match next.change {
            Some(Change::Hold) => has.held = true,
            Some(Change::Take) => *has = Has { live: true, held: false },
            Some(Change::Drop) | Some(Change::MakeKey) => has.held = false,
            Some(Change::Delete) => has.live = false,
            None => {}
        }
        if next.place != before {
            if let Place::Sending(one) | Place::Released(one) = &next.place {
                world.given_to_bad |= world.bad[index(&one.peer)];
            }
            world.withdrawn |= matches!(next.place, Place::Withdrawing(..));
        }
        world.places[at] = next.place;
        let say = next.say?;
        let (to, id, epoch) = match say {
            Say::Offer | Say::Parcel | Say::Activate | Say::Discard => {
                let one = world.places[at].moving()?;
                (index(&one.peer), one.id, one.epoch)
            }
            Say::Ready | Say::Receipt | Say::Activated | Say::Discarded => reply_to?,
        };
        Some(Message { from: at, to, say, id, epoch })
    }

    /// Whether, when faults end, the world comes to rest with the keys at exactly one place.
    fn comes_to_rest(&self, world: &World) -> bool {
        let mut world = world.clone();
        world.bad = [false; SERVICES];
        for _ in 0..8 {
            for at in 0..SERVICES {
                let mut next = self.happen(&mut world, at, Event::Again, None);
                while let Some(message) = next {
                    let from = Some((message.from, message.id, message.epoch));
                    let event = event(&world, &message);
                    next = self.happen(&mut world, message.to, event, from);
                }
            }
        }
        let open = world.places.iter().filter(|place| place.moving().is_some()).count();
        let live = world.has.iter().filter(|has| has.live).count();
        let held = world.has.iter().filter(|has| has.held).count();
        open == 0 && live == 1 && held == 0
    }
}

impl Model for Moving {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        let absent = || Place::Absent { epoch: 0 };
        let none = Has::default();
        vec![World {
            places: [Place::Here { epoch: 0 }, absent(), absent()],
            has: [Has { live: true, held: false }, none, none],
            bad: [false; SERVICES],
            said: BTreeSet::new(),
            begun: 0,
            cancelled: 0,
            turns: 0,
            given_to_bad: false,
            second_refused: false,
            withdrawn: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Act>) {
        for at in 0..SERVICES {
            if world.begun < self.begins {
                let others = (0..SERVICES).filter(|to| *to != at);
                actions.extend(others.map(|to| Act::Begin(at, to)));
            }
            if world.cancelled < self.cancels && world.places[at].moving().is_some() {
                actions.push(Act::Cancel(at));
            }
            if world.turns < self.turns {
                actions.push(Act::Turn(at));
            }
            actions.push(Act::Again(at));
        }
        for message in &world.said {
            actions.extend([false, true].map(|dies| Act::Deliver(message.clone(), dies)));
        }
    }

    fn next_state(&self, before: &World, act: Act) -> Option<World> {
        let mut world = before.clone();
        let said = match act {
            Act::Begin(at, to) => {
                world.begun += 1;
                let id = MigrationId([world.begun; 16]);
                let event = Event::Begin { id, peer: host(to), least: 0 };
                self.happen(&mut world, at, event, None)
            }
            Act::Cancel(at) => {
                world.cancelled += 1;
                let id = world.places[at].moving()?.id;
                self.happen(&mut world, at, Event::Cancel { id }, None)
            }
            Act::Again(at) => self.happen(&mut world, at, Event::Again, None),
            Act::Deliver(message, dies) => {
                let from = Some((message.from, message.id, message.epoch));
                let event = event(&world, &message);
                let said = self.happen(&mut world, message.to, event, from);
                said.filter(|_| !dies)
            }
            Act::Turn(at) => {
                world.turns += 1;
                world.bad[at] = !world.bad[at];
                None
            }
        };
        world.said.extend(said);
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most one answers", |_, world: &World| {
                world.has.iter().filter(|has| has.live).count() <= 1
            }),
            Property::always("the keys are somewhere", |_, world: &World| {
                world.has.iter().any(|has| has.live || has.held)
            }),
            Property::always("who answers is who says so", |_, world: &World| {
                (0..SERVICES).all(|at| world.places[at].answers() == world.has[at].live)
            }),
            Property::always("none to a bad service", |_, world: &World| !world.given_to_bad),
            Property::always("one holder once faults end", |model: &Self, world: &World| {
                model.comes_to_rest(world)
            }),
            Property::sometimes("the keys move", |_, world: &World| {
                matches!(world.places[0], Place::Absent { epoch: 1 }) && world.has[1].live
            }),
            Property::sometimes("a second migration is refused", |_, world: &World| {
                world.second_refused
            }),
        ]
    }
}

/// The first of the "always" properties that does not hold.
fn broken(model: Moving) -> Option<&'static str> {
    let checker =
        model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let known: Vec<_> = checker.discoveries().into_keys().collect();
    [
        "at most one answers",
        "the keys are somewhere",
        "who answers is who says so",
        "none to a bad service",
        "one holder once faults end",
    ]
    .into_iter()
    .find(|name| known.contains(name))
}

#[test]
fn keys_are_at_exactly_one_place_whatever_is_lost_repeated_or_killed() {
    for (begins, cancels, turns) in [(3, 2, 0), (2, 1, 3)] {
        let model = Moving { begins, cancels, turns, wrong: Wrong::Nothing };
        let checker =
            model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        println!(
            "begins {begins}, cancels {cancels}, turns {turns}: {} states",
            checker.unique_state_count()
        );
        checker.assert_properties();
    }
}

#[test]
fn the_model_sees_what_would_go_wrong() {
    for (wrong, seen) in [
        (Wrong::DeletesEarly, "the keys are somewhere"),
        (Wrong::AnswersEarly, "at most one answers"),
        (Wrong::LooksOnce, "none to a bad service"),
        (Wrong::ForgetsEpochs, "one holder once faults end"),
    ] {
        let model = Moving { begins: 1, cancels: 1, turns: 1, wrong };
        assert_eq!(broken(model), Some(seen), "{wrong:?}");
    }
}
