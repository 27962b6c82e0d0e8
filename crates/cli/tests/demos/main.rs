//! The demonstrations: labs of real processes, real VMs, real attacks. One check is one observation;
//! the last line of each is `NAME: N checks passed, M failed`, and the exit status follows it.
//!
//! `cargo test --test demos -- NAME [ROUNDS] [SEED]` shows one; without a name, `cargo test` shows
//! all but those that only wait long, with a few rounds of those that have rounds. `make NAME` is the same in release.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test program: it says what it sees, stops where it cannot go on, and times itself"
)]

#[path = "../shared/checks.rs"]
mod checks;
mod crash;
mod demo;
#[path = "../shared/dice.rs"]
mod dice;
#[path = "../shared/foreign.rs"]
mod foreign;
#[path = "../shared/rogue.rs"]
mod rogue;
#[path = "../shared/server.rs"]
mod server;
#[path = "../shared/tap.rs"]
mod tap;
#[path = "../shared/waits.rs"]
mod waits;
#[path = "../shared/world.rs"]
mod world;
mod xkms_crash;
mod xkms_layers;
mod xkms_server;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use checks::Checks;
use dice::Dice;
use world::World;

/// How often something is done that is done again and again, and with which dice.
struct Rounds {
    count: u64,
    dice: Dice,
}

/// A demonstration: how its lab is brought up, and what is seen in it.
struct Demo {
    name: &'static str,
    lab: &'static [&'static str],
    /// Refines the lab's configuration before it comes up.
    prepare: fn(&Path),
    show: fn(World, &mut Checks, Rounds),
    /// Whether only who names it sees it.
    by_name: bool,
}

const ALL: [Demo; 6] = [
    Demo { show: demo::show, ..Demo::named("demo", &[]) },
    Demo { show: crash::show, ..Demo::named("demo-crash", crash::LAB) },
    Demo { show: xkms_server::show, ..Demo::named("demo-xkms-server", xkms_server::LAB) },
    Demo {
        show: xkms_layers::show,
        prepare: xkms_layers::prepare,
        ..Demo::named("demo-xkms", xkms_layers::LAB)
    },
    Demo {
        show: xkms_layers::away::show,
        prepare: xkms_layers::prepare,
        by_name: true,
        ..Demo::named("demo-xkms-away", xkms_layers::LAB)
    },
    Demo {
        show: xkms_crash::show,
        prepare: xkms_crash::prepare,
        ..Demo::named("demo-xkms-crash", xkms_crash::LAB)
    },
];

fn main() -> ExitCode {
    // `cargo test` may hand on options that are meant for other tests.
    let words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let words: Vec<String> = words.collect();
    let chosen = |demo: &&Demo| words.first().map_or(!demo.by_name, |name| name == demo.name);
    let mut numbers = words.iter().skip(1).filter_map(|word| word.parse().ok());
    let count = numbers.next().unwrap_or(4);
    let seed = numbers.next().unwrap_or(0x5eed);
    let shown: Vec<bool> = ALL.iter().filter(chosen).map(|demo| demo.play(count, seed)).collect();
    if shown.is_empty() {
        let names = ALL.each_ref().map(|demo| demo.name).join(", ");
        eprintln!("{words:?}: the demonstrations are {names}");
    }
    let good = !shown.is_empty() && shown.iter().all(|good| *good);
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Demo {
    const fn named(name: &'static str, lab: &'static [&'static str]) -> Self {
        Self { name, lab, prepare: |_| (), show: |_, _, _| (), by_name: false }
    }

    fn play(&self, count: u64, seed: u64) -> bool {
        let mut checks = Checks::new(self.name);
        checks.part(&format!("a lab: vouchsafe lab up {}", self.lab.join(" ")));
        match World::prepared(self.lab, self.prepare) {
            Ok(world) => {
                checks.of_lab(world.dir());
                (self.show)(world, &mut checks, Rounds { count, dice: Dice::new(seed) });
            }
            Err(said) => checks.check("the lab comes up", false, said.complaint()),
        }
        checks.finish()
    }
}

/// A guest's image; that it is not built is a failed check.
fn image(checks: &mut Checks, name: &str, target: &str) -> Option<PathBuf> {
    let image = world::image(name);
    if image.is_none() {
        checks.check(&format!("{name} is built"), false, format!("make {target}"));
    }
    image
}
