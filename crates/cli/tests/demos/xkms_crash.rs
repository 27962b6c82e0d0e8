//! `make demo-xkms-crash`: trust services and the key-management centre die by `kill -9` at random
//! points of registrations and of migrations between two servers: half of the rounds with services
//! that have a CA each, half with services that have none, whose orders go over all four layers.
//! Whatever was acknowledged must be there, and each key at exactly one of the two. A failed run is
//! played again with its seed.

mod resident;
mod rounds;
mod sites;
mod wire;

use crate::{Rounds, checks::Checks, world::World};

/// Each with a CA of its own.
pub const LAB: &[&str] = &["--hosts", "2", "--manner", "full"];

pub use resident::prepare;

/// None with a CA: a centre has it.
const HYBRID: &[&str] = &["--hosts", "2", "--manner", "hybrid"];

pub fn show(world: World, checks: &mut Checks, rounds: Rounds) {
    let Rounds { count, mut dice } = rounds;
    println!("{count} rounds, seed {:#x}", dice.seed);
    let full = count / 2;
    {
        let mut sites = sites::Sites::of(&world, LAB);
        wire::watched(&mut sites, checks);
        wire::refused(&sites, checks);
        resident::moved(&mut sites, checks);
        rounds::play(&mut sites, checks, &mut dice, 1..=full);
    }
    drop(world);
    checks.part(&format!("a lab: vouchsafe lab up {}", HYBRID.join(" ")));
    match World::up(HYBRID) {
        Ok(world) => {
            checks.of_lab(world.dir());
            let mut sites = sites::Sites::of(&world, HYBRID);
            rounds::play(&mut sites, checks, &mut dice, full + 1..=count);
        }
        Err(said) => checks.check("the lab comes up", false, said.complaint()),
    }
}
