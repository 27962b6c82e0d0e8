//! What is kept when something dies, is away, or is put back.

use std::{collections::BTreeSet, path::Path, time::Duration};

use super::launch::BOOT;
use crate::{
    checks::Checks,
    world::{self, PATIENCE, World, eventually, run},
};

/// Kills a process and waits until nothing of it is left.
pub fn kill_9(pid: i64) {
    world::kill_9(&[pid.to_string()]);
}

fn beat(world: &World, vm: &str) -> u64 {
    world.guest_says(vm, "beat", BOOT).and_then(|n| n.parse().ok()).unwrap_or(0)
}

pub fn pid_of(world: &World, role: &str) -> i64 {
    let dir = world.dir().to_str().expect("a plain path");
    let said = run(env!("CARGO_BIN_EXE_vouchsafe"), &["lab", "status", "--dir", dir, "--json"]);
    let processes = said.json()["processes"].clone();
    let all = processes.as_array().into_iter().flatten();
    let found = all.filter(|p| p["role"] == role).find_map(|p| p["pid"].as_i64());
    found.expect("the lab lists the process")
}

/// The agent dies and comes back; the guest never notices.
pub fn agent_killed(world: &World, checks: &mut Checks) {
    checks.part("the agent is killed with -9 while its VM runs");
    let pattern = format!("^/[^ ]*qemu-system.*{}/run/a/v1/", world.dir().display());
    let machine = || run("pgrep", &["-f", &pattern]);
    let (before, running) = (beat(world, "v1"), machine().stdout);
    kill_9(pid_of(world, "host-a"));
    let said = world.lab_up(&[]);
    checks.check("lab up starts it again", said.code == 0, said.complaint());
    let after = eventually(BOOT, || Some(beat(world, "v1")).filter(|n| *n > before));
    let boots = world.console("v1").matches("vouchsafe-guest: boot ").count();
    checks.check(
        "the VM is adopted again: same process, its heart beats on, no second boot",
        after.is_some() && boots <= 1 && !running.is_empty() && machine().stdout == running,
        format!("beat {before} -> {}", after.unwrap_or(0)),
    );
    let said = world.vouchsafe(&["vm", "attest", "v1"]);
    checks.check("and is attested as before", said.code == 0, said.complaint());
}

/// The centre is away: keys under lease start the VM, until the lease ends.
pub fn authority_away(world: &World, checks: &mut Checks) {
    checks.part("the authority is away");
    let said = world.vouchsafe(&["vm", "stop", "v1"]);
    checks.check("v1 is stopped", said.code == 0, said.complaint());
    kill_9(pid_of(world, "authority"));
    let said = world.vouchsafe(&["vm", "start", "v1", "--host", "a", "--offline"]);
    checks.check(
        "a start with keys sealed by the host's TPM, under their lease",
        said.code == 0,
        said.complaint(),
    );
    let found = world_says_without_authority(world, "v1", "marker-found");
    checks.check("the guest reads its marker", found.is_some(), found.unwrap_or_default());
    let said = world.lab_up(&[]);
    checks.check("the authority comes back", said.code == 0, said.complaint());
    let state = || world.vouchsafe(&["vm", "show", "v1"]).json()["state"].clone();
    let known = eventually(PATIENCE, || (state() == "running").then_some(()));
    checks.check("and learns that v1 runs", known.is_some(), state());
}

fn world_says_without_authority(world: &World, vm: &str, word: &str) -> Option<String> {
    let socket = world.path("run/a.agent");
    let socket = socket.to_str()?;
    let url = format!("http://agent/v1/vms/{vm}/console");
    eventually(BOOT, || {
        let said = run("curl", &["-s", "--unix-socket", socket, &url]);
        let text = said.json()["text"].as_str()?.to_owned();
        let at = text.rfind(&format!("vouchsafe-guest: {word}"))?;
        text.get(at..)?.lines().next().map(str::to_owned)
    })
}

/// Whether a VM is in that phase, by its agent's word.
fn on_its_host(world: &World, vm: &str, phase: &str) -> Option<()> {
    let socket = world.path("run/a.agent");
    let url = format!("http://agent/v1/vms/{vm}");
    let said = run("curl", &["-s", "--unix-socket", socket.to_str()?, &url]);
    (said.json()["phase"] == phase).then_some(())
}

/// What a host may do alone ends with its lease.
pub fn lease_ended(world: &World, checks: &mut Checks) {
    checks.part("the authority is away for longer than the lease");
    super::guest::policy(world, checks, "lease_s", 15.into());
    super::guest::policy(world, checks, "session_life_s", 15.into());
    checks.check(
        "the host has a session with that lease",
        world.vouchsafe(&["host", "attest", "a"]).code == 0,
        "",
    );
    kill_9(pid_of(world, "authority"));
    let paused = eventually(PATIENCE, || on_its_host(world, "v1", "paused"));
    checks.check("v1 stands still once the lease has ended", paused.is_some(), "");
    let said = world.lab_up(&[]);
    checks.check("the authority comes back", said.code == 0, said.complaint());
    let runs = eventually(PATIENCE, || on_its_host(world, "v1", "running"));
    checks.check("and v1 goes on, for it is still this host's", runs.is_some(), "");
    let said = world.vouchsafe(&["vm", "stop", "v1"]);
    checks.check("v1 is stopped", said.code == 0, said.complaint());
    kill_9(pid_of(world, "authority"));
    std::thread::sleep(Duration::from_secs(16));
    let said = world.vouchsafe(&["vm", "start", "v1", "--host", "a", "--offline"]);
    checks.refused("its keys no longer open anything", "lease-ended", &said.refusal(), "");
    let said = world.lab_up(&[]);
    checks.check("it comes back once more", said.code == 0, said.complaint());
    let told = eventually(BOOT, || {
        world.audited_refusals().contains(&"lease-ended".to_owned()).then_some(())
    });
    checks.check("and learns of the refusal", told.is_some(), "audit log");
    super::guest::policy(world, checks, "lease_s", 1800.into());
    super::guest::policy(world, checks, "session_life_s", 600.into());
    checks.check(
        "the host has a long session again",
        world.vouchsafe(&["host", "attest", "a"]).code == 0,
        "",
    );
}

