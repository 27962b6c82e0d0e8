//! Giving the disk the state of a snapshot again. Requests wait meanwhile; the snapshot stays.
//!
//! **Invariant:** until the header that leads to the snapshot's root is durable, nothing of the state
//! before was touched; afterwards its slots are found free at the next opening.

use std::{io, sync::atomic::Ordering};

use super::{engine::Engine, page::volume_error, snapshots::Entry, volume::VaultVolume};
use crate::{Rejection, VolumeError};

impl VaultVolume {
    /// Gives the disk the content and the size that it had when the snapshot was made. What was
    /// written since is lost, unless a snapshot of it was made before. For a volume that no guest
    /// uses: its content changes under whoever reads.
    ///
    /// # Errors
    /// [`Rejection::SnapshotNotFound`]; or the medium's error, after which the volume must be opened
    /// anew.
    pub fn revert(&self, name: &str) -> Result<(), VolumeError> {
        let kept = self.engine.committer().snapshots.clone();
        let entry = kept.into_iter().find(|entry| entry.name.as_str() == name);
        let entry = entry.ok_or(Rejection::SnapshotNotFound)?;
        self.engine.revert(&entry).map_err(volume_error("revert to the snapshot"))
    }
}

impl Engine {
    fn revert(&self, entry: &Entry) -> io::Result<()> {
        let mut shape = self.enter_alone();
        self.check_writable()?;
        let mut committer = self.committer();
        self.check_failed()?;
        self.checkpoint(&shape, &mut committer, &mut |_| Ok(()))?;
        // From here on memory and medium differ until the header is there.
        self.tree.forget();
        self.tree.set_root(entry.root);
        (shape.size, shape.depth) = (entry.size, entry.depth);
        self.slots().set_sectors(shape.sectors());
        let done = self.checkpoint(&shape, &mut committer, &mut |_| Ok(()));
        self.or_fail(done)?;
        self.size.store(entry.size, Ordering::SeqCst);
        Ok(())
    }
}
