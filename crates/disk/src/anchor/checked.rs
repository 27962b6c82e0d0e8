//! The protocol, model-checked: the [`step`] that runs, in a world where processes are killed,
//! power is cut, writes are cached, increments are lost, an attacker copies volumes and puts older
//! copies back, and two siblings of one volume share a counter.
//!
//! What a header covers is a set of bits: one for each write of the guest and one for each
//! attachment that the guest was allowed to write in. **Fresh:** whenever an advance completes, the
//! header behind it contains everything that completed advances covered before. **Available:** while
//! nobody attacked, no volume is refused.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

use model::anchor::{Action as Task, Event, State as Phase, step};

/// A header on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Header {
    count: u64,
    data: u16,
}

/// A disk: what is durable, and a newer header that may be only in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Disk {
    durable: Header,
    cached: Option<Header>,
}

impl Disk {
    fn seen(&self) -> Header {
        self.cached.unwrap_or(self.durable)
    }
}

/// A process that has a disk attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    phase: Phase,
    task: Task,
    /// Everything that the guest wrote and the disk held at opening.
    data: u16,
    /// The header that the last advance wrote.
    advanced: Header,
    /// The task has begun: its effect is in the world. False: the counter was not as expected.
    begun: Option<bool>,
    /// The guest may write.
    attached: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    counter: u64,
    disks: [Option<Disk>; 2],
    processes: [Option<Process>; 2],
    copies: BTreeSet<Header>,
    covered: u16,
    bits: u32,
    writes: u8,
    retries: u8,
    attacked: bool,
    stale: bool,
    refused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Move {
    Start(usize),
    /// The task that the protocol asked for, up to before its outcome is known.
    Begin(usize),
    /// Its outcome arrives.
    Finish(usize),
    /// It fails with an unknown outcome and is tried again.
    Retry(usize),
    Write(usize),
    Tick(usize),
    Detach(usize),
    Kill(usize),
    /// All processes die; caches are lost or kept.
    PowerCut(bool),
    Copy(usize),
    PutBack(usize, Header),
}

/// The world's rules; `lead` and `behind` are wrong in the tests that show that the model sees it.
struct Anchoring {
    lead: u64,
    behind: u64,
    attacker: bool,
    /// One process at a time has the counter.
    alone: bool,
    starts: u32,
    copies: usize,
}

const WRITES: u8 = 1;
const RETRIES: u8 = 1;

impl Anchoring {
    fn start(&self, world: &mut World, at: usize) {
        let Some(header) = world.disks[at].map(|disk| disk.seen()) else { return };
        world.attacked |= at == 1;
        // A rule that would accept older headers, if the test asks for it.
        let old = header.count < world.counter && world.counter - header.count <= self.behind;
        let shown = if old { world.counter } else { header.count };
        let Ok((phase, task)) =
            step(Phase::Closed, Event::Opened { counter: world.counter, header: shown })
        else {
            world.refused |= !world.attacked;
            return;
        };
        let phase = if let Phase::Writing { from, last, .. } = phase {
            Phase::Writing { from, goal: from + self.lead, last }
        } else {
            phase
        };
        let own = 1 << world.bits;
        world.bits += 1;
        world.processes[at] = Some(Process {
            phase,
            task,
            data: header.data | own,
            advanced: header,
            begun: None,
            attached: false,
        });
    }

    fn event(world: &mut World, at: usize, event: Event) {
        let Some(mut process) = world.processes[at] else { return };
        match step(process.phase, event) {
            Ok((phase, task)) => {
                if let Phase::Attached { .. } | Phase::Detached { .. } = phase {
                    process.attached = true;
                }
                process.begun = None;
                process.phase = phase;
                process.task = task;
                let done = matches!(phase, Phase::Detached { .. });
                world.processes[at] = (!done).then_some(process);
            }
            // Somebody else uses the counter: the process ends.
            Err(_) => {
                // Not alone it may also be that a lost answer cannot be settled.
                let unsettled = matches!(event, Event::Retried { alone: false, .. });
                world.refused |= !world.attacked && !unsettled;
                world.processes[at] = None;
            }
        }
    }

    fn begin(world: &mut World, at: usize) {
        let Some(process) = &mut world.processes[at] else { return };
        process.begun = Some(true);
        match process.task {
            Task::WriteHeader { count, .. } => {
                let header = Header { count, data: process.data };
                process.advanced = header;
                if let Some(disk) = &mut world.disks[at] {
                    disk.cached = Some(header);
                }
            }
            Task::Increment { from } if world.counter == from => {
                world.counter += 1;
                // The last of its row: an advance is complete, whoever learns of it.
                if matches!(process.phase, Phase::Counting { goal, .. } if goal == world.counter) {
                    let header = process.advanced.data;
                    world.stale |= world.covered & !header != 0;
                    world.covered |= header;
                }
            }
            Task::Increment { .. } => process.begun = Some(false),
            Task::Rest => {}
        }
    }

    fn finish(world: &mut World, at: usize) {
        let Some(process) = world.processes[at] else { return };
        match process.task {
            Task::WriteHeader { .. } => {
                if let Some(disk) = &mut world.disks[at] {
                    disk.durable = disk.seen();
                    disk.cached = None;
                }
                Self::event(world, at, Event::HeaderDurable);
            }
            Task::Increment { .. } => {
                let ours = process.begun == Some(true);
                Self::event(world, at, if ours { Event::Incremented } else { Event::Moved });
            }
            Task::Rest => {}
        }
    }
}

