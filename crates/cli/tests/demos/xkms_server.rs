//! `make demo-xkms-server`: the trust service of a lab in the manner `full`, with a CA of its own,
//! asked by our own client and by others' tools.

mod hostile;
mod independent;
mod lasting;
pub mod life;
pub mod waiting;
mod wrapping;

use crate::{
    Rounds,
    checks::Checks,
    server::Server,
    world::{self, World},
};

pub const LAB: &[&str] = &["--hosts", "1", "--manner", "full"];

pub fn show(world: World, checks: &mut Checks, _: Rounds) {
    match Server::of(&world, LAB) {
        Some(server) => all(&server, checks),
        None => checks.check("lab.json has xkms_url and xkms_ca_file", false, world.record()),
    }
}

fn all(server: &Server<'_>, checks: &mut Checks) {
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
    let Some(ended) = life::register(server, checks, "ended-by-zeep", false) else { return };
    independent::stock_client(server, checks, &kept.name, &ended);
    independent::json(server, checks, &kept.name);
    checks.part("what must be refused");
    hostile::bytes(server, checks);
    hostile::orders(server, checks, &one);
    wrapping::wrapping(server, checks, &one);
    checks.part("revoked, as everyone sees it");
    life::revoke(server, checks, &one, &other);
    hostile::flood(server, checks, &kept);
    checks.part("killed");
    lasting::killed(server, checks, &kept, &one);
    checks.part("what waits, and what takes two persons");
    waiting::approved(server, checks);
    waiting::recovered(server, checks);
    checks.part("the log, and the end");
    lasting::logged(server, checks, &[hostile::PROVOKED, wrapping::PROVOKED].concat());
    lasting::down(server, checks);
}
