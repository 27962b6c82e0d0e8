//! Sectors on their way in and out.
//!
//! Reads are optimistic: the references are copied, the slots read without a lock. If a sector does
//! not open, its reference is looked up again: a slot is reused only after its reference changed.

use std::{io, sync::atomic::Ordering};

use super::{
    engine::Engine,
    header::SLOT_BYTES,
    node::{FAN, NodeId},
    page::{byte_of, refused},
    refs::Ref,
    seal::Unit,
    tree::Shape,
};
use crate::{Rejection, steps::step};

/// Sectors that are sealed and written at a time: their data stay in the processor's cache.
const CHUNK: usize = 64;
/// Sectors that are read and opened at a time.
const AT_ONCE: usize = 32;

impl Engine {
    /// Fills `buf`, whole sectors from `first` on.
    pub(crate) fn read_sectors(&self, shape: &Shape, first: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut sector, mut rest) = (first, buf);
        while !rest.is_empty() {
            let (id, index) = NodeId::of_sector(sector);
            let count = (rest.len() / SLOT_BYTES).min(FAN - index).max(1);
            let (part, behind) =
                rest.split_at_mut_checked(count * SLOT_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
            self.read_in_page(shape, id, index, part)?;
            sector = sector.saturating_add(length(count));
            rest = behind;
        }
        Ok(())
    }

    /// Reads sectors of one page from `index` on, some at a time: their references are copied to the
    /// stack, their data stay in the processor's cache until they are opened.
    fn read_in_page(
        &self,
        shape: &Shape,
        id: NodeId,
        index: usize,
        buf: &mut [u8],
    ) -> io::Result<()> {
        let node = self.tree.node(id);
        let count = buf.len() / SLOT_BYTES;
        if count == 1 {
            let name = self.tree.look(shape, &node, |state| state.get(index))?;
            return self.read_named(shape, id.child(index).number, &[name], buf);
        }
        let mut names = [Ref::NULL; AT_ONCE];
        let parts = buf.chunks_mut(AT_ONCE * SLOT_BYTES);
        for (index, part) in (index..index + count).step_by(AT_ONCE).zip(parts) {
            let names = names.get_mut(..part.len() / SLOT_BYTES).unwrap_or_default();
            self.tree.look(shape, &node, |state| {
                let from = state.refs().get(index..index + names.len()).unwrap_or_default();
                names.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            })?;
            self.read_named(shape, id.child(index).number, names, part)?;
        }
        Ok(())
    }

    /// Reads the sectors that `names` name, run by run.
    fn read_named(
        &self,
        shape: &Shape,
        first: u64,
        names: &[Ref],
        buf: &mut [u8],
    ) -> io::Result<()> {
        let mut rest = buf;
        let mut sector = first;
        let follows = |a: &Ref, b: &Ref| {
            a.is_null() == b.is_null() && (a.is_null() || a.slot().checked_add(1) == Some(b.slot()))
        };
        for run in names.chunk_by(follows) {
            let (part, behind) = rest
                .split_at_mut_checked(run.len() * SLOT_BYTES)
                .ok_or(io::ErrorKind::InvalidInput)?;
            match run.first() {
                Some(head) if !head.is_null() => self.read_run(shape, sector, run, part)?,
                _ => part.fill(0),
            }
            sector = sector.saturating_add(length(run.len()));
            rest = behind;
        }
        Ok(())
    }

