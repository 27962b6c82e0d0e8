//! `vouchsafe authority ...`.

use std::process::Command;

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
        Authority::Init { authority_config } => {
            let program = Programs::beside_this()?.authority;
            let status = Command::new(&program)
                .arg("init")
                .arg("--config")
                .arg(authority_config)
                .status()?;
            Ok(match status.code() {
                Some(0) => Exit::Done,
                Some(2) => Exit::Usage,
                Some(3) => Exit::Refused,
                Some(_) | None => Exit::Failed,
            })
        }
        Authority::Status => {
            let status: AuthorityStatus = target()?.authority()?.get("/v1/status").await?;
            let text = format!(
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
            printer.result(&status, &text)?;
            Ok(Exit::Done)
        }
    }
}
