//! One counter for all volumes of a host: a file of virtual counters, authenticated, that is itself
//! anchored in the host's one real counter by the same protocol.
//!
//! ```text
//!   volume a -> HostTreeAnchor -+
//!   volume b -> HostTreeAnchor -+-> HostTree: file of (uuid, count, head), root, MAC -> TPM counter
//! ```
//!
//! Increments of several volumes that come together share one write and one increment of the real
//! counter. The layout is in `docs/formats/host-anchor.md`.
//!
//! **Invariant:** a virtual count that was given out is durable, and so is the increment of the real
//! counter that covers it.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{Digest, Secret};

use super::{
    Anchor, Anchored, Attachment,
    file::{lock, replace},
    merkle::{self, Proof},
    records::{self, Records, VolumeRecord, record_bytes},
};
use crate::{Rejection, VolumeError};

/// The virtual counters of a host, attached to its real one.
#[derive(Debug)]
pub struct HostTree {
    attachment: Attachment<HostFile>,
    file: Arc<HostFile>,
    /// Serializes commits: who waits for it often finds its change committed.
    commits: Mutex<()>,
    _lock: File,
}

/// The virtual counter of one volume.
#[derive(Debug)]
pub struct HostTreeAnchor {
    tree: Arc<HostTree>,
    volume: [u8; 16],
}

#[derive(Debug)]
struct HostFile {
    path: PathBuf,
    key: Secret<[u8; 32]>,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    /// The count of the file, by the real counter.
    count: u64,
    volumes: BTreeMap<[u8; 16], VolumeRecord>,
    /// Counts the changes in memory.
    changes: u64,
    /// The changes that the file has.
    written: u64,
    /// The changes that the real counter covers.
    covered: u64,
}

impl HostTree {
    /// Attaches the file at `path`, authenticated under `key`, to the host's counter. A file that
    /// does not exist is made if the counter was never used with one: if `first`.
    ///
    /// # Errors
    /// [`Rejection::RolledBack`] or [`Rejection::AnchorMismatch`] for another than the latest file,
    /// [`Rejection::AnchorDamaged`], [`Rejection::InUse`], or the system's error.
    pub fn attach(
        path: &Path,
        key: Secret<[u8; 32]>,
        mut counter: Box<dyn Anchor>,
        first: bool,
    ) -> Result<Self, VolumeError> {
        let lock = lock(path)?;
        let found = match records::read(path, &key) {
            Ok(found) => found,
            Err(VolumeError::Io { source, .. })
                if first && source.kind() == io::ErrorKind::NotFound =>
            {
                let count = counter.read().map_err(VolumeError::io("read the host's counter"))?;
                Records { count, volumes: BTreeMap::new() }
            }
            Err(why) => return Err(why),
        };
        let content = Content { count: found.count, volumes: found.volumes, ..Content::default() };
        let file = Arc::new(HostFile { path: path.to_owned(), key, content: Mutex::new(content) });
        let attachment = Attachment::attach(Arc::clone(&file), counter)?;
        Ok(Self { attachment, file, commits: Mutex::new(()), _lock: lock })
    }

    /// What is recorded of a volume.
    #[must_use]
    pub fn record(&self, volume: &[u8; 16]) -> Option<VolumeRecord> {
        self.file.content().volumes.get(volume).copied()
    }

    /// The root over all records, for a witness elsewhere.
    #[must_use]
    pub fn root(&self) -> Digest {
        merkle::root(&self.file.content().leaves())
    }

    /// A volume's record as the tree hashes it, and its proof against [`root`](Self::root).
    #[must_use]
    pub fn prove(&self, volume: &[u8; 16]) -> Option<(Vec<u8>, Proof)> {
        let content = self.file.content();
        let index = content.volumes.keys().position(|found| found == volume)?;
        let leaves = content.leaves();
        let proof = merkle::proof(&leaves, index)?;
        Some((leaves.into_iter().nth(index)?, proof))
    }

