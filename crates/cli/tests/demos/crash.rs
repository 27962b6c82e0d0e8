//! `make demo-crash`: processes die by `kill -9` at random points of create, start, stop and delete.
//! Whatever was acknowledged must be there, no VM may be lost or run twice, and a running guest of
//! a killed agent must not notice. A failed round is played again with its seed.

mod rounds;

use crate::{Rounds, checks::Checks, image, world::World};

pub const LAB: &[&str] = &["--hosts", "1"];

pub fn show(world: World, checks: &mut Checks, rounds: Rounds) {
    let Some(image) = image(checks, "guest.img", "guest-image") else { return };
    rounds::play(&world, checks, &image, rounds);
}
