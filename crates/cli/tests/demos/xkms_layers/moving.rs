//! The keys of a VM go to the other server: over a wire that somebody listens to, and once more by
//! order of the centre.

use base64::Engine as _;
use serde_json::Value;

use super::{
    guest::{Guest, one},
    lasting::signal_centre,
};
use crate::{
    checks::Checks,
    server::Server,
    tap::{Tap, holds_none},
    world::{PATIENCE, World, eventually, programs, run},
};

/// v1's keys, from a to b.
pub fn watched(
    a: &Server<'_>,
    b: &Server<'_>,
    checks: &mut Checks,
    v1: &Guest<'_>,
    v2: &Guest<'_>,
) {
    let key = a.listed_key("v1-mail").unwrap_or_default();
    let what = "v1's key, asked from b: the anchor is the CA";
    v2.rests_on(checks, what, ("v1-mail", "Valid"), (&ca(), 1));
    let address = std::fs::read_to_string(b.dir.join("peer-address")).unwrap_or_default();
    let Ok(tap) = Tap::before(address.trim().to_owned()) else { return };
    let words = ["key", "migrate", "--owner", "v1", "--from", "a", "--to", "b", "--url", &tap.url];
    let said = a.world.vouchsafe(&words);
    let what = "`vouchsafe key migrate` moves everything of v1 from a to b";
    checks.check(what, said.code == 0 && said.json()["place"] == "absent", said.complaint());
    let seen = tap.seen();
    let text = base64::engine::general_purpose::STANDARD.encode(&key);
    // An SPKI of P-256 ends with the point, which every form of the key has in it.
    let point = &key[key.len().saturating_sub(64)..];
    let hidden = holds_none(&seen, &[b"v1-mail", &key, point, text.as_bytes()]);
    let what = "a capture of all that went over holds neither the key nor its name";
    checks.check(what, hidden && seen.len() > 4096, format!("{} bytes", seen.len()));
    let what = "b answers for v1's key from its own library";
    v2.rests_on(checks, what, ("v1-mail", "Valid"), (&"trust-service".into(), 0));
    let said = v1.client("reissue --name v1-mail --key-file /tmp/v1-mail");
    let refused = said["answer"]["success"] == false;
    checks.check("v1: a takes no order about it", refused, &said["answer"]["result"]);
    let words = ["key", "authorize", "--name", "v1-new", "--owner", "v1", "--host", "a"];
    let late = a.world.vouchsafe(&words).refusal();
    checks.check("and nothing new for v1: `owner-moved`", late == "owner-moved", late);
    signal_centre(a.world, "-STOP");
    v2.operation(checks, "while the centre stands still, b answers", "locate --name v1-mail", one);
    let said = v1.client("locate --name v1-mail");
    signal_centre(a.world, "-CONT");
    let empty = said["answer"]["bindings"].as_array().is_none_or(Vec::is_empty);
    checks.check("and a does not", empty && said["answer"].is_object(), &said["answer"]["result"]);
}

/// v2's keys, from b to a: the centre tells one server of the other, and never has a key.
pub fn ordered(world: &World, checks: &mut Checks, v1: &Guest<'_>) {
    let centre = |words: &[&str]| {
        let config = world.path("centre/centre.toml");
        let config = config.to_str().expect("a plain path");
        run(programs().join("vouchsafe-centre"), &[&["--config", config], words].concat())
    };
    let words = ["migrate", "--owner", "v2", "--from", "b", "--to", "a", "--operator", "ann"];
    let begun = centre(&words);
    checks.check(
        "`vouchsafe-centre migrate` orders v2's keys from b to a",
        begun.code == 0,
        begun.complaint(),
    );
    let there = eventually(PATIENCE, || {
        let said = world.vouchsafe(&["key", "migration", "--owner", "v2", "--host", "a"]);
        (said.json()["place"] == "here").then_some(())
    });
    let gone = world.vouchsafe(&["key", "migration", "--owner", "v2", "--host", "b"]);
    let good = there.is_some() && gone.json()["place"] == "absent";
    checks.check("they are at a, and not at b", good, gone.stdout.trim());
    let what = "a answers for v2's key from its own library";
    v1.rests_on(checks, what, ("v2-mail", "Valid"), (&"trust-service".into(), 0));
}

/// The CA of both servers, as an anchor.
pub fn ca() -> Value {
    serde_json::json!({"ca": "Vouchsafe lab centre"})
}
