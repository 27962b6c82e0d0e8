//! Refusals and events of the agent, kept durably until the authority's audit log has them.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use model::{
    VmId,
    api::operate::{HostEvent, HostEvents},
};
use serve::{
    fsfile::{self, FileError},
    shutdown::Shutdown,
};
use tokio::sync::Notify;

use crate::identity::Link;

/// The most events of one delivery.
const BATCH: usize = 256;

/// The most events that are kept; beyond it the oldest stay and new ones are only logged.
const KEPT: usize = 10_000;

/// The longest event file.
const LIMIT: usize = 64 << 10;

/// The spool's directory.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    next: Mutex<u64>,
    added: Notify,
}

impl Spool {
    /// Opens the spool.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn open(state_dir: &Path) -> Result<Self, FileError> {
        let dir = state_dir.join("spool");
        fsfile::create_private_dir(&dir)?;
        let stored = match fsfile::read_limited(&dir.join("next"), 32) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim().parse().unwrap_or(1),
            Err(error) if error.is_missing() => 1,
            Err(error) => return Err(error),
        };
        let spool = Self { dir, next: Mutex::new(stored), added: Notify::new() };
        if let Some(last) = spool.list().last() {
            let mut next = spool.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next = (*next).max(last.saturating_add(1));
        }
        Ok(spool)
    }

    /// Sequence numbers that are waiting, in order.
    fn list(&self) -> Vec<u64> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut waiting: Vec<u64> = entries
            .filter_map(|e| e.ok()?.file_name().to_str()?.strip_suffix(".json")?.parse().ok())
            .collect();
        waiting.sort_unstable();
        waiting
    }

    /// How many events wait.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.list().len()).unwrap_or(u64::MAX)
    }

    /// Adds an event; it survives a power cut once this returns. A spool that cannot be written is
    /// said in the log: it must not keep the agent from refusing.
    pub(crate) fn add(
        &self,
        at: u64,
        vm: Option<&VmId>,
        event: &str,
        refused: Option<&str>,
        detail: &str,
    ) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = HostEvent {
            seq: *next,
            at,
            vm: vm.cloned(),
            event: event.to_owned(),
            refused: refused.map(str::to_owned),
            detail: detail.chars().take(2000).collect(),
        };
        tracing::warn!(event, refused, vm.id = vm.map(VmId::as_str), detail, "spooled");
        if self.list().len() >= KEPT {
            tracing::error!("the spool is full");
            return;
        }
        match self.write(&entry) {
            Ok(()) => *next = next.saturating_add(1),
            Err(error) => tracing::error!(error = serve::exit::chain(&error), "cannot spool"),
        }
        self.added.notify_one();
    }

    /// The number is used up before the event is there, so that none is used twice.
    fn write(&self, event: &HostEvent) -> Result<(), FileError> {
        let after = event.seq.saturating_add(1).to_string();
        fsfile::write_atomic(&self.dir.join("next"), after.as_bytes(), 0o600)?;
        let bytes = serde_json::to_vec(event).unwrap_or_default();
        fsfile::write_atomic(&self.file(event.seq), &bytes, 0o600)
    }

    fn file(&self, seq: u64) -> PathBuf {
        self.dir.join(format!("{seq:020}.json"))
    }

    fn batch(&self) -> Vec<HostEvent> {
        let waiting = self.list().into_iter().take(BATCH);
        waiting
            .filter_map(|seq| {
                let bytes = fsfile::read_limited(&self.file(seq), LIMIT).ok()?;
                serde_json::from_slice(&bytes).ok()
            })
            .collect()
    }

    /// Delivers events whenever there are some and a session, until `shutdown`.
    pub(crate) async fn deliver(&self, link: &Link, shutdown: &Shutdown) {
        let mut sessions = link.watch();
        loop {
            let events = self.batch();
            if events.is_empty() {
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = self.added.notified() => continue,
                }
            }
            let seqs: Vec<u64> = events.iter().map(|e| e.seq).collect();
            let sent = match link.session() {
                Ok(session) => {
                    let body = HostEvents { events };
                    session
                        .client
                        .post::<_, serde_json::Value>("/v1/audit", &body)
                        .await
                        .map_err(|e| e.to_string())
                }
                Err(trouble) => Err(trouble.to_string()),
            };
            match sent {
                Ok(_) => {
                    for seq in seqs {
                        // One that stays is delivered again, which the authority ignores.
                        let _ = fsfile::remove(&self.file(seq));
                    }
                }
                Err(error) => {
                    tracing::debug!(error, "events stay spooled");
                    tokio::select! {
                        () = shutdown.requested() => return,
                        _ = sessions.changed() => {}
                        () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_a_restart_in_order_and_numbers_are_never_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        spool.add(1, None, "vm-start", Some("lease-ended"), "first");
        spool.add(2, None, "vm-start", None, "second");
        let spool = Spool::open(dir.path()).unwrap();
        let batch = spool.batch();
        assert_eq!(batch.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(batch[0].refused.as_deref(), Some("lease-ended"));
        for event in &batch {
            fsfile::remove(&spool.file(event.seq)).unwrap();
        }
        let spool = Spool::open(dir.path()).unwrap();
        spool.add(3, None, "vm-start", None, "third");
        assert_eq!(spool.batch()[0].seq, 3);
    }
}
