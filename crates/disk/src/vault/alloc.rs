//! Which slots are free. Nothing in the file says so: the map is made when a volume is opened for
//! writing, from what the roots and the log reach.
//!
//! The first version of sector `s` goes to its *home*, slot `D + s`. A rewrite goes home if that is
//! free again, else into the longest run of *recycled* slots that the search meets, else behind
//! everything. Recycled are slots that were used before; the home of a sector that never was
//! written, or was trimmed, is free but not recycled, so that a later first write still lies in
//! order.

use super::header::SLOT_LIMIT;

/// Runs that a search looks at before it takes the best.
const CANDIDATES: usize = 32;

/// Slots that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) slot: u64,
    pub(crate) count: u64,
}

/// A set of slot numbers.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn place(slot: u64) -> (usize, u64) {
        (usize::try_from(slot / 64).unwrap_or(usize::MAX), 1 << (slot % 64))
    }

    fn has(&self, slot: u64) -> bool {
        let (word, bit) = Self::place(slot);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Puts the slot in; false if it was there.
    fn put(&mut self, slot: u64) -> bool {
        let (word, bit) = Self::place(slot);
        if word >= self.0.len() {
            self.0.resize(word.saturating_add(1).next_power_of_two(), 0);
        }
        let Some(word) = self.0.get_mut(word) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Takes the slot out; false if it was not there.
    fn cut(&mut self, slot: u64) -> bool {
        let (word, bit) = Self::place(slot);
        let Some(word) = self.0.get_mut(word) else { return false };
        let there = *word & bit != 0;
        *word &= !bit;
        there
    }

    /// The first member from `slot` on.
    fn next(&self, slot: u64) -> Option<u64> {
        let (first, bit) = Self::place(slot);
        let mut mask = !(bit.wrapping_sub(1));
        for (at, word) in self.0.iter().enumerate().skip(first) {
            let word = word & mask;
            mask = u64::MAX;
            if word != 0 {
                let base = u64::try_from(at).ok()?.checked_mul(64)?;
                return Some(base + u64::from(word.trailing_zeros()));
            }
        }
        None
    }

    /// Members that follow each other from `slot` on, at most `limit`.
    fn run(&self, slot: u64, limit: u64) -> u64 {
        let mut count = 0;
        while count < limit && self.has(slot.saturating_add(count)) {
            count += 1;
        }
        count
    }
}

/// The slots of an open volume.
#[derive(Debug)]
pub(crate) struct Slots {
    used: Bits,
    recycled: Bits,
    recycled_count: u64,
    used_count: u64,
    /// The home of sector 0, and the first slot that is nobody's home.
    first: u64,
    homes_end: u64,
    cursor: u64,
    /// Nothing at or behind it is used.
    end: u64,
}

/// No slot is left below the format's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoSlots;

impl Slots {
    /// Nothing used. `first` is the first slot of data, `sectors` the length of the disk.
    pub(crate) fn new(first: u64, sectors: u64) -> Self {
        Self {
            used: Bits::default(),
            recycled: Bits::default(),
            recycled_count: 0,
            used_count: 0,
            first,
            homes_end: first.saturating_add(sectors),
            cursor: 0,
            end: first,
        }
    }

    /// The disk has another length.
    pub(crate) const fn set_sectors(&mut self, sectors: u64) {
        self.homes_end = self.first.saturating_add(sectors);
    }

    /// Says that something names `slot`; false if something else does already.
    pub(crate) fn mark(&mut self, slot: u64) -> bool {
        self.end = self.end.max(slot.saturating_add(1));
        if self.recycled.cut(slot) {
            self.recycled_count = self.recycled_count.saturating_sub(1);
        }
        let new = self.used.put(slot);
        self.used_count = self.used_count.saturating_add(u64::from(new));
        new
    }

    /// Says that `sector` lies elsewhere than at home: nothing waits for its home.
    pub(crate) fn displaced(&mut self, sector: u64) {
        self.recycled.put(self.first.saturating_add(sector));
    }

    /// After the marking: every free slot behind the homes may be used anew, and so may the homes
    /// of displaced sectors.
    pub(crate) fn settle(&mut self) {
        for slot in self.homes_end..self.end {
            self.recycled.put(slot);
        }
        let mut count = 0_u64;
        for (at, word) in self.recycled.0.iter_mut().enumerate() {
            *word &= !self.used.0.get(at).copied().unwrap_or(0);
            count = count.saturating_add(u64::from(word.count_ones()));
        }
        self.recycled_count = count;
    }

    /// Lets a free slot be used for anything.
    fn recycle(&mut self, slot: u64) {
        if slot >= self.first && !self.used.has(slot) && self.recycled.put(slot) {
            self.recycled_count = self.recycled_count.saturating_add(1);
        }
    }

    /// No used slot is at or behind this one.
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Slots in use.
    pub(crate) const fn used(&self) -> u64 {
        self.used_count
    }

    /// Takes the homes of `count` sectors from `sector` on, if all of them are free.
    pub(crate) fn take_home(&mut self, sector: u64, count: u64) -> Option<Run> {
        let slot = self.first.checked_add(sector)?;
        let end = slot.checked_add(count)?;
        if end > SLOT_LIMIT || (slot..end).any(|slot| self.used.has(slot)) {
            return None;
        }
        for slot in slot..end {
            self.mark(slot);
        }
        Some(Run { slot, count })
    }

    /// Takes at most `count` slots that follow each other, anywhere; at least one.
    pub(crate) fn take(&mut self, count: u64) -> Result<Run, NoSlots> {
        if let Some(run) = self.find(count) {
            for slot in run.slot..run.slot.saturating_add(run.count) {
                self.mark(slot);
            }
            self.cursor = run.slot.saturating_add(run.count);
            return Ok(run);
        }
        let slot = self.end.max(self.homes_end);
        if slot.saturating_add(count) > SLOT_LIMIT {
            return Err(NoSlots);
        }
        for slot in slot..slot.saturating_add(count) {
            self.mark(slot);
        }
        Ok(Run { slot, count })
    }

    fn find(&self, count: u64) -> Option<Run> {
        if self.recycled_count == 0 {
            return None;
        }
        let mut best: Option<Run> = None;
        let mut at = self.cursor;
        let mut wrapped = false;
        for _ in 0..CANDIDATES {
            let Some(slot) = self.recycled.next(at) else {
                if wrapped {
                    break;
                }
                wrapped = true;
                at = 0;
                continue;
            };
            let length = self.recycled.run(slot, count);
            if best.is_none_or(|best| length > best.count) {
                best = Some(Run { slot, count: length });
            }
            if length >= count {
                break;
            }
            at = slot.saturating_add(length);
        }
        best
    }

    /// Gives a slot back. `keep_home`: if it is a home, it waits for its sector.
    pub(crate) fn release(&mut self, slot: u64, keep_home: bool) {
        if !self.used.cut(slot) {
            return;
        }
        self.used_count = self.used_count.saturating_sub(1);
        if !(keep_home && slot < self.homes_end) {
            self.recycle(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_first_write_lies_at_home_and_a_rewrite_in_what_was_left() {
        let mut slots = Slots::new(320, 100);
        assert_eq!(slots.take_home(5, 10), Some(Run { slot: 325, count: 10 }));
        assert_eq!(slots.take_home(14, 2), None);
        assert_eq!(slots.take(4), Ok(Run { slot: 420, count: 4 }));
        slots.release(326, false);
        slots.release(327, true);
        assert_eq!(slots.take(4), Ok(Run { slot: 326, count: 1 }));
        assert_eq!(slots.take(4), Ok(Run { slot: 424, count: 4 }));
        assert_eq!(slots.take_home(7, 1), Some(Run { slot: 327, count: 1 }));
    }

    #[test]
    fn a_long_run_is_preferred_to_the_next_hole() {
        let mut slots = Slots::new(320, 0);
        assert_eq!(slots.take(40), Ok(Run { slot: 320, count: 40 }));
        slots.release(322, false);
        for slot in 330..350 {
            slots.release(slot, false);
        }
        assert_eq!(slots.take(8), Ok(Run { slot: 330, count: 8 }));
    }

    proptest! {
        #[test]
        fn no_slot_is_given_twice(steps in prop::collection::vec((0_u64..4, 0_u64..64, 1_u64..20), 1..200)) {
            let mut slots = Slots::new(320, 64);
            let mut out: Vec<u64> = Vec::new();
            let mut set = HashSet::new();
            for (what, at, count) in steps {
                let run = match what {
                    0 => slots.take_home(at, count),
                    1 => Some(slots.take(count).unwrap()),
                    _ => {
                        if !out.is_empty() {
                            let slot = out.swap_remove(usize::try_from(at).unwrap() % out.len());
                            set.remove(&slot);
                            slots.release(slot, what == 3);
                        }
                        None
                    }
                };
                let Some(run) = run else { continue };
                prop_assert!(run.count >= 1 && run.count <= count);
                for slot in run.slot..run.slot + run.count {
                    prop_assert!(slot >= 320 && slot < slots.end());
                    prop_assert!(set.insert(slot));
                    out.push(slot);
                }
            }
            prop_assert_eq!(slots.used(), u64::try_from(set.len()).unwrap());
        }
    }
}
