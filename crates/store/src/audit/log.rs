//! The log while it runs: one writer thread with group commit, readers on the files.

mod writer;

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
};

use model::{AuditEntry, AuditEvent, Digest};
use tokio::sync::{mpsc, oneshot};

use super::{
    AuditError, AuditRejection, MAX_ENVELOPE, MAX_LINE, TreeHead,
    bundle::Bundle,
    recover::{append_to, failed, read_checkpoints, recover, segments},
    tree::{Hash, Tree},
    verify::each_line,
};
use crate::error::StoreError;
use writer::{Job, Writer};

/// Most entries that [`AuditLog::read`] answers.
const MAX_READ: usize = 10_000;
/// Requests that may wait.
const QUEUE: usize = 2048;

/// What opening the log found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Entries before this start.
    pub entries: u64,
    /// Whole entries that had not been answered before a crash, and were kept.
    pub kept: u64,
    /// Bytes of entries that had not been answered, and were dropped; there is an entry
    /// `audit-log-repaired` about them.
    pub dropped: u64,
}

/// The audit log of one directory. One process may have it open.
#[derive(Debug)]
pub struct AuditLog {
    dir: PathBuf,
    tree: Arc<RwLock<Tree>>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: tokio::sync::Mutex<oneshot::Receiver<()>>,
}

