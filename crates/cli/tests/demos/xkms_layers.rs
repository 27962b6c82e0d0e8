//! `make demo-xkms`: two servers with a trust service and a real guest on each, one key-management
//! centre, three PKIs and a bridge. Who knows what, who dies, what moves, and what is refused.

pub mod away;
mod guest;
mod hybrid;
mod inside;
mod lasting;
mod moving;
mod pkis;
mod port;
mod proof;
mod secrets;

use std::{path::Path, thread};

use guest::Guest;
use serde_json::json;

use crate::{
    Rounds,
    checks::Checks,
    image,
    server::Server,
    world::World,
    xkms_server::life::{self, Registered},
};

/// The servers.
const HOSTS: [&str; 2] = ["a", "b"];
pub const LAB: &[&str] = &["--hosts", "2"];
/// The same, for a lab that was told otherwise since: it remembers.
const HYBRID: &[&str] = &["--hosts", "2", "--manner", "hybrid"];
/// The same, for trust services that have a CA of their own.
const FULL: &[&str] = &["--hosts", "2", "--manner", "full"];

/// What the lab's configuration is refined by before it comes up.
pub fn prepare(dir: &Path) {
    guest::approve_software(dir);
}

pub fn show(world: World, checks: &mut Checks, _: Rounds) {
    let Some(image) = image(checks, "guest-xkms.img", "guest-client") else { return };
    let (Some(a), Some(b)) = (Server::at(&world, LAB, 0), Server::at(&world, LAB, 1)) else {
        checks.check("lab.json has two trust services", false, world.record());
        return;
    };
    let url = world.record()["centre"]["url"].as_str().unwrap_or_default().to_owned();
    checks.check("lab.json has the centre", url.starts_with("https://127.0.0.1:"), &url);
    if !guest::create(&world, checks, &image, &["v1", "v2"]) {
        return;
    }
    // Guests boot while the servers are asked from outside.
    let (outside, guests) = thread::scope(|scope| {
        let v1 = scope.spawn(|| Guest::start(&world, "v1", "a"));
        let v2 = scope.spawn(|| Guest::start(&world, "v2", "b"));
        let outside = outside(&world, &a, &b, checks);
        let guests = [v1, v2].map(|boot| boot.join().unwrap_or_else(|_| Err("it panicked".into())));
        (outside, guests)
    });
    checks.part("a guest on each server");
    for (vm, guest) in ["v1", "v2"].iter().zip(&guests) {
        let seen = guest.as_ref().err().map_or("", |said| said);
        checks.check(
            &format!("{vm} is affirmed, its client finds its trust anchor"),
            guest.is_ok(),
            seen,
        );
    }
    let ([Ok(v1), Ok(v2)], Some(carol)) = (guests, outside) else { return };
    inside::five(checks, &v1, &v2);
    inside::graded(checks, &v1);
    let what = "mode 1, same trust service";
    v1.rests_on(checks, what, ("v1-mail", "Valid"), (&json!("trust-service"), 0));
    let what = "mode 2, same PKI";
    v1.rests_on(checks, what, ("v2-mail", "Valid"), (&moving::ca(), 1));
    checks.part("the centre stands still, the trust service dies");
    lasting::waits(&world, &a, checks, &carol);
    checks.part("the centre dies, and comes back with three PKIs and a bridge");
    let mut pkis = None;
    lasting::centre_killed(&world, &a, checks, &v1, || pkis = Some(pkis::Pkis::start(&world)));
    if let Some(pkis) = &pkis {
        other_pkis(&world, checks, pkis, &v1);
    }
    checks.part("the sixth operation");
    inside::recover(&b, checks, &v2);
    checks.part("keys move with their VM");
    moving::watched(&a, &b, checks, &v1, &v2);
    moving::ordered(&world, checks, &v1);
    checks.part("what is not believed on a VM's port");
    proof::attacked(&a, checks, &v1);
    v1.tampered(checks);
    let said = world.vouchsafe(&["vm", "attest", "v1"]);
    let what = "the authority's verdict leaves PCR 10 to the trust service";
    checks.check(what, said.code == 0, said.complaint());
}

/// What needs no guest.
fn outside(
    world: &World,
    a: &Server<'_>,
    b: &Server<'_>,
    checks: &mut Checks,
) -> Option<Registered> {
    for (name, server) in [("a", a), ("b", b)] {
        let learnt = server.learn_key();
        checks.check(
            &format!("answers of {name} are signed by a key that the centre's PKI certified"),
            learnt.is_ok(),
            learnt.err().unwrap_or_default(),
        );
    }
    checks.part("the operations, and who is asked for them");
    let alice = life::register(a, checks, "alice", false)?;
    let bob = life::register(b, checks, "bob", true)?;
    hybrid::modes(a, checks, &alice, &bob);
    life::reissue(a, checks, &alice);
    hybrid::revoked(a, b, checks, &alice);
    let carol = life::register(a, checks, "carol", false)?;
    checks.part("no CA and no user's key in a trust service");
    hybrid::one_pki(world, a, b, checks);
    hybrid::nothing_made_here(a, checks);
    secrets::no_ca(b, checks);
    Some(carol)
}

/// Mode 3.
fn other_pkis(world: &World, checks: &mut Checks, pkis: &pkis::Pkis, v1: &Guest<'_>) {
    pkis.ordered(world, checks);
    let bridge = json!({"bridge": {"path": ["Partner CA", "Bridge CA"]}});
    let what = "mode 3, another PKI, over the bridge";
    v1.rests_on(checks, what, (pkis::PARTNERS, "Valid"), (&bridge, 2));
    let what = "a third PKI, to which no bridge leads";
    v1.rests_on(checks, what, (pkis::WEBS, "Indeterminate"), (&moving::ca(), 2));
}
