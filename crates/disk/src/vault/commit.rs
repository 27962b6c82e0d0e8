//! Commits: what makes completed writes durable with one synchronisation.
//!
//! Flushes that wait for the same commit share it: each takes a ticket before it waits, a commit
//! covers every ticket that was taken before it began.

use std::{io, sync::Arc, sync::atomic::Ordering};

use super::{
    engine::Engine,
    header::{Header, LOG_SLOT, SLOT_BYTES},
    kdf::HeaderKey,
    keyarea::KeyArea,
    keyring::VolumeKeys,
    log::{self, HEAD_BYTES, RecordHead},
    node::{Freed, Node},
    page::byte_of,
    snapshots::Entry,
    tree::{Shape, write},
    unlock::HeaderCopy,
};

/// Everything that commits in turn change.
#[derive(Debug)]
pub(crate) struct Committer {
    /// The header in force.
    pub(crate) header: Header,
    pub(crate) header_key: HeaderKey,
    pub(crate) keys: VolumeKeys,
    pub(crate) area: KeyArea,
    /// The copy that is in force: the next commit of a header writes the other one first.
    pub(crate) in_force: HeaderCopy,
    /// Slots of the log that are taken.
    pub(crate) position: u64,
    /// Number of the next record.
    pub(crate) number: u64,
    /// Tag of the record before, or the header's chain salt.
    pub(crate) chain: [u8; 16],
    /// The record before holds sectors, and nothing says yet that it was synchronised.
    pub(crate) unconfirmed: bool,
    /// Free when the references that were collected last are durable.
    pub(crate) pending: Vec<Freed>,
    /// Free when the next header is durable.
    pub(crate) pending_pages: Vec<Freed>,
    /// Slots of the session pages.
    pub(crate) chain_slots: Vec<u64>,
    /// In the snapshot page.
    pub(crate) snapshots: Vec<Entry>,
    /// Tickets that are covered.
    pub(crate) done: u64,
}

/// Pages whose unlogged references were collected, to give them back if the commit fails.
pub(crate) type Collected = Vec<(Arc<Node>, u128)>;

impl Engine {
    /// Makes every write that completed before this call durable.
    pub(crate) fn commit(&self, shape: &Shape) -> io::Result<()> {
        let ticket = self.tickets.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let mut committer = self.committer();
        self.check_failed()?;
        if committer.done >= ticket {
            return Ok(());
        }
        let covered = self.tickets.load(Ordering::SeqCst);
        self.commit_locked(shape, &mut committer)?;
        committer.done = covered;
        if committer.position > u64::from(committer.header.log_slots) / 2 {
            self.wake.now();
        }
        Ok(())
    }

    /// Writes a record of everything that is unlogged, or a checkpoint if it does not fit.
    fn commit_locked(&self, shape: &Shape, committer: &mut Committer) -> io::Result<()> {
        let mut body = Vec::new();
        let mut nodes = self.tree.take_unlogged();
        nodes.sort_unstable_by_key(|node| node.id);
        let mut collected: Collected = Vec::with_capacity(nodes.len());
        for node in nodes {
            let mut guard = write(&node);
            let Some(state) = guard.as_mut() else { continue };
            let bits = state.collect(&mut committer.pending);
            if bits != 0 {
                let first = node.id.number.saturating_mul(128);
                log::encode_page(&mut body, first, state.refs(), bits);
                drop(guard);
                collected.push((node, bits));
            }
        }
        if collected.is_empty() {
            return Ok(());
        }
        if !fits(committer, body.len()) {
            let done = self.checkpoint(shape, committer, &mut |_| Ok(()));
            return done.inspect_err(|_| self.uncollect(&collected));
        }
        log::finish_body(&mut body);
        self.append(shape, committer, body, true).inspect_err(|_| self.uncollect(&collected))?;
        self.release(std::mem::take(&mut committer.pending));
        Ok(())
    }

    /// Says with an empty record that the record before it was synchronised, so that a reader may
    /// hold it against a record whose sectors do not open.
    pub(crate) fn confirm(&self, shape: &Shape) -> io::Result<()> {
        let mut committer = self.committer();
        if !committer.unconfirmed || self.failed() || !fits(&committer, 16) {
            return Ok(());
        }
        let mut body = Vec::new();
        log::finish_body(&mut body);
        self.append(shape, &mut committer, body, false)
    }

    /// Appends a record and synchronises.
    fn append(
        &self,
        shape: &Shape,
        committer: &mut Committer,
        mut body: Vec<u8>,
        unconfirmed: bool,
    ) -> io::Result<()> {
        let cipher_failed = |_| io::Error::other("the cipher failed");
        let head = RecordHead {
            number: committer.number,
            generation: committer.header.generation,
            length: u32::try_from(body.len()).map_err(io::Error::other)?,
            session: committer.header.session.id,
            sequence: shape.ring.take(1).map_err(cipher_failed)?,
        };
        let about = head.about(shape.ring.uuid(), &committer.chain);
        let tag =
            shape.ring.seal_record(head.sequence, &about, &mut body).map_err(cipher_failed)?;
        let mut record = Vec::with_capacity(HEAD_BYTES + body.len() + SLOT_BYTES);
        record.extend(head.encode());
        record.extend(tag);
        record.append(&mut body);
        record.resize(record.len().next_multiple_of(SLOT_BYTES), 0);
        let at = LOG_SLOT.saturating_add(committer.position);
        self.medium.write_at(byte_of(at), &record)?;
        self.or_fail(self.medium.sync())?;
        committer.position = committer.position.saturating_add(head.slots());
        committer.number = committer.number.saturating_add(1);
        committer.chain = tag;
        committer.unconfirmed = unconfirmed;
        Ok(())
    }

    /// Gives back what a failed commit collected.
    pub(crate) fn uncollect(&self, collected: &Collected) {
        for (node, bits) in collected {
            let mut guard = write(node);
            let Some(state) = guard.as_mut() else { continue };
            let first = state.restore_unlogged(*bits);
            self.tree.note(node, first, false);
        }
    }

    /// Commits, or makes a checkpoint if too many pages changed.
    pub(crate) fn relieve_now(&self, shape: &Shape, checkpoint: bool) -> io::Result<()> {
        if !checkpoint {
            return self.commit(shape);
        }
        let mut committer = self.committer();
        self.check_failed()?;
        self.checkpoint(shape, &mut committer, &mut |_| Ok(()))
    }
}

fn fits(committer: &Committer, body: usize) -> bool {
    let slots = u64::try_from(body).map_or(u64::MAX, log::slots_for);
    let end = committer.position.saturating_add(slots);
    end <= u64::from(committer.header.log_slots) && u32::try_from(body).is_ok()
}
