//! The rounds: an operation, a death in the middle of it, and what must be true afterwards.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::LAB;
use crate::{
    Rounds,
    checks::Checks,
    world::{Said, World, eventually, kill_9, run},
};

/// How long a guest may take under emulation, and a half-done operation to come to its end.
const SETTLE: Duration = Duration::from_secs(180);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Agent,
    Authority,
    Proxy,
    Disk,
}

const VICTIMS: [Victim; 4] = [Victim::Agent, Victim::Authority, Victim::Proxy, Victim::Disk];

pub fn play(world: &World, checks: &mut Checks, image: &Path, rounds: Rounds) {
    let Rounds { count, mut dice } = rounds;
    println!("{count} rounds, seed {:#x}", dice.seed);
    let image = image.to_str().expect("a plain path");
    // The witness runs all the time on the host whose agent dies; only its agent may be touched.
    let made = world.vouchsafe(&["vm", "create", "witness", "--image", image]);
    let started = world.vouchsafe(&["vm", "start", "witness", "--host", "a"]);
    checks.check("the witness runs", made.code == 0 && started.code == 0, started.complaint());
    for round in 1..=count {
        let vm = format!("v{}", dice.roll(2));
        let victim = VICTIMS[dice.index(4)];
        let action = next_action(world, &vm);
        let delay = Duration::from_millis(dice.roll(longest(action)));
        let (said, killed) = crash(world, &vm, action, image, victim, delay);
        let what = format!("round {round}: {action} {vm}, kill -9 {victim:?} after {delay:?}");
        let wrong = aftermath(world, &vm, action, victim, killed, &said);
        checks.check(&what, wrong.is_none(), wrong.unwrap_or_default());
    }
    let boots = world.console("witness").matches("vouchsafe-guest: boot ").count();
    let beat = |()| world.guest_says("witness", "beat", SETTLE).and_then(|n| n.parse::<u64>().ok());
    let before = beat(());
    let after = eventually(SETTLE, || beat(()).filter(|n| Some(*n) > before));
    checks.check(
        "the witness never noticed",
        boots <= 1 && after.is_some(),
        format!("{after:?} beats"),
    );
}

/// What makes sense for the VM now.
fn next_action(world: &World, vm: &str) -> &'static str {
    let said = world.vouchsafe(&["vm", "show", vm]);
    match said.json()["state"].as_str() {
        None | Some("retired") => "create",
        Some("running" | "paused") => "stop",
        Some(_) => "start",
    }
}

/// Up to when a death still falls into the operation, milliseconds.
fn longest(action: &str) -> u64 {
    match action {
        "create" => 400,
        "stop" => 4_000,
        _ => 15_000,
    }
}

fn spawn(world: &World, vm: &str, action: &str, image: &str) -> Child {
    let mut args = vec!["vm", action, vm];
    match action {
        "create" => args.extend(["--image", image]),
        "start" => args.extend(["--host", "a"]),
        _ => {}
    }
    let lab = world.dir().to_str().expect("a plain path");
    args.extend(["--json", "--lab", lab]);
    Command::new(env!("CARGO_BIN_EXE_vouchsafe"))
        .args(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("vouchsafe starts")
}

/// Processes whose command line begins with a program of this name and matches the rest.
fn pids(program: &str, rest: &str) -> Vec<String> {
    let pattern = format!("^/[^ ]*{program} .*{rest}");
    run("pgrep", &["-f", &pattern]).stdout.split_whitespace().map(str::to_owned).collect()
}

fn sockets_of(world: &World, vm: &str) -> String {
    format!("{}/run/a/{vm}/", world.dir().display())
}

/// Starts the operation, kills the victim in the middle, waits for the operation's end.
fn crash(
    world: &World,
    vm: &str,
    action: &str,
    image: &str,
    victim: Victim,
    delay: Duration,
) -> (Said, bool) {
    let child = spawn(world, vm, action, image);
    std::thread::sleep(delay);
    let sockets = sockets_of(world, vm);
    let lab = format!("{}/", world.dir().display());
    let found = match victim {
        Victim::Agent => pids("vouchsafe-host", &lab),
        Victim::Authority => pids("vouchsafe-authority", &lab),
        Victim::Proxy => pids("vouchsafe-vtpm", &sockets),
        Victim::Disk => pids("vouchsafe-disk", &sockets),
    };
    kill_9(&found);
    // Services are supervised in production; here `lab up` is the supervisor.
    let _up = world.lab_up(LAB);
    let said: Said = child.wait_with_output().expect("vouchsafe ends").into();
    (said, !found.is_empty())
}

/// What is wrong afterwards, if anything.
fn aftermath(
    world: &World,
    vm: &str,
    action: &str,
    victim: Victim,
    killed: bool,
    said: &Said,
) -> Option<String> {
    let up = world.lab_up(LAB);
    if up.code != 0 {
        return Some(format!("lab up: {}", up.complaint()));
    }
    let shown = eventually(SETTLE, || {
        let shown = world.vouchsafe(&["vm", "show", vm]);
        let busy = shown.json()["state"] == "busy";
        (!busy).then_some(shown)
    });
    let Some(shown) = shown else { return Some("it stays busy".to_owned()) };
    if action == "create" {
        return (said.code == 0 && shown.code != 0)
            .then(|| "an acknowledged VM is gone".to_owned());
    }
    let state = shown.json();
    let machines = pids("qemu-system-x86_64", &sockets_of(world, vm));
    let expected = match state["state"].as_str() {
        Some("running" | "paused") => 1,
        _ => 0,
    };
    if machines.len() != expected {
        return Some(format!(
            "{} machines run, the record says {}",
            machines.len(),
            state["state"]
        ));
    }
    let spared = !killed || matches!(victim, Victim::Agent | Victim::Authority | Victim::Disk);
    acknowledged(action, said, &state, spared)
}

/// An operation that was acknowledged must have happened. A VM whose vTPM died is stopped, so a
/// dead proxy excuses that.
fn acknowledged(action: &str, said: &Said, state: &Value, spared: bool) -> Option<String> {
    let wanted = match action {
        "start" => "running",
        "stop" => "stopped",
        _ => return None,
    };
    let done = said.code == 0;
    (done && spared && state["state"] != wanted)
        .then(|| format!("{action} was acknowledged, but it is {}", state["state"]))
}
