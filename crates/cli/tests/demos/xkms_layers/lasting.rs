//! Orders that wait, through the death of whoever has them.

use xkms::{
    dsig::{Curve, SigningKey},
    message::*,
    soap::Version,
};

use super::{LAB, guest::Guest, hybrid::validate};
use crate::{
    checks::Checks,
    server::Server,
    world::{World, kill_9, run},
    xkms_server::life::Registered,
};

/// Signals a process of the lab.
pub fn signal(world: &World, role: &str, by: &str) {
    let pid = world.processes()[role]["pid"].as_u64().unwrap_or(0).to_string();
    match by {
        "-KILL" => kill_9(&[pid]),
        _ => drop(run("kill", &[by, &pid])),
    }
}

/// The centre's process.
pub fn signal_centre(world: &World, by: &str) {
    signal(world, "centre", by);
}

/// An order to register a new key.
pub fn order(server: &Server<'_>, name: &str) -> Option<Request> {
    let phrase = server.pass_phrase(name).ok()?;
    let key = SigningKey::generate_ec(Curve::P256).expect("a key");
    Some(server.register(name, &phrase, Some(&key)))
}

/// Whether a server finds a certificate good without asking anyone.
pub fn local(server: &Server<'_>, known: &Registered) -> (bool, String) {
    let seen = validate(server, &known.certificate);
    let good = seen.as_ref().is_some_and(|(status, knowledge)| {
        *status == StatusValue::Valid && knowledge.pki_calls == 0
    });
    (good, format!("{seen:?}"))
}

/// The centre stands still, the trust service is killed and comes back, the centre goes on.
pub fn waits(world: &World, server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    signal_centre(world, "-STOP");
    let client = server.client(Version::V11, None);
    let Some(request) = order(server, "dave") else { return };
    let what = "the centre stands still; Register of a client that can wait: Pending";
    let Some(mut exchange) = server.put_off(checks, what, &client, request) else { return };
    let (good, seen) = local(server, known);
    checks.check("the library answers meanwhile", good, seen);
    server.signal("-KILL");
    let up = server.up_again();
    let what = "the killed trust service comes back without the centre";
    checks.check(what, up.is_ok(), up.err().unwrap_or_default());
    let (good, seen) = local(server, known);
    checks.check("and answers from its library", good, seen);
    server.is_pending(checks, "Status: the order is still pending", &exchange);
    signal_centre(world, "-CONT");
    let what = "the centre goes on: the order is carried out";
    server.carried_out(checks, what, &mut exchange);
}

/// The centre is killed with an order on its way; what is ready by `meanwhile` is how it comes back.
pub fn centre_killed(
    world: &World,
    server: &Server<'_>,
    checks: &mut Checks,
    guest: &Guest<'_>,
    meanwhile: impl FnOnce(),
) {
    signal_centre(world, "-KILL");
    let client = server.client(Version::V11, None);
    let Some(request) = order(server, "erin") else { return };
    let what = "Register while there is no centre: Pending";
    let Some(mut exchange) = server.put_off(checks, what, &client, request) else { return };
    let what = "the guest's own key: Valid, from the library, and how old that is";
    guest.rests_on(checks, what, ("v1-mail", "Valid"), (&"trust-service".into(), 0));
    let said = guest.client("locate --name bob");
    let empty = said["answer"]["bindings"].as_array().is_none_or(Vec::is_empty);
    checks.check("what only the centre knows is not answered", empty, &said["answer"]["result"]);
    meanwhile();
    let said = world.lab_up(LAB);
    checks.check("`lab up` starts the centre again", said.code == 0, said.complaint());
    server.carried_out(checks, "the order is carried out", &mut exchange);
}
