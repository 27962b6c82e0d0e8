//! What goes over the wire between two trust services, and what is refused there.

use base64::Engine as _;

use super::sites::{HOSTS, Sites};
use crate::{
    checks::Checks,
    server::result,
    tap::{Tap, holds_none},
    world::run,
};

/// A migration over a wire that somebody listens to.
pub fn watched(sites: &mut Sites<'_>, checks: &mut Checks) {
    let name = "tapped-key";
    let registered = sites.register(0, name, "tapped");
    checks.check("a key of a VM is registered at A", registered.is_ok(), format!("{registered:?}"));
    let file = sites.world.path("hosts/b/trust/peer-address");
    let target = std::fs::read_to_string(file).unwrap_or_default();
    let Ok(tap) = Tap::before(target.trim().to_owned()) else { return };
    let said = sites.key(0, &["migrate", "--owner", "tapped", "--to", "b", "--url", &tap.url]);
    checks.check(
        "`vouchsafe key migrate` moves everything of the VM",
        said.code == 0,
        said.complaint(),
    );
    let answers = [0, 1].map(|at| sites.answers(at, name));
    let moved = answers == [Some(false), Some(true)];
    checks.check("after it B answers for the key, and A does not", moved, format!("{answers:?}"));
    let seen = tap.seen();
    let key = sites.servers[1].listed_key(name).unwrap_or_default();
    let text = base64::engine::general_purpose::STANDARD.encode(&key);
    let clean = holds_none(&seen, &[name.as_bytes(), &key, text.as_bytes()]);
    let what = "a capture of the wire holds neither the key nor its name";
    checks.check(what, clean && seen.len() > 4096, format!("{} bytes, key {text}", seen.len()));
}

/// Each wrong turn has its name.
pub fn refused(sites: &Sites<'_>, checks: &mut Checks) {
    let again = sites.key(0, &["migrate", "--owner", "tapped", "--to", "b"]);
    checks.check(
        "what has moved away does not move again: owner-moved",
        again.refusal() == "owner-moved",
        again.refusal(),
    );
    let late = sites.key(0, &["authorize", "--name", "late", "--owner", "tapped"]);
    checks.check(
        "nothing new for it at A: owner-moved",
        late.refusal() == "owner-moved",
        late.refusal(),
    );
    let server = &sites.servers[0];
    let answer = server.ask(server.register("tapped-key", "any-phrase-at-all", None));
    let said = result(&answer);
    let what = "an order about it at A: NoMatch, not a question of authentication";
    checks.check(what, said == "Receiver NoMatch", said);
    let nobody = sites.key(0, &["migrate", "--owner", "nobody", "--to", "b"]);
    checks.check(
        "an owner without keys: owner-unknown",
        nobody.refusal() == "owner-unknown",
        nobody.refusal(),
    );
    let file = sites.world.path(&format!("hosts/{}/trust/peer-address", HOSTS[1]));
    let target = std::fs::read_to_string(file).unwrap_or_default();
    let url = format!("https://{}/v1/migrations", target.trim());
    let body = r#"{"statement":"e30=","signature":"e30=","passport":"e30="}"#;
    let json = "content-type: application/json";
    let said = run("curl", &["-sk", "-H", json, "-d", body, &url]);
    let bare = said.json()["name"] == "passport-missing";
    checks.check("a caller without a passport: passport-missing", bare, said.stdout);
    let record = sites.world.record();
    let file = |field: &str| record["authority"][field].as_str().unwrap_or_default().to_owned();
    let (cert, key) = (file("client_cert"), file("client_key"));
    let said = run("curl", &["-sk", "--cert", &cert, "--key", &key, "-H", json, "-d", body, &url]);
    let operator = said.json()["name"] == "passport-missing";
    checks.check("an operator's certificate is no passport", operator, said.stdout);
}
