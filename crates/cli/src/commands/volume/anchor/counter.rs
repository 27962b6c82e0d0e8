//! An anchor in a TPM: an NV counter of its own for each volume, owned by the TPM's owner.
//!
//! The counter's index is looked for among [`INDICES`] by its policy: the digest of the volume's UUID.
//! As a policy nobody can meet it, so that it opens nothing; as part of the index it cannot be
//! changed. A TPM's counter begins where the highest one of that TPM ever was, so a new volume is
//! written once with that count before anybody has it.
//!
//! Deliberately absent: a lock. Whoever may use the TPM can count; the attachment then ends with
//! `anchor-mismatch`.

use std::{io, ops::Range};

use aws_lc_rs::digest::{SHA256, digest};
use disk::anchor::Anchor;
use tpm::{Actor, Address, Auth, AuthValue, Hierarchy, NvAttributes, NvPublic, Tpm, TpmError};

use crate::output::Failure;

/// Where volumes' counters are; a TPM has room for few.
const INDICES: Range<u32> = 0x0180_5700..0x0180_5720;

/// The counter of one volume.
#[derive(Debug)]
pub(super) struct TpmAnchor {
    actor: Actor,
    index: u32,
}

/// The index of a volume's counter, before its first write.
fn public(index: u32, volume: &str) -> NvPublic {
    let policy = digest(&SHA256, format!("vouchsafe:volume-anchor:v1:{volume}").as_bytes());
    let attributes = NvAttributes::OWNER_COUNTER;
    NvPublic { index, attributes, policy: policy.as_ref().to_vec(), size: 8 }
}

/// Where the volume's counter is, or else the first free place.
fn find(tpm: &mut Tpm, volume: &str) -> Result<(Option<u32>, Option<u32>), TpmError> {
    let mut free = None;
    for index in INDICES {
        match tpm.nv_public(index)? {
            Some(found) if found.written() == public(index, volume).written() => {
                return Ok((Some(index), free));
            }
            Some(_) => {}
            None => free = free.or(Some(index)),
        }
    }
    Ok((None, free))
}

impl TpmAnchor {
    /// Makes the counter of a new volume.
    ///
    /// # Errors
    /// `already-exists`, `anchors-full`, or the TPM's error.
    pub(super) fn create(address: &Address, volume: &str) -> Result<Self, Failure> {
        let actor = Actor::start(address.clone())?;
        let name = volume.to_owned();
        let made = actor.run(move |tpm| -> Result<Result<u32, &'static str>, TpmError> {
            let index = match find(tpm, &name)? {
                (Some(_), _) => return Ok(Err("already-exists")),
                (None, None) => return Ok(Err("anchors-full")),
                (None, Some(index)) => index,
            };
            let (owner, public) = (Hierarchy::Owner, public(index, &name));
            tpm.nv_define(owner, Auth::none(), &public, &AuthValue::empty())?;
            tpm.nv_increment(None, Auth::none(), index)?;
            Ok(Ok(index))
        })?;
        let index = made.map_err(|code| {
            let detail = format!("{} of this TPM's indices are for volumes", INDICES.len());
            Failure::refused(code, detail, "tpm2_nvundefine gives up the counter of an old volume")
        })?;
        Ok(Self { actor, index })
    }

    /// The counter of a volume, made if there is none.
    ///
    /// # Errors
    /// `anchors-full`, or the TPM's error.
    pub(super) fn open_or_create(address: &Address, volume: &str) -> Result<Self, Failure> {
        match Self::open(address, volume) {
            Err(Failure::Refused { name, .. }) if name == "anchor-missing" => {
                Self::create(address, volume)
            }
            other => other,
        }
    }

    /// The counter of a volume.
    ///
    /// # Errors
    /// `anchor-missing`, or the TPM's error.
    pub(super) fn open(address: &Address, volume: &str) -> Result<Self, Failure> {
        let actor = Actor::start(address.clone())?;
        let name = volume.to_owned();
        let (found, _) = actor.run(move |tpm| find(tpm, &name))?;
        let index = found.ok_or_else(|| {
            let hint = "was the volume made with this TPM, and was the TPM cleared since?";
            Failure::refused("anchor-missing", "this TPM has no counter for the volume", hint)
        })?;
        Ok(Self { actor, index })
    }
}

impl Anchor for TpmAnchor {
    fn read(&mut self) -> io::Result<u64> {
        let index = self.index;
        let read = move |tpm: &mut Tpm| tpm.nv_read_counter(None, &mut Auth::none(), index);
        self.actor.run(read).map_err(io::Error::other)
    }

    fn increment(&mut self, from: u64) -> io::Result<bool> {
        let index = self.index;
        let done = self.actor.run(move |tpm| {
            if tpm.nv_read_counter(None, &mut Auth::none(), index)? != from {
                return Ok(false);
            }
            tpm.nv_increment(None, Auth::none(), index)?;
            let now = tpm.nv_read_counter(None, &mut Auth::none(), index)?;
            Ok::<_, TpmError>(Some(now) == from.checked_add(1))
        });
        done.map_err(io::Error::other)
    }

    fn alone(&self) -> bool {
        false
    }
}
