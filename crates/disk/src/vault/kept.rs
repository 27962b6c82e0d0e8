//! Making and deleting snapshots of an open volume.
//!
//! A snapshot is a root that is kept: the page of snapshots names it, and no slot that was sealed
//! before it is freed while it is the newest. What a deleted snapshot alone held is found by walking
//! the volume again.

use std::io;

use super::{
    bytes::Text,
    commit::Committer,
    engine::Engine,
    header::Header,
    node::Freed,
    page::{refused, volume_error},
    refs::Ref,
    seal::Unit,
    snapshots::{self, Entry, Snapshot},
    tree::Shape,
    volume::VaultVolume,
    walk::Survey,
};
use crate::{Rejection, VolumeError};

impl VaultVolume {
    /// The volume's snapshots, in the order in which they were made.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.engine.committer().snapshots.iter().map(Entry::public).collect()
    }

    /// Keeps the disk as it is now under `name`. `now` is in seconds since 1970. Requests wait.
    ///
    /// # Errors
    /// [`Rejection::SnapshotName`], [`Rejection::Unsupported`] for a 29th snapshot, or the medium's
    /// error.
    pub fn snapshot(&self, name: &str, now: u64) -> Result<Snapshot, VolumeError> {
        self.engine.snapshot(name, now).map_err(volume_error("make a snapshot"))
    }

    /// Deletes the snapshot `name` and frees what it alone held. Requests wait.
    ///
    /// # Errors
    /// [`Rejection::SnapshotNotFound`], or the medium's error.
    pub fn delete_snapshot(&self, name: &str) -> Result<(), VolumeError> {
        self.engine.delete_snapshot(name).map_err(volume_error("delete a snapshot"))
    }
}

impl Engine {
    fn snapshot(&self, name: &str, now: u64) -> io::Result<Snapshot> {
        let mut shape = self.enter_alone();
        self.check_writable()?;
        let mut committer = self.committer();
        self.check_failed()?;
        let name = Text::new(name).map_err(|_| refused(Rejection::SnapshotName))?;
        let taken = committer.snapshots.iter().any(|entry| entry.name == name);
        if taken || name.as_str().is_empty() {
            return Err(refused(Rejection::SnapshotName));
        }
        if committer.snapshots.len() >= snapshots::LIMIT {
            return Err(refused(Rejection::unsupported("more than 28 snapshots")));
        }
        if committer.header.old_key.is_some() {
            return Err(refused(Rejection::unsupported("a snapshot while re-keying")));
        }
        self.checkpoint(&shape, &mut committer, &mut |_| Ok(()))?;
        let entry = Entry {
            name,
            root: self.tree.root(),
            size: shape.size,
            barrier: shape.ring.next_sequence(),
            time: now,
            depth: shape.depth,
        };
        let mut entries = committer.snapshots.clone();
        entries.push(entry.clone());
        self.commit_snapshots(&shape, &mut committer, entries)?;
        shape.barrier = entry.barrier;
        Ok(entry.public())
    }

    fn delete_snapshot(&self, name: &str) -> io::Result<()> {
        let mut shape = self.enter_alone();
        self.check_writable()?;
        let mut committer = self.committer();
        self.check_failed()?;
        let mut entries = committer.snapshots.clone();
        entries.retain(|entry| entry.name.as_str() != name);
        if entries.len() == committer.snapshots.len() {
            return Err(refused(Rejection::SnapshotNotFound));
        }
        self.commit_snapshots(&shape, &mut committer, entries)?;
        shape.barrier = committer.snapshots.iter().map(|entry| entry.barrier).max().unwrap_or(0);
        self.rebuild_slots(&shape, &committer)
    }

    /// Writes the snapshot page and commits a header that leads to it.
    fn commit_snapshots(
        &self,
        shape: &Shape,
        committer: &mut Committer,
        entries: Vec<Entry>,
    ) -> io::Result<()> {
        let cipher_failed = |_| io::Error::other("the cipher failed");
        let page = if entries.is_empty() {
            Ref::NULL
        } else {
            let mut bytes = snapshots::encode(&entries);
            let sequence = shape.ring.take(1).map_err(cipher_failed)?;
            let name = shape.ring.seal(sequence, Unit::Snapshots, &mut bytes);
            let runs = self.take_slots(None, 1)?;
            let slot = runs.first().ok_or(io::ErrorKind::StorageFull)?.slot;
            self.write_slot(slot, &bytes).inspect_err(|_| self.return_runs(&runs))?;
            name.map_err(cipher_failed)?.at(slot).map_err(refused)?
        };
        let old = committer.header.snapshots;
        let mut edit = |header: &mut Header| {
            header.snapshots = page;
            Ok(())
        };
        self.checkpoint(shape, committer, &mut edit)?;
        committer.snapshots = entries;
        if !old.is_null() {
            self.release(vec![Freed { slot: old.slot(), trimmed: false }]);
        }
        Ok(())
    }

    /// Finds anew which slots are free. The caller is alone and has just made a checkpoint.
    fn rebuild_slots(&self, shape: &Shape, committer: &Committer) -> io::Result<()> {
        let medium = self.medium.as_ref();
        let (header, chain) = (&committer.header, &committer.chain_slots);
        let mut survey = Survey::of(medium, &shape.ring, header, &committer.snapshots, chain)?;
        survey.slots.settle();
        *self.slots() = survey.slots;
        Ok(())
    }
}
