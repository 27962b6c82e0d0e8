//! The record, model-checked: [`reported`], [`granted`] and [`begin`] as they run, in a world of two
//! holders whose machines crash at any moment, whose reports may never be made, whose images are
//! copied, moved and put back, and one of whose machines may be put back as a whole, counters included.
//!
//! An attachment and its advances are one move here: what happens between a header and its counter
//! is checked in the `disk` crate. **Fresh:** while no machine was put back as a whole, a volume that
//! is opened has everything that completed advances covered, wherever. **Kept:** in any case it has
//! everything that was reported.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::{super::accept, *};

/// A header, and what it covers: a bit for each attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Header {
    count: u64,
    data: u8,
}

impl Header {
    fn head(self) -> Digest {
        let mut bytes = [self.data; 32];
        bytes[0] = u8::try_from(self.count).unwrap();
        Digest::sha256(bytes)
    }
}

/// What a holder's table says of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Row {
    header: Header,
    rest: bool,
}

/// A machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Holder {
    row: Option<Row>,
    earlier: Option<Row>,
    image: Option<Header>,
    told: Option<Option<Start>>,
    /// A run that began by a grant has not ended.
    begun: bool,
    runs: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    entry: Option<Entry<usize>>,
    busy: bool,
    holders: [Holder; 2],
    seen: BTreeSet<Header>,
    starts: u8,
    covered: u8,
    known: u8,
    put_back: bool,
    stale: bool,
    lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Move {
    Grant(usize),
    /// The agent dies and forgets its grant.
    Forget(usize),
    Attach(usize),
    Detach(usize),
    Kill(usize),
    Report(usize),
    /// The authority learns that nothing runs there.
    Settle(usize),
    Place(usize, Header),
    Remember(usize),
    /// The machine is put back, with its table, its counter and its TPM.
    PutBack(usize),
}

/// The world's rules; what departs from those in force shows that the model sees it.
#[derive(Clone, Copy)]
struct Rules {
    /// Runs that no grant began.
    alone: bool,
    /// Grants do not look at whose run is under way.
    careless: bool,
    /// Holders do not look at the record.
    blind: bool,
    starts: u8,
}

const RULES: Rules = Rules { alone: false, careless: false, blind: false, starts: 3 };

impl Rules {
    fn attach(self, world: &mut World, at: usize) {
        let holder = world.holders[at];
        let Some(image) = holder.image else { return };
        let told = holder.told.flatten();
        let told = told.filter(|told| !self.blind || told.handed_over);
        let Ok(opened) = begin(told, holder.row.map(|row| row.header.count)) else { return };
        // A volume that nobody has a count of is new.
        let new = world.entry.is_none() && world.starts == 0;
        let Some(count) = opened.or(new.then_some(0)) else { return };
        if accept(count, image.count).is_err() {
            return;
        }
        world.stale |= !world.put_back && world.covered & !image.data != 0;
        world.lost |= world.known & !image.data != 0;
        let data = image.data | 1 << world.starts;
        world.starts += 1;
        world.covered |= data;
        let header = Header { count: count + 2, data };
        world.seen.insert(header);
        let row = Some(Row { header, rest: false });
        let image = Some(header);
        let begun = holder.begun || holder.told.is_some();
        world.holders[at] = Holder { row, image, told: None, begun, runs: true, ..holder };
    }

    fn detach(world: &mut World, at: usize) {
        let holder = &mut world.holders[at];
        let Some(row) = &mut holder.row else { return };
        row.header.count += 1;
        row.rest = true;
        holder.image = Some(row.header);
        world.seen.insert(row.header);
        (holder.runs, holder.begun) = (false, false);
    }

    fn grant(self, world: &mut World, at: usize) {
        let told = match &world.entry {
            None => None,
            Some(entry) => match granted(entry, &at, self.careless) {
                Ok((after, start)) => {
                    world.entry = Some(after);
                    Some(start)
                }
                Err(_) => return,
            },
        };
        world.busy = true;
        world.holders[at].told = Some(told);
    }

