//! A launch by the agent, from a stopped VM with its volume and vTPM in place.

use std::{path::Path, time::Duration};

use serve::{
    clock::{Clock as _, SystemClock},
    process::ProcessId,
};

use crate::{
    FIRST_LINE, LIMIT, LOOK,
    world::{Said, World, eventually, run},
};

/// Clock ticks of `/proc` in a second (USER_HZ, fixed on Linux).
const TICKS: f64 = 100.0;

fn must(said: Said) -> Said {
    assert!(said.code == 0, "{}", said.complaint());
    said
}

/// The VM with the SHA-256 bank alone, as VMs are by default.
pub const ONE_BANK: &str = "v1";

/// The VM whose firmware measures with all four algorithms.
pub const ALL_BANKS: &str = "v4";

/// Creates the VMs and starts each once, so that all launches measured find the same state.
pub fn prepare(world: &World, image: &Path) {
    let image = image.to_str().expect("a plain path");
    for (vm, banks) in [(ONE_BANK, "sha256"), (ALL_BANKS, "sha1,sha256,sha384,sha512")] {
        let create = ["vm", "create", vm, "--image", image, "--data", "0", "--pcr-banks", banks];
        must(world.vouchsafe(&create));
        must(world.vouchsafe(&["vm", "start", vm, "--host", "a"]));
        must(world.vouchsafe(&["vm", "stop", vm]));
    }
}

/// Seconds from the start of the vTPM's process to the kernel's first line, and milliseconds that
/// the agent worked outside QEMU.
pub fn launch(world: &World, vm: &'static str) -> (f64, f64) {
    // The agent keeps the last boot's console until the next one begins.
    let last = console(world, vm);
    let lab = world.dir().to_str().expect("a plain path").to_owned();
    let started = std::thread::spawn(move || {
        let args = ["vm", "start", vm, "--host", "a", "--json", "--lab", &lab];
        run(env!("CARGO_BIN_EXE_vouchsafe"), &args)
    });
    let pattern = format!("^/[^ ]*vouchsafe-vtpm .*{}/run/a/{vm}/", world.dir().display());
    let vtpm = eventually(LIMIT, || {
        let found = run("pgrep", &["-o", "-f", &pattern]).stdout;
        ProcessId::find(found.trim().parse().ok()?)
    })
    .expect("the vTPM's process");
    let is_new = |text: &str| last.is_empty() || !text.starts_with(&last);
    loop {
        let text = console(world, vm);
        if is_new(&text) && text.contains(FIRST_LINE) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let now = SystemClock.monotonic().as_secs_f64();
    let said = must(started.join().expect("vm start ends"));
    must(world.vouchsafe(&["vm", "stop", vm]));
    let born = f64::from(u32::try_from(vtpm.start_time).expect("uptime")) / TICKS;
    (now - born, outside(&said))
}

/// The console, asked of the agent without a process per look.
fn console(world: &World, vm: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut answer = String::new();
    if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(world.path("run/a.agent")) {
        let _limit = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let ask = format!(
            "GET /v1/vms/{vm}/console HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
        );
        if stream.write_all(ask.as_bytes()).is_ok() {
            let _read = stream.read_to_string(&mut answer);
        }
    }
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// What the agent says it did outside QEMU.
fn outside(said: &Said) -> f64 {
    let timings = said.json()["timings"].clone();
    let mut phases = timings.as_array().into_iter().flatten();
    let found = phases.find(|phase| phase[0] == "outside-qemu").and_then(|p| p[1].as_f64());
    found.expect("the agent times what it does outside QEMU")
}
