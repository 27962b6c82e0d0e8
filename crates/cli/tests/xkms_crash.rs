//! `make demo-xkms-crash`: trust services die by `kill -9` at random points of registrations and of
//! migrations between two servers. Whatever was acknowledged must be there, and each key at exactly
//! one of the two. `cargo test --test xkms_crash -- N SEED` makes N rounds (default 4); a failed run
//! is played again with its seed.

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
#[path = "xkms_crash/rounds.rs"]
mod rounds;
#[path = "xkms_server/server.rs"]
mod server;
#[path = "xkms_crash/sites.rs"]
mod sites;
#[path = "xkms_crash/wire.rs"]
mod wire;
#[path = "shared/world.rs"]
mod world;

use std::process::ExitCode;

use checks::Checks;
use sites::Sites;
use world::World;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let count = numbers.next().unwrap_or(4);
    let seed = numbers.next().unwrap_or(0x5eed);
    let mut checks = Checks::new("demo-xkms-crash");
    match World::up(&["--hosts", "2"]) {
        Ok(world) => {
            let mut sites = Sites::of(&world);
            wire::watched(&mut sites, &mut checks);
            wire::refused(&sites, &mut checks);
            rounds::play(&mut sites, &mut checks, count, seed);
        }
        Err(said) => checks.check("the lab comes up", false, said.complaint()),
    }
    if checks.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
