//! Looking through a whole volume: which sectors do not open, and how much space it takes.

use std::{io, ops::ControlFlow};

use super::{
    engine::Engine,
    header::SLOT_BYTES,
    node::{FAN, NodeId},
    page::{byte_of, volume_error},
    tree::Shape,
    volume::VaultVolume,
    walk::Survey,
};
use crate::{Rejection, VolumeError};

const LEAF_BYTES: u64 = (FAN * SLOT_BYTES) as u64;

/// A part of the disk that does not open: a sector, or all that a damaged page leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSector {
    /// Byte of the disk where it begins.
    pub position: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The space that a volume takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Bytes of sectors and pages, those of snapshots too.
    pub used: u64,
    /// Bytes of the log.
    pub log: u64,
    /// Length of the file in bytes; holes count.
    pub file: u64,
    /// Number of snapshots.
    pub snapshots: usize,
}

impl VaultVolume {
    /// Opens every sector of the disk and returns those that are damaged; neighbours are one entry.
    /// `progress` gets bytes done and bytes in all, and may stop the work. Requests go on.
    ///
    /// # Errors
    /// [`VolumeError::Cancelled`], [`Rejection::MetadataMalformed`] if a page is authentic and not
    /// possible, or the medium's error.
    pub fn check(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Vec<BadSector>, VolumeError> {
        let mut bad: Vec<BadSector> = Vec::new();
        let mut leaf = 0;
        loop {
            let shape = self.engine.enter();
            let done = leaf * LEAF_BYTES;
            if progress(done.min(shape.size), shape.size).is_break() {
                return Err(VolumeError::Cancelled);
            }
            if leaf >= shape.leaves() {
                return Ok(bad);
            }
            self.engine
                .check_leaf(&shape, leaf, &mut |found| match bad.last_mut() {
                    Some(last) if last.position + last.length == found.position => {
                        last.length += found.length;
                    }
                    _ => bad.push(found),
                })
                .map_err(volume_error("check the volume"))?;
            leaf += 1;
        }
    }

    /// The space that the volume takes. Of one that is open read-only it is found by a walk.
    ///
    /// # Errors
    /// A [`Rejection`] if a page is damaged, or the medium's error.
    pub fn usage(&self) -> Result<Usage, VolumeError> {
        let shape = self.engine.enter();
        let committer = self.engine.committer();
        let slots = if self.engine.manner.read_only {
            let (header, chain) = (&committer.header, &committer.chain_slots);
            let medium = self.engine.medium.as_ref();
            Survey::of(medium, &shape.ring, header, &committer.snapshots, chain)
                .map_err(volume_error("walk the volume"))?
                .slots
                .used()
        } else {
            self.engine.slots().used()
        };
        Ok(Usage {
            size: shape.size,
            used: byte_of(slots),
            log: byte_of(u64::from(committer.header.log_slots)),
            file: self.engine.medium.length().map_err(VolumeError::io("measure the volume"))?,
            snapshots: committer.snapshots.len(),
        })
    }
}

impl Engine {
    /// Opens all sectors of one page of level 1.
    fn check_leaf(
        &self,
        shape: &Shape,
        leaf: u64,
        bad: &mut dyn FnMut(BadSector),
    ) -> io::Result<()> {
        let position = leaf * LEAF_BYTES;
        let length = LEAF_BYTES.min(shape.size.saturating_sub(position));
        let node = self.tree.node(NodeId { level: 1, number: leaf });
        let names = match self.tree.look(shape, &node, |state| *state.refs()) {
            Ok(names) => names,
            Err(error) if is_damage(&error) => {
                bad(BadSector { position, length });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; SLOT_BYTES];
        for (index, _) in (0_u64..).zip(&names).filter(|(_, name)| !name.is_null()) {
            let sector = leaf * 128 + index;
            match self.read_sectors(shape, sector, &mut bytes) {
                Ok(()) => {}
                Err(error) if is_damage(&error) => {
                    bad(BadSector { position: byte_of(sector), length: byte_of(1) });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The error says that something is not authentic; not that the medium failed, nor that something
/// authentic makes no sense, which refuses all of the volume.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    let inner = Rejection::inside(error);
    matches!(inner, Some(Rejection::PageDamaged | Rejection::SectorDamaged { .. }))
}
