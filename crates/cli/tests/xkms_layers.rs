//! `make demo-xkms`: trust services on two servers in front of one key-management centre. One check
//! is one observation on real processes; the last line is `demo-xkms: N checks passed, M failed`,
//! and the exit status follows it.

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
#[path = "xkms_layers/hybrid.rs"]
mod hybrid;
#[path = "xkms_layers/lasting.rs"]
mod lasting;
#[path = "xkms_server/life.rs"]
mod life;
#[path = "xkms_server/server.rs"]
mod server;
#[path = "shared/world.rs"]
mod world;

use std::process::ExitCode;

use checks::Checks;
use server::Server;
use world::World;

/// How the lab is brought up, each time.
const LAB: &[&str] = &["--hosts", "2", "--manner", "hybrid"];

fn main() -> ExitCode {
    let mut checks = Checks::new("demo-xkms");
    checks.part("a lab: two servers with a trust service each, and a key-management centre");
    let world = match World::up(LAB) {
        Ok(world) => world,
        Err(said) => {
            checks.check("the lab comes up", false, said.complaint());
            checks.finish();
            return ExitCode::FAILURE;
        }
    };
    match (Server::at(&world, 0), Server::at(&world, 1)) {
        (Some(a), Some(b)) => show(&world, &a.in_lab(LAB), &b.in_lab(LAB), &mut checks),
        _ => checks.check("lab.json has two trust services", false, world.record()),
    }
    if checks.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(world: &World, a: &Server<'_>, b: &Server<'_>, checks: &mut Checks) {
    let url = world.record()["centre"]["url"].as_str().unwrap_or_default().to_owned();
    checks.check("lab.json has the centre", url.starts_with("https://127.0.0.1:"), &url);
    for (name, server) in [("a", a), ("b", b)] {
        let learnt = server.learn_key();
        checks.check(
            &format!("answers of {name} are signed by a key that the centre's PKI certified"),
            learnt.is_ok(),
            learnt.err().unwrap_or_default(),
        );
    }
    checks.part("the operations, and who is asked for them");
    let Some(alice) = life::register(a, checks, "alice", false) else { return };
    let Some(bob) = life::register(b, checks, "bob", true) else { return };
    hybrid::modes(a, checks, &alice, &bob);
    life::reissue(a, checks, &alice);
    hybrid::revoked(a, b, checks, &alice);
    checks.part("no CA and no user's key in a trust service");
    hybrid::one_pki(world, a, b, checks);
    hybrid::nothing_made_here(a, checks);
    checks.part("the centre stands still, the trust service dies");
    let Some(carol) = life::register(a, checks, "carol", false) else { return };
    lasting::waits(world, a, checks, &carol);
    checks.part("the centre dies");
    lasting::centre_killed(world, a, checks, &carol);
}
