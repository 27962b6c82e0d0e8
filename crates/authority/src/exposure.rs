//! Marks on VMs whose keys were on a host that turned bad.
//!
//! The mark says since when, when, where and why; `vm show` has it, and so has the audit log. It
//! goes with the keys: a fence moves the epoch and makes the VM anew from its image, under keys that
//! the host never had. **Deliberately absent:** anything that acts on the mark by itself. Re-keying
//! a volume under a running VM and another vTPM identity come later; until then an operator fences.

use model::{HostId, api::vm::Exposure};

use crate::{
    app::App,
    audit::{Actor, Done},
    failure::Failure,
    record::{
        host::HostRecord,
        vm::{VmRecord, VmRejection},
    },
    routes::vms::subject_of,
};

/// When the host was last known to be good: the time of its last good verdict.
pub(crate) fn last_good(host: &HostRecord) -> Option<u64> {
    let standing = host.standing.as_ref()?;
    standing.good.as_ref().map(|_| standing.at)
}

/// Marks every VM that the host has keys of. Repeatable: an earlier mark stays.
///
/// # Errors
/// [`Failure`]; some may be marked all the same.
pub(crate) async fn mark(
    app: &App,
    host: &HostId,
    since: u64,
    reason: &str,
) -> Result<(), Failure> {
    let exposure = Exposure { since, at: app.now(), host: host.clone(), reason: reason.to_owned() };
    for vm in app.records.vms().await? {
        let name = vm.spec.name;
        let exposed = |vm: &VmRecord| {
            Ok::<_, VmRejection>(vm.exposed_by(&exposure).unwrap_or_else(|| vm.clone()))
        };
        let (before, after) = app.change_vm(&name, exposed).await?;
        if after != before {
            let detail = format!("by {host}, which was last good at {since}: {reason}");
            let done = Done::new("vm-exposed", subject_of(&name)).detail(detail);
            app.audit.done(&Actor::authority(), done).await?;
        }
    }
    Ok(())
}
