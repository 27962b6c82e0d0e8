//! `make demo`: a lab, real VMs, real attacks. One check is one observation on real processes; the
//! last line is `demo: N checks passed, M failed`, and the exit status follows it.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test program: it says what it sees, stops where it cannot go on, and times itself"
)]

#[path = "shared/checks.rs"]
mod checks;
#[path = "demo/disk.rs"]
mod disk;
#[path = "demo/guest.rs"]
mod guest;
#[path = "demo/home.rs"]
mod home;
#[path = "demo/hosts.rs"]
mod hosts;
#[path = "demo/keeping.rs"]
mod keeping;
#[path = "demo/launch.rs"]
mod launch;
#[path = "demo/refusals.rs"]
mod refusals;
#[path = "shared/rogue.rs"]
mod rogue;
#[path = "shared/world.rs"]
mod world;

use std::process::ExitCode;

use checks::Checks;
use world::{World, image};

fn main() -> ExitCode {
    let mut checks = Checks::new("demo");
    let images = (image("guest.img"), image("guest-other.img"), image("guest-test.img"));
    let (Some(good), Some(other), Some(test)) = images else {
        checks.check("the guest images are built", false, "make guest-image");
        checks.finish();
        return ExitCode::FAILURE;
    };
    checks.part("a lab: an authority and two hosts, each with its own software TPM");
    let world = match World::up(&[]) {
        Ok(world) => world,
        Err(said) => {
            checks.check("the lab comes up", false, said.complaint());
            checks.finish();
            return ExitCode::FAILURE;
        }
    };
    hosts::trusted(&world, &mut checks);
    launch::first(&world, &mut checks, &good);
    disk::encrypted(&world, &mut checks);
    launch::attested(&world, &mut checks);
    hosts::rogue(&world, &mut checks);
    hosts::wrong_clock(&world, &mut checks);
    keeping::agent_killed(&world, &mut checks);
    disk::killed(&world, &mut checks, &good);
    launch::homed(&world, &mut checks);
    launch::restarted(&world, &mut checks);
    guest::other_kernel(&world, &mut checks, &good, &other);
    guest::lying(&world, &mut checks, &test);
    disk::attacked(&world, &mut checks);
    keeping::authority_away(&world, &mut checks);
    keeping::lease_ended(&world, &mut checks);
    keeping::rolled_back(&world, &mut checks);
    keeping::audited(&world, &mut checks);
    keeping::down(world, &mut checks);
    if checks.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
