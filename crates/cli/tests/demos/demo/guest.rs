//! Guests that are not what they should be.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::launch::BOOT;
use crate::{
    checks::Checks,
    world::{Said, World, eventually, run},
};

/// A guest that boots another kernel command line than was endorsed.
pub fn other_kernel(world: &World, checks: &mut Checks, good: &Path, other: &Path) {
    checks.part("a guest with another kernel");
    let measured = run(
        env!("CARGO_BIN_EXE_vouchsafe"),
        &["image", "measure", "--json", good.to_str().expect("a plain path")],
    );
    let reference = world.path("reference.json");
    std::fs::write(&reference, &measured.stdout).expect("a file");
    let said = world.vouchsafe(&[
        "vm",
        "create",
        "v2",
        "--image",
        other.to_str().expect("a plain path"),
        "--reference",
        reference.to_str().expect("a plain path"),
        "--guard",
        "tcb",
        "--origin",
        "tcb",
        "--kmi-origin",
        "tcb",
    ]);
    checks.check(
        "v2 is created: its key and KMI made by the host, kept in memory",
        said.code == 0,
        said.complaint(),
    );
    let said = world.vouchsafe(&["vm", "start", "v2", "--host", "b"]);
    let what = "its start is refused, and the event is named";
    checks.refused(what, "guest-event-unknown", &said.refusal(), &said.detail());
    let opened = world.console("v2").contains("data-volume-open");
    checks.check("its data volume stayed closed", !opened, "");
    let said = world.vouchsafe(&["vm", "stop", "v2"]);
    checks.check("it is stopped", said.code == 0, said.complaint());
    // Its keys were in the agent's memory only; without a grant the volume stays closed.
    let said = world.vouchsafe(&["vm", "start", "v2", "--host", "b", "--offline"]);
    let what = "a start that no grant stands for opens no volume";
    checks.refused(what, "grant-missing", &said.refusal(), &said.detail());
}

/// Changes one line of the policy.
pub fn policy(world: &World, checks: &mut Checks, key: &str, value: serde_json::Value) {
    let mut wanted = world.vouchsafe(&["policy", "show"]).json();
    wanted["policy"][key] = value.clone();
    let file = world.path("policy.json");
    std::fs::write(&file, wanted.to_string()).expect("a file");
    let said = world.vouchsafe(&["policy", "set", file.to_str().expect("a plain path")]);
    let set = said.json()["policy"][key] == value;
    checks.check(&format!("policy: {key} is now {value}"), set, said.complaint());
}

/// Tells the guest's control port something and waits for the guest's answer, if there is to be one.
pub fn tell(world: &World, vm: &str, host: &str, word: &str, answer: &str) -> bool {
    use std::io::Write as _;
    let port = world.path(&format!("run/{host}/{vm}/control.sock"));
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&port) else { return false };
    if stream.write_all(format!("{word}\n").as_bytes()).is_err() {
        return false;
    }
    answer.is_empty() || world.guest_says(vm, answer, BOOT).is_some()
}

/// A guest that will obey us in lying; it boots beside another.
pub fn obeying(world: &World, test: &Path) -> [Said; 2] {
    let image = test.to_str().expect("a plain path");
    let origins = ["--origin", "tpm", "--kmi-origin", "tpm", "--vtpm-rsa-ek"];
    let made = world.vouchsafe(&[&["vm", "create", "v3", "--image", image], &origins[..]].concat());
    [made, world.vouchsafe(&["vm", "start", "v3", "--host", "b"])]
}

/// What it lies about: its logs, its vTPM.
pub fn lying(world: &World, checks: &mut Checks, [made, started]: [Said; 2]) {
    checks.part("a guest that lies");
    let what = "v3 is created: its key and KMI come from the host's TPM";
    checks.check(what, made.code == 0, made.complaint());
    checks.check("honest, it is trusted", started.code == 0, started.complaint());
    // A paused guest could not lie again, so bad verdicts are only reported for a while.
    policy(world, checks, "on_bad_guest", "report".into());
    let what = "its own log cut short is noticed";
    lie(world, checks, ("evidence-truncated", ""), "guest-log-truncated", what);
    let what = "its own log edited is noticed";
    lie(world, checks, ("evidence-altered", ""), "guest-log-disagrees", what);
    noticed_unasked(world, checks);
    lie(
        world,
        checks,
        ("flood 5100", "flooded"),
        "log-overflow",
        "a flood of extends is no short list",
    );
    let said = world.vouchsafe(&["vm", "stop", "v3"]);
    checks.check("it is stopped", said.code == 0, said.complaint());
    policy(world, checks, "on_bad_guest", "pause".into());
    copied_vtpm(world, checks);
}

/// Has v3 lie, and asks for a verdict.
fn lie(world: &World, checks: &mut Checks, (word, answer): (&str, &str), name: &str, what: &str) {
    let told = tell(world, "v3", "b", word, answer);
    let ask = || world.vouchsafe(&["vm", "attest", "v3"]);
    let mut said = ask();
    // The guest takes a word from its port at its own pace: until then it lies as before, or not yet.
    let lies = || Some(ask()).filter(|said| said.refusal() == name);
    if told && said.refusal() != name {
        said = eventually(BOOT, lies).unwrap_or(said);
    }
    let seen = if told { said.refusal() } else { "the guest did not obey".to_owned() };
    checks.refused(what, name, &seen, &said.detail());
}

/// How soon the agent itself must notice that a guest measured more.
const NOTICED: Duration = Duration::from_secs(60);

/// An extend after the verdict, for which nobody asks for another one.
fn noticed_unasked(world: &World, checks: &mut Checks) {
    let of_v3 = || {
        let entries = world.audit().into_iter().filter(|entry| entry["subject"] == "vm:v3");
        let names =
            entries.filter_map(|entry| Some(entry["outcome"]["refused"].as_str()?.to_owned()));
        names.collect::<Vec<_>>()
    };
    let before = of_v3().len();
    let told = tell(world, "v3", "b", "evidence-honest\nextend 9", "extended 9");
    let since = Instant::now();
    let noticed = eventually(NOTICED, || of_v3().get(before).cloned());
    let seen = match noticed {
        Some(name) if told => name,
        Some(_) | None => "nothing".to_owned(),
    };
    let what = "an unknown extend is named by the next appraisal, which nobody asked for";
    let after = format!("after {:.0} s", since.elapsed().as_secs_f32());
    checks.refused(what, "guest-event-unknown", &seen, &after);
}

/// The state of host a's vTPM in the place of one on host b.
fn copied_vtpm(world: &World, checks: &mut Checks) {
    checks.part("a vTPM's state is copied to the other host");
    let of = |host: &str, vm: &str| world.path(&format!("hosts/{host}/state/vms/{vm}/vtpm"));
    let (from, to) = (of("a", "v1"), of("b", "v3"));
    let own = to.with_extension("own");
    std::fs::rename(&to, &own).expect("a rename");
    let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
    run("cp", &["-a", &text(&from), &text(&to)]);
    let said = world.vouchsafe(&["vm", "start", "v3", "--host", "b"]);
    let what = "v3 does not start with it";
    checks.refused(what, "vtpm-state-foreign", &said.refusal(), &said.detail());
    std::fs::remove_dir_all(&to).expect("removable");
    std::fs::rename(&own, &to).expect("a rename");
}
