//! `make demo-xkms-crash`: trust services die by `kill -9` at random points of registrations and of
//! migrations between two servers. Whatever was acknowledged must be there, and each key at exactly
//! one of the two. A failed run is played again with its seed.

mod resident;
mod rounds;
mod sites;
mod wire;

use crate::{Rounds, checks::Checks, world::World};

/// Each with a CA of its own: a key that moved is answered for by one of the two alone.
pub const LAB: &[&str] = &["--hosts", "2", "--manner", "full"];

pub use resident::prepare;

pub fn show(world: World, checks: &mut Checks, rounds: Rounds) {
    let mut sites = sites::Sites::of(&world);
    wire::watched(&mut sites, checks);
    wire::refused(&sites, checks);
    resident::moved(&mut sites, checks);
    rounds::play(&mut sites, checks, rounds);
}
