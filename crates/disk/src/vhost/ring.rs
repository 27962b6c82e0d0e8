//! A split virtqueue (virtio 1.2, section 2.7) from the device's side.
//!
//! Written here and not taken from `virtio-queue`, because a request that was in flight when an
//! earlier process died is taken up again by its head index, which that crate has no door for.
//!
//! **Invariant:** no value of the guest is trusted twice: it is read once, checked, and used.

use std::sync::atomic::{Ordering, fence};

use super::{Fault, memory::Memory};

/// The longest ring that we serve.
pub(super) const RING_MAX: u16 = 1024;

const DESCRIPTOR_BYTES: u64 = 16;
const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;
/// In the available ring: the driver wants no interrupt.
const NO_INTERRUPT: u16 = 1;
/// In the used ring: the device wants no kick.
const NO_KICK: u16 = 1;

/// A part of a request in the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) at: u64,
    pub(super) length: u32,
    /// The device writes to it.
    pub(super) writable: bool,
}

/// Where a ring is, as guest addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// A running ring.
#[derive(Debug)]
pub(super) struct Ring {
    memory: Memory,
    place: Place,
    size: u16,
    event_index: bool,
    /// The next available entry that we take.
    pub(super) next_available: u16,
    next_used: u16,
    /// The used index when we last thought about an interrupt.
    told_used: u16,
}

impl Ring {
    /// A ring of `size` entries (a power of two up to [`RING_MAX`]); `None` if it is not in the
    /// guest's memory.
    pub(super) fn new(
        memory: Memory,
        place: Place,
        size: u16,
        event_index: bool,
        next_available: u16,
    ) -> Option<Self> {
        let entries = u64::from(size);
        let there = size.is_power_of_two()
            && size <= RING_MAX
            && place.available.is_multiple_of(2)
            && place.used.is_multiple_of(4)
            && memory.holds(place.descriptors, entries * DESCRIPTOR_BYTES)
            && memory.holds(place.available, 6 + 2 * entries)
            && memory.holds(place.used, 6 + 8 * entries);
        if !there {
            return None;
        }
        let next_used = memory.load(place.used + 2).ok()?;
        Some(Self {
            memory,
            place,
            size,
            event_index,
            next_available,
            next_used,
            told_used: next_used,
        })
    }

    pub(super) const fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) const fn next_used(&self) -> u16 {
        self.next_used
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> Result<u16, Fault> {
        let ahead = self.memory.load(self.place.available + 2)?.wrapping_sub(self.next_available);
        if ahead > self.size { Err(Fault::AvailIndex(ahead)) } else { Ok(ahead) }
    }

    /// The head index of the next request; it stays there until [`taken`](Self::taken).
    pub(super) fn head(&self) -> Result<u16, Fault> {
        let entry = u64::from(self.next_available % self.size);
        let head = self.memory.load(self.place.available + 4 + 2 * entry)?;
        if head < self.size { Ok(head) } else { Err(Fault::HeadIndex(head)) }
    }

    pub(super) fn taken(&mut self) {
        self.next_available = self.next_available.wrapping_add(1);
    }

    /// Collects the segments of the chain at `head` into `segments`.
    pub(super) fn chain(&self, head: u16, segments: &mut Vec<Segment>) -> Result<(), Fault> {
        segments.clear();
        let table = (self.place.descriptors, self.size);
        if let Some((at, length)) = self.walk(table, head, segments)? {
            let entries = u16::try_from(length / 16).map_err(|_| Fault::IndirectMalformed)?;
            let whole = length.is_multiple_of(16) && entries > 0;
            if !whole || self.walk((at, entries), 0, segments)?.is_some() {
                return Err(Fault::IndirectMalformed);
            }
        }
        Ok(())
    }

    /// Follows a chain through one table; an indirect table at its end is returned.
    fn walk(
        &self,
        (table, entries): (u64, u16),
        head: u16,
        segments: &mut Vec<Segment>,
    ) -> Result<Option<(u64, u32)>, Fault> {
        let mut index = head;
        for _ in 0..entries.min(RING_MAX) {
            if index >= entries {
                return Err(Fault::HeadIndex(index));
            }
            let place = table.saturating_add(u64::from(index) * DESCRIPTOR_BYTES);
            let mut raw = [0; 16];
            self.memory.read(place, &mut raw)?;
            let raw = u128::from_le_bytes(raw);
            let at = u64::try_from(raw & u128::from(u64::MAX)).unwrap_or(u64::MAX);
            let length = u32::try_from(raw >> 64 & u128::from(u32::MAX)).unwrap_or(u32::MAX);
            let flags = u16::try_from(raw >> 96 & 0xffff).unwrap_or(u16::MAX);
            if flags & FLAG_INDIRECT != 0 {
                let last = flags & FLAG_NEXT == 0;
                return if last { Ok(Some((at, length))) } else { Err(Fault::IndirectMalformed) };
            }
            segments.push(Segment { at, length, writable: flags & FLAG_WRITE != 0 });
            if flags & FLAG_NEXT == 0 {
                return Ok(None);
            }
            index = u16::try_from(raw >> 112).unwrap_or(u16::MAX);
        }
        Err(Fault::ChainLoop)
    }

    /// Gives the request at `head` back with `written` bytes.
    pub(super) fn give_back(&mut self, head: u16, written: u32) -> Result<(), Fault> {
        let entry = u64::from(self.next_used % self.size);
        let element = u64::from(head) | u64::from(written) << 32;
        self.memory.write(self.place.used + 4 + 8 * entry, &element.to_le_bytes())?;
        self.next_used = self.next_used.wrapping_add(1);
        self.memory.store(self.place.used + 2, self.next_used)
    }

    /// Whether the driver wants to be interrupted for what was given back since the last call.
    pub(super) fn wants_interrupt(&mut self) -> Result<bool, Fault> {
        let (before, now) = (self.told_used, self.next_used);
        if before == now {
            return Ok(false);
        }
        self.told_used = now;
        // The used index must be visible before we look whether anybody waits for it.
        fence(Ordering::SeqCst);
        if !self.event_index {
            return Ok(self.memory.load(self.place.available)? & NO_INTERRUPT == 0);
        }
        let event = self.memory.load(self.place.available + 4 + 2 * u64::from(self.size))?;
        Ok(now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before))
    }

    /// Asks for no kicks while we look anyway.
    pub(super) fn no_kicks(&self) -> Result<(), Fault> {
        if self.event_index { Ok(()) } else { self.memory.store(self.place.used, NO_KICK) }
    }

    /// Asks for a kick at the next request; true if one came meanwhile.
    pub(super) fn ask_for_kick(&self) -> Result<bool, Fault> {
        if self.event_index {
            let at = self.place.used + 4 + 8 * u64::from(self.size);
            self.memory.store(at, self.next_available)?;
        } else {
            self.memory.store(self.place.used, 0)?;
        }
        fence(Ordering::SeqCst);
        Ok(self.waiting()? > 0)
    }
}
