//! A whole machine that is put back, and a volume that comes to another one: what the host's own
//! counters cannot tell.

use std::path::Path;

use super::keeping::{kill_9, pid_of};
use crate::{
    checks::Checks,
    world::{PATIENCE, Said, World, eventually, run},
};

fn start(world: &World, host: &str) -> Said {
    world.vouchsafe(&["vm", "start", "v3", "--host", host])
}

/// What the authority's record says of v3's boot volume.
fn recorded(world: &World) -> serde_json::Value {
    world.vouchsafe(&["vm", "show", "v3"]).json()["anchors"][0].clone()
}

/// The agent and its TPM are off: nothing writes in the machine's directory.
fn off(world: &World) {
    for role in ["host-b", "host-b-tpm"] {
        kill_9(pid_of(world, role));
    }
}

fn copy(from: &Path, to: &Path) -> Said {
    run("cp", &["-a", from.to_str().expect("plain"), to.to_str().expect("plain")])
}

/// State, volumes and TPM of a host as they were before the last run of its VM.
pub fn put_back(world: &World, checks: &mut Checks) {
    checks.part("a whole host is put back, its TPM with it");
    let (machine, today) = (world.path("hosts/b"), world.path("today-b"));
    let yesterday = world.path("yesterday-b");
    off(world);
    let copied = copy(&machine, &yesterday);
    let said = world.lab_up(&[]);
    let whole = copied.code == 0 && said.code == 0;
    checks.check("the host is copied and goes on", whole, said.complaint());
    let before = recorded(world);
    let said = start(world, "b");
    let stopped = world.vouchsafe(&["vm", "stop", "v3"]);
    let ran = said.code == 0 && stopped.code == 0;
    checks.check("v3 runs there once more", ran, said.complaint());
    // The host says it once more when it has said that nothing runs.
    let rests = || Some(recorded(world)).filter(|now| now["in_use"].is_null());
    let after = eventually(PATIENCE, rests).unwrap_or_default();
    let further = after["count"].as_u64() > before["count"].as_u64();
    checks.check(
        "the authority's record counts with it, and says that the volume is at rest",
        further && after["host"] == "b",
        format!("{} -> {}", before["count"], after["count"]),
    );
    off(world);
    std::fs::rename(&machine, &today).expect("a rename");
    let copied = copy(&yesterday, &machine);
    let said = world.lab_up(&[]);
    let trusted = copied.code == 0 && said.code == 0;
    checks.check("put back, it is attested like any honest host", trusted, said.complaint());
    let said = start(world, "b");
    let by_record = said.detail().contains("authority's record");
    checks.refused("but its volume is older than the record", "rolled-back", &said.refusal(), "");
    checks.check("and that is what says so", by_record, said.detail());
    off(world);
    std::fs::remove_dir_all(&machine).expect("removable");
    std::fs::remove_dir_all(&yesterday).expect("removable");
    std::fs::rename(&today, &machine).expect("a rename");
    let said = world.lab_up(&[]);
    checks.check("the host is as it was", said.code == 0, said.complaint());
}

/// A VM gets another home, and the volume of the first one is brought there.
pub fn brought_along(world: &World, checks: &mut Checks) {
    checks.part("a VM gets another home, and somebody brings its old volume there");
    let fenced = world.vouchsafe(&["vm", "fence", "v3", "--reason", "the demonstration moves it"]);
    let said = start(world, "a");
    let stopped = world.vouchsafe(&["vm", "stop", "v3"]);
    let moved = fenced.code == 0 && said.code == 0 && stopped.code == 0;
    checks.check("v3 is fenced, made anew on a, and stopped", moved, said.complaint());
    let image = |host: &str| world.path(&format!("hosts/{host}/state/vms/v3/boot.img"));
    let copied = copy(&image("b"), &image("a"));
    checks.check("its volume on b is brought to a", copied.code == 0, copied.complaint());
    let said = start(world, "a");
    let what = "yesterday's volume does not open at the new home";
    checks.refused(what, "wrong-key", &said.refusal(), &said.detail());
}