impl AuditLog {
    /// Opens the log in `dir`, or makes it; repairs what a crash left. `now` is the time of the
    /// entry about the repair, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`AuditError::Rejected`] if the newest segment was altered, [`StoreError::Locked`] if
    /// another process has the log open, [`StoreError::Io`].
    pub fn open(dir: &Path, now: u64) -> Result<(Self, Recovery), AuditError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(failed("create", dir))?;
        let lock = lock(dir)?;
        let recovered = recover(dir)?;
        let recovery = Recovery {
            entries: recovered.tree.size(),
            kept: recovered.kept,
            dropped: recovered.dropped,
        };
        let tree = Arc::new(RwLock::new(recovered.tree.clone()));
        let mut writer = Writer::new(dir, lock, recovered, Arc::clone(&tree))?;
        if recovery.dropped > 0 {
            writer.append(vec![repaired(now, &recovery).bounded()?])?;
        }
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("audit-writer".to_owned());
        let thread = thread.spawn(move || {
            writer.drain(jobs);
            drop(writer);
            let _ = end.send(());
        });
        let log = Self {
            dir: dir.to_owned(),
            tree,
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread.map_err(failed("start the writer of", dir))?)),
            ended: tokio::sync::Mutex::new(ended),
        };
        Ok((log, recovery))
    }

    /// Records an event; it is durable when this answers.
    ///
    /// # Errors
    /// [`AuditError::Event`] if a name is not kebab-case; else the log is closed or has failed.
    pub async fn append(&self, event: AuditEvent) -> Result<AuditEntry, AuditError> {
        let event = event.bounded()?;
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Append(event, reply)).await?;
        Ok(answer.await.map_err(|_| StoreError::Failed)??)
    }

    /// Records a signed checkpoint or head: its envelope as JSON without newlines.
    ///
    /// # Errors
    /// [`AuditRejection::Malformed`] if it is not one line of JSON of at most [`MAX_ENVELOPE`]
    /// bytes; else the log is closed or has failed.
    pub async fn record_checkpoint(&self, envelope: &str) -> Result<(), AuditError> {
        let parses = serde_json::from_str::<serde_json::Value>(envelope).is_ok();
        if envelope.len() > MAX_ENVELOPE || envelope.contains('\n') || !parses {
            let what = "a checkpoint is one line of JSON of at most 16384 bytes".to_owned();
            return Err(AuditRejection::Malformed { what }.into());
        }
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Checkpoint(envelope.to_owned(), reply)).await?;
        Ok(answer.await.map_err(|_| StoreError::Failed)??)
    }

    async fn submit(&self, job: Job) -> Result<(), AuditError> {
        let queue = held(&self.queue).clone().ok_or(StoreError::Closed)?;
        Ok(queue.send(job).await.map_err(|_| StoreError::Failed)?)
    }

    /// Size and root of what is durable.
    #[must_use]
    pub fn tree_head(&self) -> TreeHead {
        self.with_tree(Tree::head)
    }

    /// Root over the first `size` entries, if there are so many.
    #[must_use]
    pub fn root_at(&self, size: u64) -> Option<Digest> {
        self.with_tree(|tree| tree.root_at(size)).map(Digest::sha256)
    }

    /// Proof that entry `seq` is among the first `size`.
    #[must_use]
    pub fn inclusion(&self, seq: u64, size: u64) -> Option<Vec<Hash>> {
        self.with_tree(|tree| tree.inclusion(seq, size))
    }

    /// Proof that the first `old` entries are the beginning of the first `new`.
    #[must_use]
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        self.with_tree(|tree| tree.consistency(old, new))
    }

    fn with_tree<T>(&self, f: impl FnOnce(&Tree) -> T) -> T {
        f(&self.tree.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Entries from `from` on, at most `limit` and 10,000. Reads files in the caller's task.
    ///
    /// # Errors
    /// [`AuditError::Rejected`] if a line is no entry, [`AuditError::Store`] if it cannot be read.
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<AuditEntry>, AuditError> {
        let count = u64::try_from(limit.min(MAX_READ)).unwrap_or(u64::MAX);
        let end = self.tree_head().size.min(from.saturating_add(count));
        let mut entries = Vec::new();
        self.each(from..end, |seq, line| {
            let text = std::str::from_utf8(line).ok();
            let entry = text.and_then(|text| AuditEntry::from_line(text).ok());
            entries.push(entry.ok_or(AuditRejection::EntryAltered { seq })?);
            Ok(())
        })?;
        Ok(entries)
    }

    /// Calls `f` with the lines of these entries.
    fn each(
        &self,
        range: std::ops::Range<u64>,
        mut f: impl FnMut(u64, &[u8]) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let segments = segments(&self.dir)?;
        let ends = segments.iter().skip(1).map(|next| next.first).chain([u64::MAX]);
        for (segment, end) in segments.iter().zip(ends) {
            if end <= range.start || segment.first >= range.end {
                continue;
            }
            let mut seq = segment.first;
            each_line(&segment.path, MAX_LINE, |line, _| {
                if range.contains(&seq) {
                    f(seq, line)?;
                }
                seq = seq.saturating_add(1);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The recorded checkpoints, oldest first.
    ///
    /// # Errors
    /// [`AuditError`] if they cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<String>, AuditError> {
        read_checkpoints(&self.dir)
    }

    /// Writes the first `size` entries to one file, and to another the recorded checkpoints with
    /// the stored leaf hashes, for [`super::verify_files`]. Reads and writes in the caller's task.
    ///
    /// # Errors
    /// [`AuditRejection::EntryMissing`] if there are fewer; [`AuditError::Store`].
    pub fn export(&self, size: u64, entries: &Path, checkpoint: &Path) -> Result<(), AuditError> {
        let leaves = self.with_tree(|tree| tree.leaves().to_vec());
        let count = usize::try_from(size).ok().filter(|count| *count <= leaves.len());
        let missing = AuditRejection::EntryMissing { seq: self.tree_head().size };
        let count = count.ok_or(missing)?;
        let out = File::create(entries).map_err(failed("create", entries))?;
        let mut out = io::BufWriter::new(out);
        self.each(0..size, |_, line| {
            let written = out.write_all(line).and_then(|()| out.write_all(b"\n"));
            Ok(written.map_err(failed("write", entries))?)
        })?;
        out.flush().map_err(failed("write", entries))?;
        let leaves = leaves.into_iter().take(count).collect();
        let lines = Bundle { envelopes: self.checkpoints()?, leaves }.lines();
        let lines = lines.map_err(|error| AuditRejection::Malformed { what: error.to_string() })?;
        let text = lines.into_iter().fold(String::new(), |text, line| text + &line + "\n");
        Ok(fs::write(checkpoint, text).map_err(failed("write", checkpoint))?)
    }

    /// Answers what is queued, then releases the directory. Later appends fail with `Closed`.
    pub async fn close(&self) {
        held(&self.queue).take();
        let _ = (&mut *self.ended.lock().await).await;
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        held(&self.queue).take();
        if let Some(thread) = held(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let file = append_to(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: dir.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

fn repaired(now: u64, recovery: &Recovery) -> AuditEvent {
    let detail = format!(
        "after a crash: {} bytes that were never acknowledged were dropped, {} whole entries kept",
        recovery.dropped, recovery.kept
    );
    AuditEvent::done(now, "authority", "audit-log-repaired", "audit-log").detail(detail)
}

#[cfg(test)]
mod tests;