/// An older store refuses to start.
pub fn rolled_back(world: &World, checks: &mut Checks) {
    checks.part("the authority's store is put back to an earlier state");
    let state = world.path("authority/state");
    let copy = world.path("earlier");
    let args = |from: &Path, to: &Path| {
        run("cp", &["-a", from.to_str().expect("plain"), to.to_str().expect("plain")])
    };
    kill_9(pid_of(world, "authority"));
    args(&state, &copy);
    let said = world.lab_up(&[]);
    checks.check("the authority runs on", said.code == 0, said.complaint());
    let said = world.vouchsafe(&["host", "token", "zz"]);
    checks.check("something is written", said.code == 0, said.complaint());
    // And anchored: a head, which the counter follows.
    let head = |of: &Path| std::fs::read(of.join("head.json")).unwrap_or_default();
    let anchored = eventually(PATIENCE, || (head(&state) != head(&copy)).then_some(()));
    checks.check("and anchored", anchored.is_some(), "");
    std::thread::sleep(Duration::from_secs(3));
    kill_9(pid_of(world, "authority"));
    let later = world.path("later");
    std::fs::rename(&state, &later).expect("a rename");
    args(&copy, &state);
    let program = world::programs().join("vouchsafe-authority");
    let config = world.path("authority/authority.toml");
    let said = run(program, &["--config", config.to_str().expect("plain"), "--json"]);
    let what = "it refuses to start with exit status 3";
    checks.refused(what, "store-rolled-back", &said.refusal(), &said.detail());
    std::fs::remove_dir_all(&state).expect("removable");
    std::fs::rename(&later, &state).expect("a rename");
    let said = world.lab_up(&[]);
    checks.check("with the right store it starts", said.code == 0, said.complaint());
}

/// The log of all that, and what an edit does to it.
pub fn audited(world: &World, checks: &mut Checks) {
    checks.part("the audit log");
    super::refusals::all_made(checks);
    let audited: BTreeSet<_> = world.audited_refusals().into_iter().collect();
    let missing: Vec<_> = checks.refusals().difference(&audited).cloned().collect();
    let shown = if missing.is_empty() {
        format!("{} names", checks.refusals().len())
    } else {
        format!("missing: {}", missing.join(" "))
    };
    checks.check("every refusal above has its entry", missing.is_empty(), shown);
    let said = world.vouchsafe(&["audit", "verify"]);
    checks.check("audit verify", said.code == 0, said.stdout.trim());
    let dir = world.path("audit");
    let said = world.vouchsafe(&["audit", "export", dir.to_str().expect("plain")]);
    checks.check("audit export", said.code == 0, said.complaint());
    let entries = dir.join("audit.jsonl");
    let text = std::fs::read_to_string(&entries).expect("entries");
    let edited: Vec<_> =
        text.lines()
            .enumerate()
            .map(|(n, line)| {
                if n == 4 { line.replace("\"actor\":\"", "\"actor\":\"x") } else { line.to_owned() }
            })
            .collect();
    std::fs::write(&entries, edited.join("\n") + "\n").expect("writable");
    let said = run(
        env!("CARGO_BIN_EXE_vouchsafe"),
        &[
            "audit",
            "verify",
            "--json",
            "--file",
            entries.to_str().expect("plain"),
            "--checkpoint",
            dir.join("audit.checkpoint").to_str().expect("plain"),
        ],
    );
    checks.check(
        "an edited entry is found, by its number",
        said.code == 3 && said.detail().contains("entry 4"),
        said.detail(),
    );
}

/// Nothing is left.
pub fn down(world: World, checks: &mut Checks) {
    checks.part("lab down");
    let dir = world.dir().to_str().expect("a plain path").to_owned();
    let said = run(env!("CARGO_BIN_EXE_vouchsafe"), &["lab", "down", "--dir", &dir]);
    checks.check("lab down", said.code == 0, said.complaint());
    let found = run("pgrep", &["-fa", &format!("{dir}/")]).stdout;
    let left: Vec<_> = found.lines().filter(|line| !line.contains("pgrep")).collect();
    checks.check("no process is left", left.is_empty(), left.join("; "));
    let sockets = run("find", &[&dir, "-type", "s"]);
    checks.check("no socket is left", sockets.stdout.trim().is_empty(), sockets.stdout.trim());
}
