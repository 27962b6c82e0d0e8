//! `make demo`: a lab, real VMs, real attacks.

mod disk;
mod guest;
mod home;
mod hosts;
mod keeping;
mod launch;
mod refusals;

use crate::{Rounds, checks::Checks, image, world::World};

pub fn show(world: World, checks: &mut Checks, _: Rounds) {
    let images = ["guest.img", "guest-other.img", "guest-test.img"]
        .map(|name| image(checks, name, "guest-image"));
    let [Some(good), Some(other), Some(test)] = images else { return };
    hosts::trusted(&world, checks);
    launch::first(&world, checks, &good);
    disk::encrypted(&world, checks);
    launch::attested(&world, checks);
    hosts::rogue(&world, checks);
    hosts::wrong_clock(&world, checks);
    keeping::agent_killed(&world, checks);
    disk::killed(&world, checks, &good);
    launch::homed(&world, checks);
    launch::restarted(&world, checks);
    guest::other_kernel(&world, checks, &good, &other);
    guest::lying(&world, checks, &test);
    disk::attacked(&world, checks);
    keeping::authority_away(&world, checks);
    keeping::lease_ended(&world, checks);
    keeping::rolled_back(&world, checks);
    keeping::audited(&world, checks);
    keeping::down(world, checks);
}
