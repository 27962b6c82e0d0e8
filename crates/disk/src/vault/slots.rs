//! Changing key slots of a volume in use: constant time, whatever its size.
//!
//! ```text
//!   new area -> the side that is not in force -> sync -> checkpoint with a header that names it
//!     -> sync of both header copies -> the old area becomes zeros
//! ```
//!
//! **Invariant:** at each moment the header in force names a whole key area; when an operation
//! returns, the file holds no slot that it replaced or removed. A copy of the file that somebody
//! took before still has it: only re-keying helps against that.

use super::{
    data::length,
    keyarea::{KEY_AREA_BYTES, KeyArea, Owner},
    keyslot::NewSlot,
    page::volume_error,
    volume::VaultVolume,
};
use crate::VolumeError;

impl VaultVolume {
    /// Adds a key slot, a recovery pass phrase for example, and gives its number.
    ///
    /// # Errors
    /// [`Rejection::KeySlotsFull`](crate::Rejection::KeySlotsFull), a rejection of the slot itself,
    /// or the medium's error.
    pub fn add_key_slot(&self, slot: &NewSlot<'_>) -> Result<usize, VolumeError> {
        self.change_key_area(&mut |area, owner| area.add(slot, owner))
    }

    /// Puts another key slot in the place of slot `number`, whose secret opens no more.
    ///
    /// # Errors
    /// [`Rejection::KeySlotEmpty`](crate::Rejection::KeySlotEmpty), a rejection of the slot itself,
    /// or the medium's error.
    pub fn replace_key_slot(&self, number: usize, slot: &NewSlot<'_>) -> Result<(), VolumeError> {
        self.change_key_area(&mut |area, owner| area.replace(number, slot, owner))
    }

    /// Empties key slot `number`, whose secret opens no more.
    ///
    /// # Errors
    /// [`Rejection::KeySlotEmpty`](crate::Rejection::KeySlotEmpty),
    /// [`Rejection::LastKeySlot`](crate::Rejection::LastKeySlot), or the medium's error.
    pub fn remove_key_slot(&self, number: usize) -> Result<(), VolumeError> {
        self.change_key_area(&mut |area, _| Ok(area.remove(number)?))
    }

    fn change_key_area<T>(
        &self,
        change: &mut dyn FnMut(&mut KeyArea, Owner<'_>) -> Result<T, VolumeError>,
    ) -> Result<T, VolumeError> {
        let failed = || volume_error("change the key slots");
        let engine = &self.engine;
        let shape = engine.enter_to_write().map_err(failed())?;
        let mut committer = engine.committer();
        engine.check_failed().map_err(failed())?;
        let mut area = committer.area.clone();
        let header = &committer.header;
        let key = &committer.keys.current;
        let owner = Owner { uuid: &header.uuid, epoch: header.epoch, key };
        let outcome = change(&mut area, owner)?;
        let (old, new, digest) = (header.key_area, header.key_area.other(), area.digest());
        engine
            .medium
            .write_at(length(new.at()), &area.encode())
            .and_then(|()| engine.medium.sync())
            .map_err(VolumeError::io("write the key area"))?;
        let committed = engine.checkpoint(&shape, &mut committer, &mut |header| {
            header.key_area = new;
            header.key_area_digest = digest;
            Ok(())
        });
        committed.map_err(failed())?;
        committer.area = area;
        // The second copy of the header: the older one still names the old area.
        engine.or_fail(engine.medium.sync()).map_err(failed())?;
        engine
            .medium
            .write_at(length(old.at()), &[0; KEY_AREA_BYTES])
            .and_then(|()| engine.medium.sync())
            .map_err(VolumeError::io("wipe the old key area"))?;
        Ok(outcome)
    }
}
