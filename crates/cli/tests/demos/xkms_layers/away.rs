//! `make demo-xkms-away`: the authority is away for longer than passports last. What ends with them,
//! what goes on, and that all of it comes back by itself. It waits more than it does, so it is shown by
//! its name alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    LAB,
    guest::{self, Guest},
    lasting::{local, order, signal},
};
use crate::{
    Rounds,
    checks::Checks,
    demo::guest::policy,
    image,
    server::Server,
    world::{World, eventually, programs, run},
    xkms_server::life::{self, Registered},
};

/// How long a host's good verdict lasts here, and with it passports, seconds. A host attests anew at
/// half of it, so that is the least that a passport lasts: it must be enough for a quote, for the
/// passport, and for a guest's proof under emulation on a busy machine.
const LIFE_S: u64 = 20;
/// How long passports may take to end, or to come back.
const LONG: Duration = Duration::from_secs(120);
/// How long a guest's client may take to say that it is not served; its patience is twice that.
const PROMPTLY: Duration = Duration::from_secs(30);

pub fn show(world: World, checks: &mut Checks, _: Rounds) {
    let Some(image) = image(checks, "guest-xkms.img", "guest-client") else { return };
    let (Some(a), Some(b)) = (Server::at(&world, LAB, 0), Server::at(&world, LAB, 1)) else {
        checks.check("lab.json has two trust services", false, world.record());
        return;
    };
    if !guest::create(&world, checks, &image, &["v1"]) {
        return;
    }
    let guest = Guest::start(&world, "v1", "a");
    let seen = guest.as_ref().err().map_or("", |said| said);
    checks.check("v1 is affirmed, its client finds its trust anchor", guest.is_ok(), seen);
    let Ok(guest) = guest else { return };
    for server in [&a, &b] {
        let learnt = server.learn_key();
        checks.check("a trust service is known", learnt.is_ok(), learnt.err().unwrap_or_default());
    }
    let Some(ours) = life::register(&a, checks, "alice", false) else { return };
    if life::register(&b, checks, "bob", true).is_none() {
        return;
    }
    checks.part("passports of seconds");
    if !short(&world, &a, checks, &guest) {
        return;
    }
    checks.part("the authority is away for longer than they last");
    signal(&world, "authority", "-KILL");
    let ended = eventually(LONG, || without(&guest.client("attest")).then_some(()));
    checks.check("the authority is killed; the guests' passport ends", ended.is_some(), "");
    told(checks, &guest);
    goes_on(&world, &a, checks, &ours);
    let client = a.client(xkms::soap::Version::V11, None);
    let request = order(&a, "frank");
    checks.check("an operator hands out a pass phrase", request.is_some(), "frank");
    let Some(request) = request else { return };
    let what = "its Register is put off";
    let Some(mut exchange) = a.put_off(checks, what, &client, request) else { return };

    checks.part("it comes back");
    let up = a.up_again();
    checks.check("`lab up` starts the authority", up.is_ok(), up.err().unwrap_or_default());
    let back = eventually(LONG, || admits(&guest).then_some(()));
    checks.check("by itself the guest's client is admitted again", back.is_some(), "");
    a.carried_out(checks, "the order is carried out", &mut exchange);
    let found = eventually(LONG, || finds(&a, "bob").then_some(()));
    checks.check("and what the centre knows is answered", found.is_some(), "bob");
}

/// Trust service and centre begin again under a policy by which passports last [`LIFE_S`].
fn short(world: &World, a: &Server<'_>, checks: &mut Checks, guest: &Guest<'_>) -> bool {
    lasts(world, checks, LIFE_S);
    // Those they have last longer.
    a.signal("-TERM");
    signal(world, "centre", "-KILL");
    let up = a.up_again();
    let what = "trust service and centre come up again";
    checks.check(what, up.is_ok(), up.err().unwrap_or_default());
    let admitted = eventually(LONG, || admits(guest).then_some(()));
    checks.check("the guest's client is admitted under one of them", admitted.is_some(), "");
    admitted.is_some()
}

/// What needs no passport.
fn goes_on(world: &World, a: &Server<'_>, checks: &mut Checks, ours: &Registered) {
    let (good, seen) = local(a, ours);
    checks.check("over the network the library still answers, and asks no PKI", good, seen);
    let unknown = eventually(LONG, || (!finds(a, "bob")).then_some(()));
    checks.check("what only the centre knows is not answered", unknown.is_some(), "bob");
    let config = world.path("centre/centre.toml");
    let words = ["--config", config.to_str().expect("a plain path"), "status"];
    let said = run(programs().join("vouchsafe-centre"), &words);
    checks.check("the centre answers its administrators", said.code == 0, said.complaint());
}

/// So long the verdict on the server, and what rests on it.
fn lasts(world: &World, checks: &mut Checks, seconds: u64) {
    policy(world, checks, "session_life_s", seconds.into());
    let said = world.vouchsafe(&["host", "attest", "a"]);
    checks.check("host a has such a session", said.code == 0, said.complaint());
}

/// Whether a guest's client and its trust service take each other for what they are.
fn admits(guest: &Guest<'_>) -> bool {
    guest.client("attest")["admitted"]["vm"] == guest.vm
}

fn without(said: &Value) -> bool {
    said["not-now"]["seen"] == "service-without-passport"
}

/// The client says at once why it is not served, and that nobody proved it.
fn told(checks: &mut Checks, guest: &Guest<'_>) {
    let since = Instant::now();
    let said = guest.client("attest");
    let took = since.elapsed();
    let good = without(&said) && took < PROMPTLY;
    let what = "the client is told at once why it is not served: `service-without-passport`";
    checks.check(what, good, format!("after {} ms: {said}", took.as_millis()));
}

/// Whether a server has an answer about a key of this name.
fn finds(server: &Server<'_>, name: &str) -> bool {
    let query = json!({"binding": {"name": name}, "limit": 1});
    let (_, body) = server.post_json("/v1/keys/validate", &query);
    body["bindings"].as_array().is_some_and(|found| !found.is_empty())
}
