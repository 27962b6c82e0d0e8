//! A key area: 16 key slots (`docs/formats/vault.md`, "Key areas"). A change makes a new area; the
//! engine writes it where the old one is not, then a header that names it.
//!
//! **Invariant:** an area without a taken slot is never made.

use aws_lc_rs::digest;
use model::Kmi;

use super::{
    kdf::VolumeKey,
    keyslot::{KEY_SLOT_BYTES, KeySlot, NewSlot, SlotKind},
};
use crate::{Rejection, VolumeError};

/// Key slots of a volume.
pub(crate) const KEY_SLOTS: usize = 16;
/// Length of a key area.
pub(crate) const KEY_AREA_BYTES: usize = KEY_SLOTS * KEY_SLOT_BYTES;

/// The key slots of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyArea {
    slots: [Option<KeySlot>; KEY_SLOTS],
}

/// The volume that a key area belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) uuid: &'a [u8; 16],
    /// Of the volume key that the slots hold.
    pub(crate) epoch: u32,
    pub(crate) key: &'a VolumeKey,
}

/// Which key slot opened, and what was in it.
#[derive(Clone, Debug)]
pub(crate) struct Unsealed {
    pub(crate) key: VolumeKey,
    pub(crate) slot: usize,
    pub(crate) kmi: Option<Kmi>,
}

impl KeyArea {
    /// An area with `slots` and nothing else.
    ///
    /// # Errors
    /// [`Rejection::LastKeySlot`] for none, [`Rejection::KeySlotsFull`] for too many, and as
    /// [`KeySlot::seal`].
    pub(crate) fn new(slots: &[NewSlot<'_>], owner: Owner<'_>) -> Result<Self, VolumeError> {
        if slots.is_empty() {
            return Err(Rejection::LastKeySlot.into());
        }
        let mut area = Self { slots: [const { None }; KEY_SLOTS] };
        for slot in slots {
            area.add(slot, owner)?;
        }
        Ok(area)
    }

    /// Reads an area.
    ///
    /// # Errors
    /// As [`KeySlot::decode`].
    pub(crate) fn decode(bytes: &[u8; KEY_AREA_BYTES]) -> Result<Self, Rejection> {
        let (chunks, _) = bytes.as_chunks::<KEY_SLOT_BYTES>();
        let mut area = Self { slots: [const { None }; KEY_SLOTS] };
        for (slot, chunk) in area.slots.iter_mut().zip(chunks) {
            *slot = KeySlot::decode(chunk)?;
        }
        Ok(area)
    }

    /// The area as bytes, [`KEY_AREA_BYTES`] of them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let empty = &[0; KEY_SLOT_BYTES];
        let slots = self.slots.iter();
        slots.flat_map(|slot| slot.as_ref().map_or(empty, KeySlot::bytes)).copied().collect()
    }

    /// What the header says of the area.
    pub(crate) fn digest(&self) -> [u8; 32] {
        digest_of(&self.encode())
    }

    /// The taken slots with their numbers.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (usize, &KeySlot)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| Some((i, slot.as_ref()?)))
    }

    /// Puts a new slot into the first empty place and says which.
    pub(crate) fn add(
        &mut self,
        new: &NewSlot<'_>,
        owner: Owner<'_>,
    ) -> Result<usize, VolumeError> {
        let empty = self.slots.iter_mut().enumerate().find(|(_, slot)| slot.is_none());
        let (number, place) = empty.ok_or(Rejection::KeySlotsFull)?;
        *place = Some(KeySlot::seal(new, owner.key, owner.uuid, owner.epoch)?);
        Ok(number)
    }

    /// Puts a new slot in the place of slot `number`.
    ///
    /// # Errors
    /// [`Rejection::KeySlotEmpty`], and as [`KeySlot::seal`]; the area is as it was then.
    pub(crate) fn replace(
        &mut self,
        number: usize,
        new: &NewSlot<'_>,
        owner: Owner<'_>,
    ) -> Result<(), VolumeError> {
        let place = self.slots.get_mut(number).filter(|slot| slot.is_some());
        let place = place.ok_or(Rejection::KeySlotEmpty)?;
        *place = Some(KeySlot::seal(new, owner.key, owner.uuid, owner.epoch)?);
        Ok(())
    }

    /// Empties slot `number`.
    ///
    /// # Errors
    /// [`Rejection::KeySlotEmpty`], [`Rejection::LastKeySlot`].
    pub(crate) fn remove(&mut self, number: usize) -> Result<(), Rejection> {
        let last = self.taken().count() <= 1;
        let place = self.slots.get_mut(number).filter(|slot| slot.is_some());
        let place = place.ok_or(Rejection::KeySlotEmpty)?;
        if last {
            return Err(Rejection::LastKeySlot);
        }
        *place = None;
        Ok(())
    }

    /// Tries `secret` on the slots of `kmi`, or on all: cheap ones first.
    ///
    /// # Errors
    /// [`Rejection::KmiNotFound`], [`Rejection::WrongKey`]; [`Rejection::KdfTooCostly`] if no slot
    /// opened and one was not tried for that.
    pub(crate) fn unseal(
        &self,
        secret: &[u8],
        kmi: Option<&Kmi>,
        uuid: &[u8; 16],
        epoch: u32,
    ) -> Result<Unsealed, VolumeError> {
        let wanted = |slot: &KeySlot| kmi.is_none_or(|kmi| slot.kmi.as_ref() == Some(kmi));
        let mut slots: Vec<_> = self.taken().filter(|(_, slot)| wanted(slot)).collect();
        if slots.is_empty() && kmi.is_some() {
            return Err(Rejection::KmiNotFound.into());
        }
        slots.sort_by_key(|(_, slot)| matches!(slot.kind, SlotKind::Passphrase(_)));
        let mut why = VolumeError::from(Rejection::WrongKey);
        for (slot, held) in slots {
            let number = u32::try_from(slot).unwrap_or(u32::MAX);
            match held.open(number, secret, uuid, epoch) {
                Ok(key) => return Ok(Unsealed { key, slot, kmi: held.kmi.clone() }),
                Err(VolumeError::Refused(Rejection::WrongKey | Rejection::KeyLength)) => {}
                Err(other) => why = other,
            }
        }
        Err(why)
    }
}

/// SHA-256 of a key area's bytes.
pub(crate) fn digest_of(area: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, area).as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests;
