//! `vouchsafe authority ...`.

use std::{ffi::OsStr, io::IsTerminal as _, path::Path, process::Command};

use model::api::operate::AuthorityStatus;
use serve::exit::Exit;

use crate::{
    args::Authority,
    client::Target,
    lab::components::Programs,
    output::{Failure, Printer},
};

pub(super) async fn run(
    verb: &Authority,
    target: impl FnOnce() -> Result<Target, Failure>,
    printer: Printer,
) -> Result<Exit, Failure> {
    match verb {
        Authority::Init { authority_config } => local(authority_config, "init", &[], printer),
        Authority::Backup { authority_config, out } => {
            let words = [OsStr::new("--out"), out.as_os_str()];
            local(authority_config, "backup", &words, printer)
        }
        Authority::Restore { authority_config, backup, longest_lease } => {
            let lease = longest_lease.to_string();
            let mut words = vec![OsStr::new("--longest-lease"), OsStr::new(&lease)];
            if let Some(file) = backup {
                words.extend([OsStr::new("--backup"), file.as_os_str()]);
            }
            if std::io::stdin().is_terminal() {
                printer.say("enter the shares, one a line, then Ctrl-D");
            }
            local(authority_config, "restore", &words, printer)
        }
        Authority::Status => {
            let status: AuthorityStatus = target()?.authority()?.get("/v1/status").await?;
            let mut text = format!(
                "vouchsafe-authority {}: {} hosts, {} VMs\nstore: incarnation {}, revision {}, \
                 anchored at {}\naudit log: {} entries\nassurance: {}",
                status.version,
                status.hosts,
                status.vms,
                status.incarnation,
                status.revision,
                status.anchor,
                status.audit_entries,
                status.assurance,
            );
            if let Some(until) = status.quiet_until {
                text.push_str(&format!(
                    "\nrestored: nothing is granted until {until} (Unix milliseconds), when the \
                     leases of the lost authority have ended"
                ));
            }
            printer.result(&status, &text)?;
            Ok(Exit::Done)
        }
    }
}

/// What is done on the authority's own machine is done by its own program: nothing that it reads or
/// prints passes through here.
pub(super) fn local(
    config: &Path,
    verb: &str,
    words: &[&OsStr],
    printer: Printer,
) -> Result<Exit, Failure> {
    let program = Programs::beside_this()?.authority;
    let json = printer.is_json().then_some("--json");
    let status = Command::new(&program)
        .args([verb, "--config"])
        .arg(config)
        .args(json)
        .args(words)
        .status()?;
    Ok(match status.code() {
        Some(0) => Exit::Done,
        Some(2) => Exit::Usage,
        Some(3) => Exit::Refused,
        Some(_) | None => Exit::Failed,
    })
}
