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
/// [`Failure`] if something does not end.
pub async fn run(dir: &Path, printer: Printer) -> Result<(), Failure> {
    let layout = Layout::open(dir)?;
    let _lock = super::up::lock(&layout)?;
    let mut processes = Processes::read(&layout)?;
    let bar = printer.progress("stopping");
    // Agents and authority, then VMs, then TPMs: what was acknowledged is written down before.
    for tpms in [false, true] {
        let roles: Vec<String> =
            processes.0.keys().filter(|role| role.ends_with("-tpm") == tpms).cloned().collect();
        for role in roles {
            bar.set_message(format!("stopping {role}"));
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
    let lab = layout.run().into_os_string().into_encoded_bytes();
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
        if arguments.windows(lab.len()).any(|part| part == lab) {
            found.push((order, process));
        }
    }
    found.sort_by_key(|(order, _)| *order);
    found.into_iter().map(|(_, process)| process).collect()
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
