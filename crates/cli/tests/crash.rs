//! `make demo-crash`: processes die by `kill -9` at random points of create, start, stop and delete.
//! Whatever was acknowledged must be there, no VM may be lost or run twice, and a running guest of
//! a killed agent must not notice. `cargo test --test crash -- N SEED` makes N rounds (default 4);
//! a failed round is played again with its seed.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    dead_code,
    reason = "a test program: it says what it sees, stops where it cannot go on, and times itself"
)]

#[path = "shared/checks.rs"]
mod checks;
#[path = "crash/rounds.rs"]
mod rounds;
#[path = "shared/world.rs"]
mod world;

use std::process::ExitCode;

use checks::Checks;
use world::{World, image};

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let count = numbers.next().unwrap_or(4);
    let seed = numbers.next().unwrap_or(0x5eed);
    let mut checks = Checks::new("demo-crash");
    let Some(image) = image("guest.img") else {
        checks.check("the guest image is built", false, "make guest-image");
        checks.finish();
        return ExitCode::FAILURE;
    };
    match World::up(&["--hosts", "1"]) {
        Ok(world) => rounds::play(&world, &mut checks, &image, count, seed),
        Err(said) => checks.check("the lab comes up", false, said.complaint()),
    }
    if checks.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
