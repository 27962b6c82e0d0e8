//! Re-keying a volume in use: a new volume key, a new epoch, every sector sealed again.
//!
//! ```text
//!   begin:  new key area (other side) -> header: epoch + 1, old key wrapped, new session
//!   walk:   page by page: read, seal anew, write elsewhere, exchange the reference if unchanged
//!   finish: checkpoint -> nothing of the old epoch is reachable -> header without the old key
//! ```
//!
//! It goes on where it stopped: a header with the old key says that it is under way, and a page that
//! was done has nothing left to do. **Invariant:** after `begin` nothing is sealed under the old
//! epoch, so one pass is enough.

use std::{io, ops::ControlFlow, sync::atomic::Ordering};

use super::{
    commit::Committer,
    data::length,
    engine::Engine,
    header::{SLOT_BYTES, SessionRecord},
    kdf::{self, VolumeKey},
    keyarea::{KeyArea, Owner},
    keyring::VolumeKeys,
    keyslot::NewSlot,
    node::{Freed, NodeId},
    page::{refused, volume_error},
    refs::Ref,
    seal::Unit,
    sessions,
    tree::Shape,
    unlock::wrap_old,
    volume::VaultVolume,
    walk::Survey,
};
use crate::{Rejection, VolumeError};

/// Pages between two notes of the progress.
const NOTE: u64 = 2048;

impl VaultVolume {
    /// A re-keying is under way.
    #[must_use]
    pub fn rekeying(&self) -> bool {
        self.engine.committer().header.old_key.is_some()
    }

