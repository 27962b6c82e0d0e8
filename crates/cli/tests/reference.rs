//! Reference values by the commands of an operator: made from a machine's log, signed by two
//! endorsers, given to an authority of real processes that appraises a real host by them.

#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    unreachable_pub,
    dead_code,
    reason = "an integration test: it says what it sees and stops where it cannot go on"
)]

#[path = "shared/world.rs"]
mod world;

use std::path::{Path, PathBuf};

use self::world::{Said, World, programs};

/// Endorsers of a lab: its own is replaced by two, both of whom must sign.
struct Endorsers {
    dir: PathBuf,
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

impl Endorsers {
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn reference(&self, world: &World, args: &[&str]) -> Said {
        let mut all = vec!["reference"];
        all.extend(args);
        world.vouchsafe(&all)
    }

    /// Has `draft` signed by both, into `signed`.
    fn sign(&self, world: &World, draft: &Path, signed: &Path) {
        let (ann, bob) = (self.file("ann.key"), self.file("bob.key"));
        let said = self.reference(world, &["sign", "--key", text(&ann), text(draft), text(signed)]);
        assert_eq!(said.complaint(), "");
        let said =
            self.reference(world, &["sign", "--key", text(&bob), text(signed), text(signed)]);
        assert_eq!(said.complaint(), "");
        assert_eq!(said.json()["signatures"], 2);
    }

    fn install(&self, world: &World, document: &Path) -> Said {
        let config = world.path("authority/authority.toml");
        self.reference(world, &["install", "--authority-config", text(&config), text(document)])
    }
}

/// Whether the authority takes what host `a` measured; the name of its refusal if not.
fn attest(world: &World) -> String {
    let said = world.vouchsafe(&["host", "attest", "a"]);
    if said.code == 0 { "trusted".to_owned() } else { said.refusal() }
}

/// `DIR/authority/authority.d` makes the two endorsers the ones that count, once the lab is up.
fn restart_with_two_endorsers(world: &World, endorsers: &Endorsers) {
    let refined = world.path("authority/authority.d");
    std::fs::create_dir_all(&refined).expect("a directory");
    let keys = format!(
        "[endorsers]\nkeys = [\"{}\", \"{}\"]\nneeded = 2\n",
        text(&endorsers.file("ann.pub")),
        text(&endorsers.file("bob.pub")),
    );
    std::fs::write(refined.join("endorsers.toml"), keys).expect("written");
}

#[test]
fn a_host_is_trusted_by_reference_values_that_the_commands_made() {
    if !programs().join("vouchsafe-authority").is_file() {
        println!("Skipped: vouchsafe-authority is not built beside vouchsafe");
        return;
    }
    let world = World::up(&["--hosts", "1", "--manner", "full"]).expect("a lab");
    let endorsers = Endorsers { dir: world.path("endorsers") };
    for name in ["ann", "bob"] {
        let out = text(&endorsers.dir).to_owned();
        let said = endorsers.reference(&world, &["key", "--out", &out, "--name", name]);
        assert_eq!(said.complaint(), "");
        let again = endorsers.reference(&world, &["key", "--out", &out, "--name", name]);
        assert_eq!(again.code, 1, "a key is not overwritten");
    }
    restart_with_two_endorsers(&world, &endorsers);
    let (log, draft) = (world.path("hosts/a/event-log.bin"), endorsers.file("draft.json"));
    let signed = endorsers.file("signed.json");
    let said = endorsers.reference(&world, &["from-log", "--out", text(&draft), text(&log)]);
    assert_eq!(said.complaint(), "");

    // One signature is not enough, and an altered document none.
    let ann = endorsers.file("ann.key");
    let said =
        endorsers.reference(&world, &["sign", "--key", text(&ann), text(&draft), text(&signed)]);
    assert_eq!(said.complaint(), "");
    assert_eq!(endorsers.install(&world, &signed).refusal(), "envelope-too-few-signers");
    endorsers.sign(&world, &draft, &signed);
    let mut envelope: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&signed).expect("read")).expect("JSON");
    let payload = envelope["payload"].as_str().expect("text").replacen('A', "B", 1);
    envelope["payload"] = payload.into();
    let altered = endorsers.file("altered.json");
    std::fs::write(&altered, envelope.to_string()).expect("written");
    assert_eq!(endorsers.install(&world, &altered).refusal(), "envelope-signature-invalid");

    // The whole document: the host is trusted by it after the authority knows the two endorsers.
    assert_eq!(endorsers.install(&world, &signed).complaint(), "");
    let own = endorsers.file("own.json");
    let lab_key = world.path("keys/endorser.key");
    let with_lab = |document: &Path| {
        // The running authority has the lab's endorser: it reads what that one signed.
        let said = endorsers
            .reference(&world, &["sign", "--key", text(&lab_key), text(document), text(&own)]);
        assert_eq!(said.complaint(), "");
        std::fs::copy(&own, world.path("authority/reference.json")).expect("copied");
    };
    with_lab(&signed);
    assert_eq!(attest(&world), "trusted");

    // A component that is endorsed in another version only: refused; endorsed: trusted, and
    // nothing was restarted.
    let other = endorsers.file("other.json");
    let add = |file: &str, words: &[&str]| {
        let mut args = vec!["add-component", "--document", text(&draft), "--out", text(&other)];
        args.extend(words);
        args.extend(["host", file]);
        let said = endorsers.reference(&world, &args);
        assert_eq!(said.complaint(), "");
    };
    add("/bin/true", &["--replace"]);
    with_lab(&other);
    assert_eq!(attest(&world), "event-unknown");
    let program = programs().join("vouchsafe-host");
    let args = ["add-component", "--document", text(&other), "host", text(&program)];
    assert_eq!(endorsers.reference(&world, &args).complaint(), "");
    with_lab(&other);
    assert_eq!(attest(&world), "trusted");
}
