//! Whether KVM runs a machine here: that `/dev/kvm` opens proves nothing. As the agents do it, the
//! firmware is run by QEMU with KVM, and after a moment it must still be running.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// How long a machine must run to count as running.
const PROOF: Duration = Duration::from_millis(1200);
/// How long QEMU may take to answer and end after that.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at its end.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the firmware `code` for a moment.
///
/// # Errors
/// Why KVM is not used here, in words.
pub(super) fn probe(qemu: Option<&Path>, code: &Path) -> Result<(), String> {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map_err(|error| format!("/dev/kvm: {error}"))?;
    let qemu = qemu.ok_or("/dev/kvm opens, but there is no QEMU to try it with")?;
    let answer = run(qemu, code).map_err(|error| format!("QEMU cannot be tried: {error}"))?;
    running(&answer)
}

fn run(qemu: &Path, code: &Path) -> std::io::Result<String> {
    let mut machine = Command::new(qemu)
        .args(["-machine", "q35,smm=off", "-accel", "kvm", "-cpu", "max", "-m", "64M"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-monitor", "stdio", "-drive"])
        .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={}", code.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(PROOF);
    if let Some(mut monitor) = machine.stdin.take() {
        // If it has ended, its silence says so.
        let _ended = monitor.write_all(b"info status\nquit\n");
    }
    end(&mut machine)?;
    let mut answer = Vec::new();
    if let Some(mut stdout) = machine.stdout.take() {
        stdout.read_to_end(&mut answer)?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn end(machine: &mut Child) -> std::io::Result<()> {
    let mut waited = Duration::ZERO;
    while machine.try_wait()?.is_none() {
        if waited >= PATIENCE {
            machine.kill()?;
            machine.wait()?;
            break;
        }
        std::thread::sleep(LOOK);
        waited = waited.saturating_add(LOOK);
    }
    Ok(())
}

/// By what QEMU's monitor says.
fn running(answer: &str) -> Result<(), String> {
    match answer.lines().find_map(|line| line.trim().strip_prefix("VM status: ")) {
        Some("running") => Ok(()),
        Some(other) => Err(format!("/dev/kvm opens, but a machine does not run by it: {other}")),
        None => Err("/dev/kvm opens, but QEMU ends when it is to use it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_that_still_runs_counts() {
        let said = |status: &str| format!("QEMU 7.2 monitor\r\n(qemu) info status\r\n{status}\r\n");
        assert_eq!(running(&said("VM status: running")), Ok(()));
        let failed = running(&said("VM status: paused (internal-error)")).unwrap_err();
        assert!(failed.contains("internal-error"));
        assert!(running("").is_err());
    }
}