    /// Seals the whole volume under a new volume key, which `slots` hold from the beginning on;
    /// the old slots open it no more. If a re-keying is under way already, goes on with it and
    /// leaves the slots as they are. `progress` gets pages done and pages in all; if it stops the
    /// work, another call goes on. Requests go on meanwhile.
    ///
    /// # Errors
    /// [`Rejection::Unsupported`] for a volume with snapshots; [`Rejection::SectorDamaged`] for a
    /// sector that does not open (write or trim it, then go on); [`VolumeError::Cancelled`]; or the
    /// medium's error.
    pub fn rekey(
        &self,
        slots: &[NewSlot<'_>],
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(), VolumeError> {
        let failed = || volume_error("re-key the volume");
        if !self.rekeying() {
            self.engine.begin_epoch(slots)?;
            self.key_slot.store(0, Ordering::SeqCst);
        }
        let mut leaf = 0;
        loop {
            let shape = self.engine.enter_to_write().map_err(failed())?;
            if progress(leaf, shape.leaves()).is_break() {
                return Err(VolumeError::Cancelled);
            }
            if leaf >= shape.leaves() {
                break;
            }
            self.engine.reseal_leaf(&shape, leaf).map_err(failed())?;
            leaf += 1;
            if leaf.is_multiple_of(NOTE) {
                self.engine.note_progress(&shape, leaf).map_err(failed())?;
            }
        }
        self.engine.finish_epoch().map_err(failed())
    }
}

impl Engine {
    fn begin_epoch(&self, slots: &[NewSlot<'_>]) -> Result<(), VolumeError> {
        let failed = || volume_error("begin a new epoch");
        let mut shape = self.enter_alone();
        self.check_writable().map_err(failed())?;
        let mut committer = self.committer();
        self.check_failed().map_err(failed())?;
        if !committer.snapshots.is_empty() {
            return Err(Rejection::unsupported(
                "re-keying the data of a volume with snapshots: delete them",
            )
            .into());
        }
        let (uuid, epoch) = (committer.header.uuid, committer.header.epoch.saturating_add(1));
        let new = VolumeKey::random()?;
        let old = committer.keys.current.clone();
        let area = KeyArea::new(slots, Owner { uuid: &uuid, epoch, key: &new })?;
        let wrapped = wrap_old(&old, &new, &uuid, epoch)?;
        let header_key = new.header_key(&uuid)?;
        let keys = VolumeKeys { epoch, current: new, previous: Some(old) };
        let side = committer.header.key_area.other();
        self.medium
            .write_at(length(side.at()), &area.encode())
            .and_then(|()| self.medium.sync())
            .map_err(VolumeError::io("write the key area"))?;
        let older: Vec<SessionRecord> = shape.ring.records().copied().collect();
        let session = next_session(&committer, epoch)?;
        shape.ring.push(&keys, session)?;
        // From here on memory is ahead of the medium until the header is there.
        let digest = area.digest();
        committer.keys = keys;
        committer.header_key = header_key;
        committer.area = area;
        let done = self.begin_session(&shape, &mut committer, session, &older, &mut |header| {
            header.epoch = epoch;
            header.key_area = side;
            header.key_area_digest = digest;
            header.old_key = Some(wrapped);
            header.rekeyed_pages = 0;
        });
        self.or_fail(done).map_err(failed())
    }

    /// Begins another session of the same epoch: the current one has sealed enough.
    pub(crate) fn renew_session(&self) -> Result<(), VolumeError> {
        let failed = || volume_error("begin a session");
        let mut shape = self.enter_alone();
        self.check_writable().map_err(failed())?;
        let mut committer = self.committer();
        self.check_failed().map_err(failed())?;
        let older: Vec<SessionRecord> = shape.ring.records().copied().collect();
        let session = next_session(&committer, committer.header.epoch)?;
        shape.ring.push(&committer.keys, session)?;
        let done = self.begin_session(&shape, &mut committer, session, &older, &mut |_| ());
        self.or_fail(done).map_err(failed())
    }

    /// Seals anew what an older epoch sealed of one page of level 1.
    fn reseal_leaf(&self, shape: &Shape, leaf: u64) -> io::Result<()> {
        let id = NodeId { level: 1, number: leaf };
        let node = self.tree.node(id);
        let current = shape.ring.records().next_back().map_or(0, |record| record.epoch);
        let names = self.tree.look(shape, &node, |state| *state.refs())?;
        let mut bytes = vec![0; SLOT_BYTES];
        for (index, name) in names.iter().enumerate() {
            let sector = leaf.saturating_mul(128).saturating_add(length(index));
            let mut name = *name;
            // Until it is sealed anew, by us or by a write.
            while !name.is_null() && shape.ring.epoch_of(name.session) != Some(current) {
                self.read_sectors(shape, sector, &mut bytes)?;
                let (done, free) = self.reseal(shape, id, index, name, &mut bytes)?;
                self.release(free.into_iter().collect());
                if done {
                    break;
                }
                name = self.name_of_sector(shape, sector)?;
            }
        }
        self.relieve(shape)
    }

    fn reseal(
        &self,
        shape: &Shape,
        id: NodeId,
        index: usize,
        old: Ref,
        bytes: &mut [u8],
    ) -> io::Result<(bool, Option<Freed>)> {
        let cipher_failed = |_| io::Error::other("the cipher failed");
        let sequence = shape.ring.take(1).map_err(cipher_failed)?;
        let sector = id.child(index).number;
        let new = shape.ring.seal(sequence, Unit::Sector(sector), bytes).map_err(cipher_failed)?;
        let runs = self.take_slots(Some(sector), 1)?;
        let slot = runs.first().ok_or(io::ErrorKind::StorageFull)?.slot;
        let exchanged = self.write_slot(slot, bytes).and_then(|()| {
            let node = self.tree.node(id);
            self.tree.exchange(shape, &node, index, &old, new.at(slot).map_err(refused)?)
        });
        if !matches!(exchanged, Ok((true, _))) {
            self.return_runs(&runs);
        }
        exchanged
    }

    fn note_progress(&self, shape: &Shape, done: u64) -> io::Result<()> {
        let mut committer = self.committer();
        self.check_failed()?;
        self.checkpoint(shape, &mut committer, &mut |header| {
            header.rekeyed_pages = u32::try_from(done).unwrap_or(u32::MAX);
            Ok(())
        })
    }

    fn finish_epoch(&self) -> io::Result<()> {
        let mut shape = self.enter_alone();
        self.check_writable()?;
        let mut committer = self.committer();
        self.check_failed()?;
        self.checkpoint(&shape, &mut committer, &mut |_| Ok(()))?;
        let epoch = committer.header.epoch;
        let medium = self.medium.as_ref();
        let (header, chain) = (&committer.header, &committer.chain_slots);
        let survey = Survey::of(medium, &shape.ring, header, &committer.snapshots, chain)?;
        let new = |id: &u32| shape.ring.epoch_of(*id) == Some(epoch);
        if !survey.sessions.iter().all(new) {
            return Err(refused(Rejection::malformed("something was not sealed anew")));
        }
        shape.ring.retain(|record| record.epoch == epoch);
        let current = committer.header.session.id;
        let older: Vec<SessionRecord> =
            shape.ring.records().filter(|record| record.id != current).copied().collect();
        let done = sessions::write(self, &shape.ring, &older).and_then(|(sessions, slots)| {
            let old = std::mem::replace(&mut committer.chain_slots, slots);
            let old = old.into_iter().map(|slot| Freed { slot, trimmed: false });
            committer.pending_pages.extend(old);
            self.checkpoint(&shape, &mut committer, &mut |header| {
                header.sessions = sessions;
                header.old_key = None;
                header.rekeyed_pages = 0;
                Ok(())
            })
        });
        self.or_fail(done)?;
        committer.keys.previous = None;
        Ok(())
    }
}

fn next_session(committer: &Committer, epoch: u32) -> Result<SessionRecord, VolumeError> {
    let id = committer.header.session.id.checked_add(1);
    let mut session = SessionRecord {
        id: id.ok_or_else(|| Rejection::unsupported("more sessions"))?,
        epoch,
        salt: [0; 32],
    };
    kdf::random(&mut session.salt)?;
    Ok(session)
}