    /// Reads sectors whose slots follow each other.
    fn read_run(&self, shape: &Shape, first: u64, names: &[Ref], buf: &mut [u8]) -> io::Result<()> {
        let Some(head) = names.first() else { return Ok(()) };
        match self.medium.read_at(byte_of(head.slot()), buf) {
            Ok(()) => {}
            // Perhaps only the last of them is missing: one by one, below.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let sectors = (first..).zip(names).zip(buf.chunks_exact_mut(SLOT_BYTES));
                for ((sector, name), part) in sectors {
                    self.read_again(shape, sector, *name, part)?;
                }
                return Ok(());
            }
            Err(e) => return Err(e),
        }
        step("S420", byte_of(first), buf.len());
        let sectors = (first..).zip(names).zip(buf.chunks_exact_mut(SLOT_BYTES));
        for ((sector, name), part) in sectors {
            if shape.ring.open(name, Unit::Sector(sector), part).is_err() {
                self.read_again(shape, sector, *name, part)?;
            }
        }
        step("S430", byte_of(first), buf.len());
        Ok(())
    }

    /// Reads a sector that did not open under `name`.
    fn read_again(&self, shape: &Shape, sector: u64, name: Ref, buf: &mut [u8]) -> io::Result<()> {
        let (mut name, mut fresh) = (name, true);
        loop {
            let opened = match self.medium.read_at(byte_of(name.slot()), buf) {
                Ok(()) => shape.ring.open(&name, Unit::Sector(sector), buf).is_ok(),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => false,
                Err(e) => return Err(e),
            };
            if opened {
                return Ok(());
            }
            let now = self.name_of_sector(shape, sector)?;
            if now.is_null() {
                buf.fill(0);
                return Ok(());
            }
            // Once more than needed: the slot may have been reused before the first look.
            if now == name && !fresh {
                return Err(self.damage(sector, &name, buf));
            }
            fresh = now != name;
            name = now;
        }
    }

    fn damage(&self, sector: u64, name: &Ref, buf: &mut [u8]) -> io::Error {
        buf.fill(0);
        self.damaged.fetch_add(1, Ordering::Relaxed);
        let position = byte_of(sector);
        tracing::error!(volume.position = position, volume.slot = name.slot(), "sector damaged");
        refused(Rejection::SectorDamaged { position })
    }

    /// The reference of a sector.
    pub(crate) fn name_of_sector(&self, shape: &Shape, sector: u64) -> io::Result<Ref> {
        let (id, index) = NodeId::of_sector(sector);
        self.tree.look(shape, &self.tree.node(id), |state| state.get(index))
    }

    /// Seals and writes whole sectors from `first` on; `data` is ciphertext afterwards.
    pub(crate) fn write_sectors(
        &self,
        shape: &Shape,
        first: u64,
        data: &mut [u8],
    ) -> io::Result<()> {
        let (mut sector, mut rest) = (first, data);
        while !rest.is_empty() {
            let to_boundary = CHUNK - NodeId::of_sector(sector).1 % CHUNK;
            let count = (rest.len() / SLOT_BYTES).min(to_boundary).max(1);
            let (part, behind) =
                rest.split_at_mut_checked(count * SLOT_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
            match count {
                1 => self.write_chunk::<1>(shape, sector, part)?,
                _ => self.write_chunk::<CHUNK>(shape, sector, part)?,
            }
            sector = sector.saturating_add(length(count));
            rest = behind;
        }
        self.relieve(shape)
    }

    /// Writes sectors of one page, at most `N`.
    fn write_chunk<const N: usize>(
        &self,
        shape: &Shape,
        first: u64,
        data: &mut [u8],
    ) -> io::Result<()> {
        let count = length(data.len() / SLOT_BYTES);
        let cipher_failed = |_| io::Error::other("the cipher failed");
        let sequence = shape.ring.take(count).map_err(cipher_failed)?;
        let position = byte_of(first);
        step("S320", position, data.len());
        let mut names = [Ref::NULL; N];
        for (at, (name, sector)) in
            (0_u64..).zip(names.iter_mut().zip(data.chunks_exact_mut(SLOT_BYTES)))
        {
            let unit = Unit::Sector(first.saturating_add(at));
            *name = shape
                .ring
                .seal(sequence.saturating_add(at), unit, sector)
                .map_err(cipher_failed)?;
        }
        step("S330", position, data.len());
        let runs = self.take_slots(Some(first), count)?;
        let mut slots = runs.iter().flat_map(|run| run.slot..run.slot.saturating_add(run.count));
        let mut rest: &[u8] = data;
        let written = runs.iter().try_for_each(|run| {
            let bytes = usize::try_from(run.count).unwrap_or(0) * SLOT_BYTES;
            let (part, behind) = rest.split_at_checked(bytes).ok_or(io::ErrorKind::InvalidInput)?;
            rest = behind;
            self.write_slot(run.slot, part)
        });
        let installed = written.and_then(|()| {
            step("S340", position, data.len());
            let names = names.get_mut(..data.len() / SLOT_BYTES).unwrap_or_default();
            for (name, slot) in names.iter_mut().zip(slots.by_ref()) {
                *name = name.at(slot).map_err(refused)?;
            }
            let (id, index) = NodeId::of_sector(first);
            self.tree.install(shape, &self.tree.node(id), index, names, false)
        });
        match installed {
            Ok(free) => {
                self.release(free);
                Ok(())
            }
            Err(error) => {
                self.return_runs(&runs);
                Err(error)
            }
        }
    }

    /// Makes whole sectors from `first` on null.
    pub(crate) fn drop_sectors(&self, shape: &Shape, first: u64, count: u64) -> io::Result<()> {
        let end = first.saturating_add(count);
        let mut sector = first;
        while sector < end {
            let (id, index) = NodeId::of_sector(sector);
            let left = usize::try_from(end.saturating_sub(sector)).unwrap_or(usize::MAX);
            let count = left.min(FAN - index);
            let nulls = [Ref::NULL; FAN];
            let names = nulls.get(..count).unwrap_or_default();
            let node = self.tree.node(id);
            let already = self.tree.look(shape, &node, |state| {
                let refs = state.refs().get(index..index + count).unwrap_or_default();
                refs.iter().all(Ref::is_null)
            })?;
            if !already {
                let free = self.tree.install(shape, &node, index, names, true)?;
                self.release(free);
                self.relieve(shape)?;
            }
            sector = sector.saturating_add(length(count));
        }
        Ok(())
    }
}

pub(crate) fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
