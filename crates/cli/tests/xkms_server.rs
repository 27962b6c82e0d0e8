//! `make demo-xkms-server`: the trust service of a lab, asked by our own client and by others' tools.
//! One check is one observation on real processes; the last line is
//! `demo-xkms-server: N checks passed, M failed`, and the exit status follows it.

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
#[path = "xkms_server/hostile.rs"]
mod hostile;
#[path = "xkms_server/independent.rs"]
mod independent;
#[path = "xkms_server/lasting.rs"]
mod lasting;
#[path = "xkms_server/life.rs"]
mod life;
#[path = "xkms_server/server.rs"]
mod server;
#[path = "xkms_server/waiting.rs"]
mod waiting;
#[path = "shared/world.rs"]
mod world;

use std::process::ExitCode;

use checks::Checks;
use server::Server;
use world::World;

fn main() -> ExitCode {
    let mut checks = Checks::new("demo-xkms-server");
    checks.part("a lab: its host has a trust service");
    let world = match World::up(&["--hosts", "1"]) {
        Ok(world) => world,
        Err(said) => {
            checks.check("the lab comes up", false, said.complaint());
            checks.finish();
            return ExitCode::FAILURE;
        }
    };
    match Server::of(&world) {
        Some(server) => show(&server, &mut checks),
        None => checks.check("lab.json has xkms_url and xkms_ca_file", false, world.record()),
    }
    if checks.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(server: &Server<'_>, checks: &mut Checks) {
    checks.check("lab.json has xkms_url and xkms_ca_file", server.ca.is_file(), &server.url);
    let status = server.world.dir().to_str().expect("a path");
    let said =
        world::run(env!("CARGO_BIN_EXE_vouchsafe"), &["lab", "status", "--json", "--dir", status]);
    checks.check("`lab status` shows it", said.stdout.contains("\"trust-a\""), said.complaint());
    let learnt = server.learn_key();
    checks.check(
        "answers are signed by a key that the CA certified",
        learnt.is_ok(),
        learnt.err().unwrap_or_default(),
    );
    independent::published(server, checks);
    checks.part("a key's life, by our client");
    let one = life::register(server, checks, "one", true);
    let other = life::register(server, checks, "other", false);
    let kept = life::register(server, checks, "kept", false);
    let (Some(one), Some(other), Some(kept)) = (one, other, kept) else { return };
    life::questions(server, checks, &one);
    life::envelopes(server, checks, &one);
    life::compound(server, checks, &one);
    life::reissue(server, checks, &one);
    checks.part("by curl, xmlsec1, openssl, and a stock SOAP client");
    independent::register(server, checks, "by-xmlsec");
    independent::stock_client(server, checks, &kept.name);
    independent::json(server, checks, &kept.name);
    checks.part("what must be refused");
    hostile::bytes(server, checks);
    hostile::orders(server, checks, &one);
    checks.part("revoked, as everyone sees it");
    life::revoke(server, checks, &one, &other);
    hostile::flood(server, checks, &kept);
    checks.part("killed");
    lasting::killed(server, checks, &kept, &one);
    checks.part("what waits, and what takes two persons");
    waiting::approved(server, checks);
    waiting::recovered(server, checks);
    checks.part("the log, and the end");
    lasting::logged(server, checks, hostile::PROVOKED);
    lasting::down(server, checks);
}
