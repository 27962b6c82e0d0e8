//! The clock of the running volumes: it looks after their disk processes, and now and then advances
//! those that were written to. What a running VM wrote can be put back only as far as the last
//! advance.
//!
//! ```text
//!   every watch_seconds:   status of each disk process; damage that a guest met -> audit log
//!   every advance_seconds: headers of all that were written to -> one increment of the TPM
//! ```
//!
//! **Invariants:** however many volumes run, the clock costs one increment in `advance_seconds`, and
//! none if nothing was written; damage is told once for each disk process.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use model::{
    VmId,
    child::disk::{Reply, Request, Status},
};
use serve::shutdown::Shutdown;
use tokio::task::JoinSet;

use super::attached::{Next, Party};
use crate::{child::ask_disk, host::Host, plan::VmPaths, registry::Registry, trouble::Trouble};

/// How long a disk process may take to answer; making everything durable takes longest.
const ANSWER: Duration = Duration::from_secs(20);

/// A vault volume that is served.
#[derive(Debug)]
struct Served {
    vm: VmId,
    name: String,
    control: PathBuf,
    status: Status,
}

/// What is remembered of one.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    pid: u32,
    /// Changes that its last advance covered.
    covered: u64,
    told: bool,
}

/// Follows the running volumes until `shutdown`.
pub(crate) async fn follow(host: Arc<Host>, registry: Arc<Registry>, shutdown: Shutdown) {
    let limits = &host.config.limits;
    let (look, every) = (limits.watch_seconds, Duration::from_secs(limits.advance_seconds));
    let mut seen = BTreeMap::new();
    let mut advanced = host.clock.monotonic();
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(Duration::from_secs(look)) => {}
        }
        let served = served(&host, &registry).await;
        seen.retain(|name, _| served.iter().any(|volume| volume.name == *name));
        for volume in &served {
            let seen: &mut Seen = seen.entry(volume.name.clone()).or_default();
            if seen.pid != volume.status.pid {
                *seen = Seen { pid: volume.status.pid, ..Seen::default() };
            }
            tell_damage(&host, volume, seen);
        }
        let now = host.clock.monotonic();
        if now.saturating_sub(advanced) >= every {
            advanced = now;
            advance(&host, &served, &mut seen).await;
        }
    }
}

/// All vault volumes whose disk processes answer.
async fn served(host: &Host, registry: &Registry) -> Vec<Served> {
    let mut asked = JoinSet::new();
    for (vm, handle) in registry.all() {
        let paths = VmPaths::new(&host.config, &vm);
        for (volume, name) in handle.shown.borrow().anchored.clone() {
            let (vm, control) = (vm.clone(), paths.disk_control(volume));
            asked.spawn(async move {
                match ask_disk(&control, Request::Status {}, ANSWER).await {
                    Ok(Reply::Status(status)) => {
                        Some(Served { vm, name, control, status: *status })
                    }
                    // It is being started or ended, or its end is about to be noticed.
                    Ok(_) | Err(_) => None,
                }
            });
        }
    }
    asked.join_all().await.into_iter().flatten().collect()
}

/// Damage goes to the audit log, once.
fn tell_damage(host: &Host, volume: &Served, seen: &mut Seen) {
    let Some(damage) = volume.status.damage.as_ref().filter(|_| !seen.told) else { return };
    seen.told = true;
    let detail = format!(
        "{}: at byte {}: {}; the guest got an I/O error",
        volume.name, damage.position, damage.detail
    );
    let at = host.clock.unix_ms();
    host.spool.add(at, Some(&volume.vm), "vm-disk", Some(&damage.code), &detail);
}

/// Changes since the disk process began.
const fn changes(status: &Status) -> u64 {
    let counters = &status.counters;
    counters.writes.saturating_add(counters.trims).saturating_add(counters.zeroes)
}

/// Advances what was written to, all of it with one increment.
async fn advance(host: &Host, served: &[Served], seen: &mut BTreeMap<String, Seen>) {
    let due = |volume: &&Served| {
        seen.get(&volume.name).is_none_or(|seen| seen.covered != changes(&volume.status))
    };
    let due: Vec<_> = served.iter().filter(due).collect();
    // A volume that is just being started or ended is advanced by that.
    let (due, mut parties): (Vec<&Served>, Vec<Party>) = due
        .into_iter()
        .filter_map(|volume| {
            let header = volume.status.anchor_count?;
            let held = host.anchors.try_hold(&volume.name, volume.control.clone(), header)?;
            Some((volume, held))
        })
        .unzip();
    if parties.is_empty() {
        return;
    }
    let key = match host.guard.host_key().await {
        Ok(key) => key,
        Err(trouble) => return tracing::info!(%trouble, "no advance of the volumes' counts"),
    };
    let results = host.anchors.take_on(&key, &mut parties, Next::Advance, ANSWER).await;
    drop(parties);
    let count = results.iter().filter(|result| result.is_ok()).count();
    tracing::info!(count, due = due.len(), "volumes advanced");
    for (volume, result) in due.into_iter().zip(results) {
        match result {
            Ok(()) => {
                if let Some(seen) = seen.get_mut(&volume.name) {
                    seen.covered = changes(&volume.status);
                }
            }
            Err(trouble) => failed(host, volume, &trouble),
        }
    }
}

fn failed(host: &Host, volume: &Served, trouble: &Trouble) {
    tracing::warn!(vm.id = %volume.vm, volume = volume.name, %trouble, "the volume keeps its count");
    if let (Some(name), true) = (&trouble.reason.refused, trouble.ours) {
        let (at, detail) = (host.clock.unix_ms(), &trouble.reason.detail);
        host.spool.add(at, Some(&volume.vm), "vm-advance", Some(name), detail);
    }
}
