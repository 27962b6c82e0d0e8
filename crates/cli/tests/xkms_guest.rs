//! `make demo-xkms-guest`: a real VM with the static client; it proves itself to the trust service of
//! its server over the VM's port, uses its keys from inside, and is refused once its client is
//! changed. One check is one observation on real processes.

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
#[path = "xkms_guest/guest.rs"]
mod guest;
#[path = "shared/world.rs"]
mod world;

use std::process::ExitCode;

use checks::Checks;
use world::World;

fn main() -> ExitCode {
    let mut checks = Checks::new("demo-xkms-guest");
    let Some(image) = world::image("guest-xkms.img") else {
        checks.check("the guest's image is built", false, "make guest-client");
        checks.finish();
        return ExitCode::FAILURE;
    };
    checks.part("a lab: an authority, and a host with its trust service");
    match World::up(&["--hosts", "1"]) {
        Ok(world) => guest::from_inside(&world, &mut checks, &image),
        Err(said) => checks.check("the lab comes up", false, said.complaint()),
    }
    if checks.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
