//! `make demo`: a lab, real VMs, real attacks.

mod disk;
pub mod guest;
mod home;
mod hosts;
mod keeping;
mod launch;
mod machine;
mod refusals;

use std::thread;

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
    let v4 = beside(|| disk::sharing(&world, &good), || keeping::agent_killed(&world, checks));
    disk::killed(&world, checks, &v4);
    launch::homed(&world, checks);
    let again = beside(|| disk::sharing_again(&world), || launch::restarted(&world, checks));
    disk::rekeyed(&world, checks);
    disk::clean(&world, checks, &again);
    let v3 = beside(
        || guest::obeying(&world, &test),
        || guest::other_kernel(&world, checks, &good, &other),
    );
    guest::lying(&world, checks, v3);
    disk::attacked(&world, checks);
    machine::put_back(&world, checks);
    machine::brought_along(&world, checks);
    keeping::authority_away(&world, checks);
    keeping::lease_ended(&world, checks);
    keeping::rolled_back(&world, checks);
    keeping::audited(&world, checks);
    keeping::down(world, checks);
}

/// What one VM does while something else is shown: there are two processors.
fn beside<T: Send>(one: impl FnOnce() -> T + Send, shown: impl FnOnce()) -> T {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        shown();
        one.join().expect("it says what went wrong")
    })
}
