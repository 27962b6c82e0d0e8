//! One page of the tree in memory: 128 references, what changed in them, and which slots their
//! changes left behind.
//!
//! ```text
//!   not loaded -> clean -> changed (pinned; level 1: also unlogged) -> sealed by a checkpoint: clean
//! ```
//!
//! **Invariant:** of each page there is one [`Node`] at most, so a load cannot bring back an older
//! version: it runs under the node's lock, and a node that somebody holds is never dropped.

use std::sync::{
    RwLock,
    atomic::{AtomicBool, Ordering},
};

use super::refs::Ref;

/// References in a page.
pub(crate) const FAN: usize = 128;

/// Which page: its level, from 1, and its number in the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId {
    pub(crate) level: u8,
    pub(crate) number: u64,
}

impl NodeId {
    /// The page of level 1 that refers to `sector`, and the index in it.
    pub(crate) const fn of_sector(sector: u64) -> (Self, usize) {
        // Below 128, so it fits.
        (Self { level: 1, number: sector / 128 }, (sector % 128) as usize)
    }

    /// The page that refers to this one, and the index in it.
    pub(crate) const fn parent(self) -> (Self, usize) {
        let parent = Self { level: self.level + 1, number: self.number / 128 };
        (parent, (self.number % 128) as usize)
    }

    /// The first sector that the page, or the sector at level 0, leads to.
    pub(crate) const fn first_sector(self) -> u64 {
        // 128 to the power of the level, which is at most 6.
        self.number.saturating_mul(1 << (7 * self.level as u32))
    }

    /// The page's child at `index`.
    pub(crate) fn child(self, index: usize) -> Self {
        let index = u64::try_from(index).unwrap_or(0);
        let number = self.number.saturating_mul(128).saturating_add(index);
        Self { level: self.level.saturating_sub(1), number }
    }
}

/// A slot that nothing live names any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Freed {
    pub(crate) slot: u64,
    /// It was trimmed: the space goes back to the medium.
    pub(crate) trimmed: bool,
}

/// What a [`State::replace`] did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Replaced {
    /// A slot that may be reused at once: nothing durable ever named it.
    pub(crate) free_now: Option<Freed>,
    /// A slot was set aside until the next commit.
    pub(crate) set_aside: bool,
    /// The page had nothing unlogged before.
    pub(crate) first_unlogged: bool,
    /// The page was unchanged before.
    pub(crate) first_change: bool,
}

/// The content of a page.
#[derive(Debug)]
pub(crate) struct State {
    refs: Box<[Ref; FAN]>,
    /// References that no record and no sealed page holds yet, a bit each.
    unlogged: u128,
    /// Differs from what the parent leads to.
    changed: bool,
    freed: Vec<Freed>,
}

impl State {
    pub(crate) const fn new(refs: Box<[Ref; FAN]>) -> Self {
        Self { refs, unlogged: 0, changed: false, freed: Vec::new() }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Box::new([Ref::NULL; FAN]))
    }

    pub(crate) const fn refs(&self) -> &[Ref; FAN] {
        &self.refs
    }

    pub(crate) fn get(&self, index: usize) -> Ref {
        self.refs.get(index).copied().unwrap_or(Ref::NULL)
    }

    /// Puts `new` at `index`. What it replaces is free now or after the next commit, unless it is
    /// older than `barrier` and so belongs to a snapshot.
    pub(crate) fn replace(
        &mut self,
        index: usize,
        new: Ref,
        barrier: u64,
        trimmed: bool,
    ) -> Replaced {
        let Some(place) = self.refs.get_mut(index) else { return Replaced::default() };
        let old = std::mem::replace(place, new);
        let bit = 1_u128 << (index % FAN);
        let mut done = Replaced {
            first_unlogged: self.unlogged == 0,
            first_change: !self.changed,
            ..Replaced::default()
        };
        if !old.is_null() && old.sequence >= barrier {
            let freed = Freed { slot: old.slot(), trimmed };
            if self.unlogged & bit == 0 {
                self.freed.push(freed);
                done.set_aside = true;
            } else {
                done.free_now = Some(freed);
            }
        }
        self.unlogged |= bit;
        self.changed = true;
        done
    }

    /// Puts the reference of a child page at `index` and returns the old one.
    pub(crate) fn adopt(&mut self, index: usize, new: Ref) -> (Ref, bool) {
        let Some(place) = self.refs.get_mut(index) else { return (Ref::NULL, false) };
        let first = !self.changed;
        self.changed = true;
        (std::mem::replace(place, new), first)
    }

    /// Takes what a commit must hold: the unlogged references and the slots that they left.
    pub(crate) fn collect(&mut self, freed: &mut Vec<Freed>) -> u128 {
        freed.append(&mut self.freed);
        std::mem::take(&mut self.unlogged)
    }

    /// Takes the slots that were left behind.
    pub(crate) fn drain_freed(&mut self, freed: &mut Vec<Freed>) {
        freed.append(&mut self.freed);
    }

    /// The page was copied to be sealed.
    pub(crate) const fn sealed(&mut self) {
        self.changed = false;
    }

    /// A commit failed before anything of it was durable. True if the page had nothing unlogged.
    pub(crate) fn restore_unlogged(&mut self, bits: u128) -> bool {
        let first = self.unlogged == 0;
        self.unlogged |= bits;
        first
    }

    /// A checkpoint failed. True if the page was unchanged.
    pub(crate) const fn restore_changed(&mut self) -> bool {
        let first = !self.changed;
        self.changed = true;
        first
    }
}

/// A page, perhaps not loaded yet.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) state: RwLock<Option<State>>,
    recent: AtomicBool,
}

impl Node {
    pub(crate) const fn new(id: NodeId) -> Self {
        Self { id, state: RwLock::new(None), recent: AtomicBool::new(true) }
    }

    pub(crate) fn touch(&self) {
        if !self.recent.load(Ordering::Relaxed) {
            self.recent.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since this was asked last.
    pub(crate) fn cool(&self) -> bool {
        self.recent.swap(false, Ordering::Relaxed)
    }
}