fn leaves(phase: Phase) -> bool {
    matches!(phase, Phase::Writing { last: true, .. } | Phase::Counting { last: true, .. })
}

impl Model for Anchoring {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        let disk = Disk { durable: Header { count: 0, data: 0 }, cached: None };
        vec![World {
            counter: 0,
            disks: [Some(disk), None],
            processes: [None, None],
            copies: BTreeSet::new(),
            covered: 0,
            bits: 0,
            writes: 0,
            retries: 0,
            attacked: false,
            stale: false,
            refused: false,
        }]
    }

    fn actions(&self, world: &World, moves: &mut Vec<Move>) {
        let running = world.processes.iter().any(Option::is_some);
        for at in 0..2 {
            if let Some(process) = &world.processes[at] {
                match process.task {
                    Task::Rest => moves.extend([Move::Tick(at), Move::Detach(at)]),
                    Task::WriteHeader { .. } | Task::Increment { .. } => {
                        moves.push(match process.begun {
                            Some(_) => Move::Finish(at),
                            None => Move::Begin(at),
                        });
                        if world.retries < RETRIES {
                            moves.push(Move::Retry(at));
                        }
                    }
                }
                // The guest goes on writing while an advance is under way, but for the last one.
                let open = process.attached && !leaves(process.phase);
                if open && world.writes < WRITES {
                    moves.push(Move::Write(at));
                }
                moves.push(Move::Kill(at));
            } else if world.disks[at].is_some()
                && world.bits < self.starts
                && !(self.alone && running)
            {
                moves.push(Move::Start(at));
            }
            if self.attacker {
                if world.disks[at].is_some() && world.copies.len() < self.copies {
                    moves.push(Move::Copy(at));
                }
                if world.processes[at].is_none() {
                    moves.extend(world.copies.iter().map(|copy| Move::PutBack(at, *copy)));
                }
            }
        }
        if running {
            moves.extend([Move::PowerCut(true), Move::PowerCut(false)]);
        }
    }

    fn next_state(&self, last: &World, action: Move) -> Option<World> {
        let mut world = last.clone();
        match action {
            Move::Start(at) => self.start(&mut world, at),
            Move::Begin(at) => Self::begin(&mut world, at),
            Move::Finish(at) => Self::finish(&mut world, at),
            Move::Retry(at) => {
                let counter = world.counter;
                world.retries += 1;
                Self::event(&mut world, at, Event::Retried { counter, alone: self.alone });
            }
            Move::Write(at) => {
                let process = world.processes[at].as_mut()?;
                process.data |= 1 << (8 + world.writes);
                world.writes += 1;
            }
            Move::Tick(at) => Self::event(&mut world, at, Event::Tick),
            Move::Detach(at) => Self::event(&mut world, at, Event::Detach),
            Move::Kill(at) => world.processes[at] = None,
            Move::PowerCut(kept) => {
                world.processes = [None, None];
                for disk in world.disks.iter_mut().flatten() {
                    if kept {
                        disk.durable = disk.seen();
                    }
                    disk.cached = None;
                }
            }
            Move::Copy(at) => {
                let _ = world.copies.insert(world.disks[at]?.seen());
            }
            Move::PutBack(at, copy) => {
                world.attacked = true;
                world.disks[at] = Some(Disk { durable: copy, cached: None });
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("fresh", |_, world: &World| !world.stale),
            Property::always("available", |_, world: &World| !world.refused),
            Property::sometimes("a write is covered", |_, world: &World| world.covered >= 1 << 8),
            Property::sometimes("counted far", |_, world: &World| world.counter >= 5),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.counter <= 5
    }
}

fn check(model: Anchoring) -> impl Checker<Anchoring> {
    model.checker().finish_when(HasDiscoveries::AnyFailures).threads(2).spawn_bfs().join()
}

/// The rules that are in force.
const RULES: Anchoring =
    Anchoring { lead: 2, behind: 0, attacker: true, alone: true, starts: 2, copies: 1 };

#[test]
fn the_protocol_is_fresh_and_available() {
    let checker = check(RULES);
    checker.assert_properties();
    println!("{} states of the attacked world", checker.unique_state_count());
}

#[test]
fn siblings_on_one_counter_are_found_out() {
    let checker = check(Anchoring { alone: false, ..RULES });
    checker.assert_properties();
    println!("{} states of the world with siblings", checker.unique_state_count());
}

#[test]
#[ignore = "minutes: millions of states"]
fn larger_worlds_are_fresh_and_available_too() {
    for alone in [true, false] {
        let checker = check(Anchoring { alone, starts: 3, copies: 2, ..RULES });
        checker.assert_properties();
        println!("{} states, alone: {alone}", checker.unique_state_count());
    }
}

#[test]
fn without_an_attacker_nothing_is_ever_refused() {
    let checker = check(Anchoring { attacker: false, starts: 3, ..RULES });
    checker.assert_properties();
    println!("{} states of the honest world", checker.unique_state_count());
}

#[test]
fn the_model_sees_that_one_advance_before_the_first_write_is_not_enough() {
    let checker = check(Anchoring { lead: 1, starts: 3, copies: 2, ..RULES });
    assert!(checker.discovery("fresh").is_some());
}

#[test]
fn the_model_sees_that_accepting_a_header_one_behind_is_wrong() {
    let checker = check(Anchoring { behind: 1, copies: 2, ..RULES });
    assert!(checker.discovery("fresh").is_some());
}
