//! Walking a tree as it lies on the medium: which slots it takes, and which sessions sealed it.

use std::{collections::BTreeSet, io};

use super::{
    alloc::Slots,
    header::Header,
    keyring::Keyring,
    medium::Medium,
    node::NodeId,
    page::{self, Bounds, refused},
    refs::Ref,
    snapshots::Entry,
};
use crate::Rejection;

/// What the walks found.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) slots: Slots,
    pub(crate) sessions: BTreeSet<u32>,
    /// Pages of all trees.
    pub(crate) pages: u64,
    /// References to sectors of all trees, shared ones once a tree.
    pub(crate) sectors: u64,
}

/// One tree to walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub(crate) name: Ref,
    pub(crate) depth: u8,
    pub(crate) bounds: Bounds,
    /// It is the live disk, whose sectors have homes.
    pub(crate) live: bool,
}

impl Survey {
    pub(crate) const fn new(slots: Slots) -> Self {
        Self { slots, sessions: BTreeSet::new(), pages: 0, sectors: 0 }
    }

    /// Walks all that `header` leads to; the slots are not settled yet.
    ///
    /// # Errors
    /// As for [`Survey::walk`].
    pub(crate) fn of(
        medium: &dyn Medium,
        ring: &Keyring,
        header: &Header,
        snapshots: &[Entry],
        chain: &[u64],
    ) -> io::Result<Self> {
        let (first_slot, end) = (header.data_slot(), header.end);
        let bounds = Bounds { first_slot, end, sectors: header.size.div_ceil(4096) };
        let mut survey = Self::new(Slots::new(first_slot, bounds.sectors));
        let live = Root { name: header.root, depth: header.depth, bounds, live: true };
        survey.walk(medium, ring, live)?;
        for entry in snapshots {
            let (name, depth) = (entry.root, entry.depth);
            let bounds = Bounds { sectors: entry.size.div_ceil(4096), ..bounds };
            survey.walk(medium, ring, Root { name, depth, bounds, live: false })?;
        }
        for name in [&header.sessions, &header.snapshots].into_iter().filter(|r| !r.is_null()) {
            survey.take(name, ring, header.end)?;
        }
        for slot in chain {
            survey.slots.mark(*slot);
        }
        Ok(survey)
    }

    /// Walks the tree at `root`.
    ///
    /// # Errors
    /// A [`Rejection`] in it if a page is damaged or malformed, or the medium's error.
    pub(crate) fn walk(
        &mut self,
        medium: &dyn Medium,
        ring: &Keyring,
        root: Root,
    ) -> io::Result<()> {
        let mut open = vec![(root.name, NodeId { level: root.depth, number: 0 })];
        while let Some((name, id)) = open.pop() {
            if name.is_null() {
                continue;
            }
            // A page that two trees share was walked with all that is below it.
            if !self.take(&name, ring, root.bounds.end)? {
                if root.live {
                    return Err(refused(Rejection::malformed("a page that has two places")));
                }
                continue;
            }
            self.pages += 1;
            let refs = page::read(medium, ring, &name, id, &root.bounds)?;
            for (index, child) in refs.iter().enumerate().filter(|(_, child)| !child.is_null()) {
                let below = id.child(index);
                if id.level > 1 {
                    open.push((*child, below));
                    continue;
                }
                // The child of a page of level 1 is a sector of that number.
                let sector = below.number;
                self.sectors += 1;
                self.take(child, ring, root.bounds.end)?;
                if root.live && child.slot() != root.bounds.first_slot.saturating_add(sector) {
                    self.slots.displaced(sector);
                }
            }
        }
        Ok(())
    }

    /// Marks what `name` names; false if it was marked already.
    pub(crate) fn take(&mut self, name: &Ref, ring: &Keyring, end: u64) -> io::Result<bool> {
        if name.slot() >= end {
            return Err(refused(Rejection::malformed("a reference behind the end")));
        }
        if self.sessions.last() != Some(&name.session) && self.sessions.insert(name.session) {
            ring.epoch_of(name.session)
                .ok_or_else(|| refused(Rejection::malformed("an unknown session")))?;
        }
        Ok(self.slots.mark(name.slot()))
    }
}