    /// Records a volume as it is now: one that was made, came from another host, or is anchored
    /// anew by somebody who may.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance).
    pub fn set(&self, volume: [u8; 16], record: VolumeRecord) -> Result<(), VolumeError> {
        let change = self.file.change(|volumes| {
            volumes.insert(volume, record);
        });
        self.cover(change)
    }

    /// Forgets a volume that was deleted or goes to another host, which gets the record.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance).
    pub fn remove(&self, volume: &[u8; 16]) -> Result<Option<VolumeRecord>, VolumeError> {
        let mut removed = None;
        let change = self.file.change(|volumes| removed = volumes.remove(volume));
        self.cover(change)?;
        Ok(removed)
    }

    /// Increments a volume's counter if it is `from`, records the head that it now has, and says
    /// whether it did.
    ///
    /// # Errors
    /// [`Rejection::AnchorMismatch`] if the volume is not recorded or somebody else uses the host's
    /// counter; the system's error, with an unknown outcome.
    pub fn advance(
        &self,
        volume: &[u8; 16],
        from: u64,
        head: Option<[u8; 32]>,
    ) -> Result<bool, VolumeError> {
        let mut ours = None;
        let change = self.file.change(|volumes| {
            if let Some(record) = volumes.get_mut(volume) {
                ours = Some(record.count == from);
                if record.count == from {
                    record.count = from.saturating_add(1);
                    record.head = head.unwrap_or(record.head);
                }
            }
        });
        self.cover(change)?;
        Ok(ours.ok_or(Rejection::AnchorMismatch)?)
    }

    /// The virtual counter of a volume.
    #[must_use]
    pub fn anchor(self: &Arc<Self>, volume: [u8; 16]) -> HostTreeAnchor {
        HostTreeAnchor { tree: Arc::clone(self), volume }
    }

    /// The last advance of the file itself.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance).
    pub fn detach(&self) -> Result<u64, VolumeError> {
        self.attachment.detach()
    }

    /// Returns when the real counter covers change number `change`.
    fn cover(&self, change: u64) -> Result<(), VolumeError> {
        let _one = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        if self.file.content().covered >= change {
            return Ok(());
        }
        self.attachment.tick()?;
        let mut content = self.file.content();
        content.covered = content.written;
        Ok(())
    }

    /// A change that failed before may be in memory only.
    fn settle(&self) -> Result<(), VolumeError> {
        let changes = self.file.content().changes;
        self.cover(changes)
    }
}

impl HostFile {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, edit: impl FnOnce(&mut BTreeMap<[u8; 16], VolumeRecord>)) -> u64 {
        let mut content = self.content();
        edit(&mut content.volumes);
        content.changes = content.changes.saturating_add(1);
        content.changes
    }
}

impl Content {
    fn leaves(&self) -> Vec<Vec<u8>> {
        self.volumes.iter().map(|(volume, record)| record_bytes(volume, record)).collect()
    }
}

impl Anchored for HostFile {
    fn anchor_count(&self) -> u64 {
        self.content().count
    }

    fn commit(&self, count: u64, _last: bool) -> io::Result<()> {
        let (bytes, changes) = {
            let content = self.content();
            let root = merkle::root(&content.leaves());
            (records::encode(count, &root, &content.volumes, &self.key), content.changes)
        };
        replace(&self.path, &bytes)?;
        let mut content = self.content();
        content.count = count;
        content.written = changes;
        Ok(())
    }
}

impl Anchor for HostTreeAnchor {
    fn read(&mut self) -> io::Result<u64> {
        self.tree.settle().map_err(io::Error::other)?;
        let record = self.tree.record(&self.volume);
        record.map(|record| record.count).ok_or_else(|| io::Error::other(Rejection::AnchorMismatch))
    }

    fn alone(&self) -> bool {
        true
    }

    fn increment(&mut self, from: u64) -> io::Result<bool> {
        self.tree.advance(&self.volume, from, None).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests;
