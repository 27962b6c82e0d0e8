//! Which accelerator works here, found by running a machine: opening `/dev/kvm` proves nothing, it
//! can be there and not be able to run the firmware.
//!
//! The probe starts QEMU with the firmware and nothing else, and looks at its state for as long as
//! it takes the first instructions to fail: a KVM that cannot run them ends in `internal-error` or
//! in QEMU's end. Bounded by [`PATIENCE`]; the answer is kept for the life of the agent.

use std::{path::Path, time::Duration};

use serde_json::Value;
use serve::process::{ProcessId, Spawn};

use crate::{
    config::{AccelChoice, Config},
    plan::{Ability, Accel},
    process,
    qmp::{Qmp, RunState},
    trouble::Trouble,
};

/// The most that the whole probe of one accelerator takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a machine must run to count as running.
const PROOF: Duration = Duration::from_millis(1200);

/// Finds out what QEMU can do here.
///
/// # Errors
/// [`Trouble`] if it cannot be run, or not with the accelerator that was asked for.
pub(crate) async fn probe(config: &Config) -> Result<Ability, Trouble> {
    let wanted: &[Accel] = match config.accel {
        AccelChoice::Auto => &[Accel::Kvm, Accel::Tcg],
        AccelChoice::Kvm => &[Accel::Kvm],
        AccelChoice::Tcg => &[Accel::Tcg],
    };
    for accel in wanted.iter().copied() {
        if accel == Accel::Kvm && !Path::new("/dev/kvm").exists() {
            continue;
        }
        for seccomp in [true, false] {
            let ability = Ability { accel, seccomp };
            if works(config, ability).await {
                tracing::info!(accel = accel.as_str(), seccomp, "QEMU works");
                return Ok(ability);
            }
        }
    }
    Err(Trouble::failed(format!(
        "{} runs no machine with the accelerator that is configured",
        config.binaries.qemu().display()
    )))
}

async fn works(config: &Config, ability: Ability) -> bool {
    let word = hex::encode(serve::random::bytes::<4>().unwrap_or_default());
    let socket = config.run_dir.join(format!("probe-{word}.sock"));
    let running = match arguments(config, ability, &socket).spawn() {
        Ok(process) => {
            let runs = tokio::time::timeout(PATIENCE, runs(&socket, process, ability)).await;
            let ended = process::cut(process).await;
            ended && runs.unwrap_or(false)
        }
        Err(error) => {
            tracing::warn!(error = serve::exit::chain(&error), "QEMU cannot be started");
            false
        }
    };
    // The probe's own socket; gone already if QEMU never made it.
    let _ = std::fs::remove_file(&socket);
    running
}

fn arguments(config: &Config, ability: Ability, socket: &Path) -> Spawn {
    let code = config.firmware.code.display();
    let mut spawn = Spawn::new(config.binaries.qemu())
        .args(["-machine", "q35,smm=off", "-accel", ability.accel.as_str(), "-cpu", "max"])
        .args(["-m", "64M", "-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-drive"])
        .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"))
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", socket.display()));
    if ability.seccomp {
        spawn = spawn.args([
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]);
    }
    spawn
}

async fn runs(socket: &Path, process: ProcessId, ability: Ability) -> bool {
    let wait = Duration::from_millis(20);
    let (qmp, _events) = loop {
        if !process.is_alive() {
            return false;
        }
        if let Ok(connected) = Qmp::connect(socket, PATIENCE).await {
            break connected;
        }
        tokio::time::sleep(wait).await;
    };
    if ability.accel == Accel::Tcg {
        return true;
    }
    let kvm = qmp.execute("query-kvm", Value::Null).await.unwrap_or_default();
    if kvm.get("enabled").and_then(Value::as_bool) != Some(true) {
        return false;
    }
    let mut shown = Duration::ZERO;
    while shown < PROOF {
        if !matches!(qmp.run_state().await, Ok(RunState::Running)) {
            return false;
        }
        tokio::time::sleep(wait).await;
        shown = shown.saturating_add(wait);
    }
    true
}