    fn report(world: &mut World, at: usize) {
        let Some(row) = world.holders[at].row else { return };
        let Header { count, data } = row.header;
        let told = Report { count, head: row.header.head(), rest: row.rest };
        if let Ok(after) = reported(world.entry.as_ref(), &at, &told, !world.busy) {
            world.entry = Some(after);
            world.known |= data;
        }
    }
}

impl Model for Rules {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        let new = Header { count: 0, data: 0 };
        vec![World {
            entry: None,
            busy: false,
            holders: [Holder { image: Some(new), ..Holder::default() }, Holder::default()],
            seen: BTreeSet::from([new]),
            starts: 0,
            covered: 0,
            known: 0,
            put_back: false,
            stale: false,
            lost: false,
        }]
    }

    fn actions(&self, world: &World, moves: &mut Vec<Move>) {
        for at in 0..2 {
            let holder = &world.holders[at];
            moves.push(Move::Report(at));
            if holder.runs {
                moves.extend([Move::Detach(at), Move::Kill(at)]);
                continue;
            }
            let may = holder.told.is_some() || holder.begun || self.alone;
            if may && world.starts < self.starts {
                moves.push(Move::Attach(at));
            }
            moves.extend(world.seen.iter().map(|header| Move::Place(at, *header)));
            // The first one makes it.
            if world.entry.is_some() || at == 0 {
                moves.push(Move::Grant(at));
            }
            moves.push(if holder.told.is_some() { Move::Forget(at) } else { Move::Settle(at) });
            if at == 0 {
                moves.extend([Move::Remember(at), Move::PutBack(at)]);
            }
        }
    }

    fn next_state(&self, last: &World, action: Move) -> Option<World> {
        let mut world = last.clone();
        match action {
            Move::Grant(at) => self.grant(&mut world, at),
            Move::Forget(at) => world.holders[at].told = None,
            Move::Attach(at) => self.attach(&mut world, at),
            Move::Detach(at) => Self::detach(&mut world, at),
            Move::Kill(at) => world.holders[at].runs = false,
            Move::Report(at) => Self::report(&mut world, at),
            Move::Settle(at) => {
                world.holders[at].begun = false;
                let run = world.entry.as_ref().map(|entry| entry.run.unwrap_or(entry.holder));
                world.busy &= run != Some(at);
            }
            Move::Place(at, header) => world.holders[at].image = Some(header),
            Move::Remember(at) => world.holders[at].earlier = world.holders[at].row,
            Move::PutBack(at) => {
                let holder = &mut world.holders[at];
                holder.earlier?;
                (holder.row, holder.begun, holder.told) = (holder.earlier, false, None);
                world.put_back = true;
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("fresh", |_, world: &World| !world.stale),
            Property::always("kept", |_, world: &World| !world.lost),
            Property::sometimes("handed over", |_, world: &World| {
                world.entry.as_ref().is_some_and(|entry| entry.holder == 1)
            }),
            Property::sometimes("put back", |_, world: &World| world.put_back),
        ]
    }
}

fn check(rules: Rules) -> impl Checker<Rules> {
    rules.checker().finish_when(HasDiscoveries::AnyFailures).threads(2).spawn_bfs().join()
}

#[test]
fn across_holders_the_record_is_fresh_and_what_was_reported_is_kept() {
    let checker = check(RULES);
    checker.assert_properties();
    println!("{} states of two holders", checker.unique_state_count());
}

#[test]
fn the_model_sees_that_a_run_that_was_not_reported_must_not_be_handed_over() {
    let checker = check(Rules { careless: true, ..RULES });
    assert!(checker.discovery("fresh").is_some());
}

#[test]
fn the_model_sees_what_a_machine_that_is_put_back_could_do_without_the_record() {
    let checker = check(Rules { blind: true, ..RULES });
    assert!(checker.discovery("kept").is_some());
}

#[test]
fn the_model_sees_the_window_that_runs_without_a_grant_leave() {
    let checker = check(Rules { alone: true, ..RULES });
    assert!(checker.discovery("fresh").is_some());
}
