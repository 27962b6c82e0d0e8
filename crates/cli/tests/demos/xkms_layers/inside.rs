//! The six operations from inside a guest, on the orders of its own VM.

use serde_json::Value;

use super::{
    FULL, HYBRID, guest,
    guest::{Guest, none, one},
};
use crate::{checks::Checks, server::Server};

/// Five of the six: what a service without a CA, and without anybody's private key, can do.
pub fn five(checks: &mut Checks, v1: &Guest<'_>, v2: &Guest<'_>) {
    for guest in [v1, v2] {
        guest.admitted(checks, "the client proves VM and itself, and is admitted");
    }
    v1.operation(checks, "Locate of what is not there", "locate --name v1-mail", none);
    let words = ["key", "authorize", "--name", "v1-mail", "--host", v1.host];
    let said = v1.world.vouchsafe(&words);
    v1.put("other", said.json()["pass_phrase"].as_str().unwrap_or("none"));
    let order = "register --name v1-mail --phrase-file /tmp/other --key-file /tmp/v1-mail";
    let said = v1.client(order);
    let result = said["answer"]["result"].as_str().unwrap_or_default().to_owned();
    let refused = result == "Sender Refused" && guest::noted(v1.world, v1.host, "owner-other");
    let what = "v1: Register with a phrase that is not the VM's: `owner-other`";
    checks.check(what, refused, said);
    v1.register(checks, "Register of a key that was made in the guest", "v1-mail");
    v2.register(checks, "Register", "v2-mail");
    v1.operation(checks, "Locate finds it", "locate --name v1-mail", one);
    let order = "reissue --name v1-mail --key-file /tmp/v1-mail";
    v1.operation(checks, "Reissue, by the key itself", order, one);
    v1.register(checks, "Register of a second key", "v1-old");
    let order = "revoke --name v1-old --key-file /tmp/v1-old";
    v1.operation(checks, "Revoke, by the key itself", order, |_| true);
    let status = |wanted: &'static str| move |found: &Value| found[0]["status"] == wanted;
    v1.operation(checks, "Validate: Invalid", "validate --name v1-old", status("Invalid"));
}

/// One VM, identities of different grade: a question upwards is refused, unless it was allowed.
pub fn graded(checks: &mut Checks, v1: &Guest<'_>) {
    let of = ["--owner", v1.vm, "--host", v1.host];
    let key = |words: &[&str]| v1.world.vouchsafe(&[&["key"], words, &of[..]].concat());
    v1.register(checks, "Register of an identity that will be of a higher grade", "v1-root");
    let said = key(&["grade", "--name", "v1-root", "--grade", "2"]);
    let given = said.json()["names"]["v1-root"] == 2;
    checks.check("`vouchsafe key grade` gives it grade 2", given, said.complaint());
    let refused = |checks: &mut Checks, what: &str, words: &str| {
        let said = v1.client(words);
        let no =
            said["answer"]["success"] == false && guest::noted(v1.world, v1.host, "grade-too-low");
        checks.check(&format!("v1: {what}: `grade-too-low`"), no, said);
    };
    refused(checks, "Validate of it, asked by nobody in particular", "validate --name v1-root");
    let said = key(&["allow", "--from", "0", "--to", "2", "--validate"]);
    checks.check("`vouchsafe key allow` lets anyone validate it", said.code == 0, said.complaint());
    let what = "what was allowed is answered";
    v1.rests_on(checks, what, ("v1-root", "Valid"), (&"trust-service".into(), 0));
    refused(checks, "Locate was not allowed", "locate --name v1-root");
    let what = "Locate of it, asked as itself";
    v1.operation(checks, what, "locate --name v1-root --as /tmp/v1-root", one);
    let said = key(&["grade", "--name", "v1-mail", "--grade", "1"]);
    checks.check("another identity has grade 1", said.code == 0, said.complaint());
    let what = "Locate of the one of grade 2, asked as the one of grade 1";
    refused(checks, what, "locate --name v1-root --as /tmp/v1-mail");
    let what = "Locate of the one of grade 1, asked as the one of grade 2";
    v1.operation(checks, what, "locate --name v1-mail --as /tmp/v1-root", one);
    let said = key(&["grade", "--name", "v1-mail", "--grade", "0"]);
    checks.check("and has none any more", said.code == 0, said.complaint());
}

/// The sixth needs a private key in escrow, which no service has in the default manner: so the trust
/// service is started in the manner `full`, in a state of its own, and then again as it was.
pub fn recover(server: &Server<'_>, checks: &mut Checks, guest: &Guest<'_>) {
    guest.authorize("made");
    let words = "--phrase-file /tmp/phrase --key-file /tmp/made --generate";
    let said = guest.client(&format!("register --name made {words}"));
    let name = "key-generation-off";
    let refused = said["answer"]["success"] == false && guest::noted(guest.world, guest.host, name);
    let what = format!("the default manner makes no key for anyone: `{name}`");
    checks.check(&what, refused, &said["answer"]["result"]);
    let (state, kept) = (server.dir.join("state"), server.dir.join("state-hybrid"));
    let refinement = server.dir.join("trust.d/escrow.toml");
    let full = guest::restarted(server, FULL, || {
        std::fs::rename(&state, &kept).expect("the state is put aside");
        let text = "[keeper]\ngenerate_keys = true\nescrow = true\nkeep = \"tpm\"\n";
        std::fs::write(&refinement, text).expect("a refinement");
    });
    let what =
        "a trust service in the manner `full`, with escrow under keys in the TPM, in its place";
    checks.check(what, full.is_ok(), full.err().unwrap_or_default());
    guest.admitted(checks, "the client proves itself to that one too");
    guest.authorize("escrowed");
    let said = guest.client(&format!("register --name escrowed {words}"));
    let id = said["answer"]["bindings"][0]["id"].as_str().unwrap_or_default().to_owned();
    let what = format!("{}: Register of a key that the service makes", guest.vm);
    checks.check(&what, !id.is_empty(), &said["answer"]["result"]);
    let mut phrase = Value::Null;
    for operator in ["alice", "bob"] {
        let words = ["key", "approve-recovery", &id, "--operator", operator, "--host", guest.host];
        phrase = guest.world.vouchsafe(&words).json()["pass_phrase"].clone();
    }
    guest.put("phrase", phrase.as_str().unwrap_or("none"));
    let order = "recover --name escrowed --phrase-file /tmp/phrase --key-file /tmp/back";
    guest.operation(checks, "Recover, with the phrase of two operators", order, |_| true);
    super::secrets::own_ca(server, checks);
    let back = guest::restarted(server, HYBRID, || {
        std::fs::rename(&state, server.dir.join("state-full")).expect("the state is put aside");
        std::fs::rename(&kept, &state).expect("the state is put back");
        std::fs::remove_file(&refinement).expect("the refinement goes");
    });
    checks.check("and as it was again", back.is_ok(), back.err().unwrap_or_default());
    guest.admitted(checks, "the client proves itself once more");
}
