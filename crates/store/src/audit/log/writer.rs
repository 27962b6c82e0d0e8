//! The writer thread of the log: takes all that waits, writes and syncs the lines, then the leaf
//! hashes, then answers. It stops for good when a file fails.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use model::{AuditEntry, AuditEvent};
use tokio::sync::{mpsc, oneshot};

use crate::{
    audit::{
        recover::{Recovered, Segment, append_to, checkpoints_path, failed, leaves_path},
        tree::{Hash, Tree, leaf_hash},
    },
    error::StoreError,
};

/// Most entries in one batch.
const BATCH: usize = 512;
/// A segment is followed by the next after so many entries or bytes.
const SEGMENT_ENTRIES: u64 = 65_536;
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Job {
    Append(AuditEvent, Reply<AuditEntry>),
    Checkpoint(String, Reply<()>),
}

/// The files, held by the one thread that writes them.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    segment: Segment,
    segment_bytes: u64,
    entries: File,
    leaves: File,
    checkpoints: File,
    tree: Arc<RwLock<Tree>>,
    size: u64,
    _lock: File,
}

impl Writer {
    pub(super) fn new(
        dir: &Path,
        lock: File,
        recovered: Recovered,
        tree: Arc<RwLock<Tree>>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            dir: dir.to_owned(),
            entries: append_to(&recovered.segment.path)?,
            segment: recovered.segment,
            segment_bytes: recovered.segment_bytes,
            leaves: append_to(&leaves_path(dir))?,
            checkpoints: append_to(&checkpoints_path(dir))?,
            size: recovered.tree.size(),
            tree,
            _lock: lock,
        })
    }

    pub(super) fn drain(&mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let (mut events, mut replies, mut checkpoints) = (Vec::new(), Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Append(event, reply) => {
                        events.push(event);
                        replies.push(reply);
                    }
                    Job::Checkpoint(envelope, reply) => checkpoints.push((envelope, reply)),
                }
                if events.len() < BATCH && checkpoints.len() < BATCH {
                    next = jobs.try_recv().ok();
                }
            }
            let appended = self.append(events);
            let healthy = appended.is_ok() && self.record(checkpoints);
            answer(replies, appended);
            if !healthy {
                return;
            }
        }
    }

    /// Writes entries, durably; splits them where a segment ends.
    pub(super) fn append(
        &mut self,
        events: Vec<AuditEvent>,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let mut entries = Vec::with_capacity(events.len());
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            self.roll()?;
            let room = SEGMENT_ENTRIES.saturating_sub(self.size.saturating_sub(self.segment.first));
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let batch: Vec<AuditEvent> = events.by_ref().take(room).collect();
            entries.extend(self.write(batch)?);
        }
        Ok(entries)
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        let count = self.size.saturating_sub(self.segment.first);
        if count < SEGMENT_ENTRIES && self.segment_bytes < SEGMENT_BYTES {
            return Ok(());
        }
        self.segment = Segment::new(&self.dir, self.size);
        self.segment_bytes = 0;
        self.entries = append_to(&self.segment.path)?;
        Ok(())
    }

    fn write(&mut self, events: Vec<AuditEvent>) -> Result<Vec<AuditEntry>, StoreError> {
        let mut entries = Vec::with_capacity(events.len());
        let mut hashes: Vec<Hash> = Vec::with_capacity(events.len());
        let mut lines = String::new();
        for (seq, event) in (self.size..).zip(events) {
            let entry = event.at_seq(seq);
            let line = entry.to_line().map_err(|e| StoreError::corrupt(e.to_string()))?;
            hashes.push(leaf_hash(line.as_bytes()));
            lines.push_str(&line);
            lines.push('\n');
            entries.push(entry);
        }
        let (segment, leaves) = (&self.segment.path, leaves_path(&self.dir));
        write_synced(&mut self.entries, lines.as_bytes()).map_err(failed("append to", segment))?;
        write_synced(&mut self.leaves, hashes.as_flattened())
            .map_err(failed("append to", &leaves))?;
        self.segment_bytes =
            self.segment_bytes.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        hashes.into_iter().for_each(|hash| tree.push(hash));
        self.size = tree.size();
        Ok(entries)
    }

    fn record(&mut self, checkpoints: Vec<(String, Reply<()>)>) -> bool {
        for (envelope, reply) in checkpoints {
            let path = checkpoints_path(&self.dir);
            let written = write_synced(&mut self.checkpoints, (envelope + "\n").as_bytes());
            let written = written.map_err(failed("append to", &path));
            let healthy = written.is_ok();
            // A caller that stopped waiting has no use for the answer.
            let _ = reply.send(written);
            if !healthy {
                return false;
            }
        }
        true
    }
}

fn write_synced(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes)?;
    file.sync_data()
}

fn answer(replies: Vec<Reply<AuditEntry>>, appended: Result<Vec<AuditEntry>, StoreError>) {
    match appended {
        Ok(entries) => {
            for (reply, entry) in replies.into_iter().zip(entries) {
                let _ = reply.send(Ok(entry));
            }
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "audit.append-failed");
            for reply in replies {
                let _ = reply.send(Err(StoreError::Failed));
            }
        }
    }
}
