//! `lab down`: agents and authority, their VMs, the TPMs, in this order; then the sockets.

use std::{path::Path, time::Duration};

use serve::process::ProcessId;

use super::{layout::Layout, record::Processes};
use crate::output::{Failure, Printer};

/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);

/// Ends everything that `up` and the agents started.
///
/// # Errors
/// [`Failure`] if there was never a lab, or something does not end.
pub async fn run(dir: &Path, printer: Printer) -> Result<(), Failure> {
    let layout = Layout::existing(dir)?;
    let _lock = super::up::lock(&layout)?;
    let mut processes = Processes::read(&layout)?;
    let bar = printer.progress("stopping");
    // Agents and authority, then VMs, then TPMs: what was acknowledged is written down before.
    for tpms in [false, true] {
        let roles: Vec<String> =
            processes.0.keys().filter(|role| role.ends_with("-tpm") == tpms).cloned().collect();
        for role in roles {
            bar.phase(format!("stopping {role}"));
            if let Some(process) = processes.0.remove(&role) {
                process.stop(GRACE).await?;
            }
        }
        for process in guests(&layout) {
            process.stop(GRACE).await?;
        }
    }
    processes.write(&layout)?;
    serve::fsfile::remove(&layout.lab_json())?;
    remove_sockets(&layout);
    bar.finish_and_clear();
    printer.result(&serde_json::json!({"down": layout.dir}), "the lab is down")
}

/// Processes of VMs: those that name the lab's sockets in their arguments. They are found without
/// their agents, which may be dead. QEMU first, so that no guest writes to a volume that is gone.
fn guests(layout: &Layout) -> Vec<ProcessId> {
    let mut found: Vec<(u8, ProcessId)> = Vec::new();
    let run = layout.run().into_os_string().into_encoded_bytes();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let Some(process) = ProcessId::find(pid) else { continue };
        let Ok(arguments) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let program = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
        let order = match program.rsplit(|byte| *byte == b'/').next().unwrap_or_default() {
            b"qemu-system-x86_64" => 0,
            b"vouchsafe-vtpm" => 1,
            b"vouchsafe-disk" => 2,
            _ => continue,
        };
        if names_a_socket_in(&run, &arguments) {
            found.push((order, process));
        }
    }
    found.sort_by_key(|(order, _)| *order);
    found.into_iter().map(|(_, process)| process).collect()
}

/// Whether one of `arguments` (as in `/proc/PID/cmdline`) names a file below `run`: the path begins
/// an argument or a value in one (`path=...`, `unix:...`), and goes on below the folder. A lab whose
/// path ends in this one's is another lab.
fn names_a_socket_in(run: &[u8], arguments: &[u8]) -> bool {
    arguments.windows(run.len()).enumerate().filter(|(_, part)| *part == run).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| arguments.get(before));
        let after = arguments.get(at.saturating_add(run.len()));
        matches!(before, None | Some(0 | b'=' | b':' | b'"')) && after == Some(&b'/')
    })
}

fn remove_sockets(layout: &Layout) {
    let gone = |removed: std::io::Result<()>| match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "sockets are left over");
        }
        _ => {}
    };
    gone(std::fs::remove_dir_all(layout.run()));
    gone(std::fs::remove_file(layout.centre().join("state").join(model::centre::SOCKET)));
    // A trust service has its operators' socket in its state.
    let hosts = std::fs::read_dir(layout.dir.join("hosts")).into_iter().flatten().flatten();
    for host in hosts {
        gone(std::fs::remove_file(
            host.path().join("trust/state").join(model::keys::admin::SOCKET),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(run: &str, arguments: &[&str]) -> bool {
        names_a_socket_in(run.as_bytes(), arguments.join("\0").as_bytes())
    }

    #[test]
    fn a_vm_of_this_lab_is_found_by_its_sockets() {
        let qemu = ["qemu-system-x86_64", "-qmp", "unix:/tmp/lab/run/a/v1/qmp.sock,server=on"];
        assert!(named("/tmp/lab/run", &qemu));
        assert!(named("/tmp/lab/run", &["vouchsafe-disk", "--socket", "/tmp/lab/run/a/v1/d.sock"]));
        let chardev = ["qemu", "-chardev", "socket,id=t,path=/tmp/lab/run/a/v1/t.sock"];
        assert!(named("/tmp/lab/run", &chardev));
        assert!(named("/tmp/lab/run", &["qemu", "{\"path\":\"/tmp/lab/run/x\"}"]));
    }

    #[test]
    fn a_vm_of_another_lab_is_left_alone() {
        let qemu = ["qemu-system-x86_64", "-qmp", "unix:/tmp/lab/run/a/v1/qmp.sock,server=on"];
        assert!(!named("/lab/run", &qemu));
        assert!(!named("/tmp/la/run", &qemu));
        assert!(!named("/tmp/lab/ru", &qemu));
        assert!(!named("/tmp/lab/run", &["qemu", "unix:/tmp/lab/run2/qmp.sock"]));
        assert!(!named("/tmp/lab/run", &["qemu", "unix:/srv/tmp/lab/run/qmp.sock"]));
    }

    #[tokio::test]
    async fn what_never_was_a_lab_is_an_error_and_is_left_as_it_is() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let failed = run(dir.path(), Printer::new(true)).await.unwrap_err();
        assert!(matches!(failed, Failure::Error { .. }), "{failed:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
