//! Checkpoints: the changed pages go into the tree, the header leads to it, the log is empty.
//!
//! ```text
//!   changed pages, level by level -> sealed into free slots -> sync -> header copy -> sync -> other copy
//! ```
//!
//! **Invariant:** until the first header copy is durable, nothing that the header before it or its
//! log reaches was touched; a failure before that gives every page back as changed.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    commit::{Collected, Committer},
    engine::Engine,
    header::{Header, SLOT_BYTES},
    node::{Freed, Node},
    page,
    refs::Ref,
    seal::Unit,
    tree::{Shape, write},
};

/// Pages that are sealed and written at a time.
const BATCH: usize = 64;

/// A page that was copied to be sealed.
struct Copied {
    node: Arc<Node>,
    /// Its bytes; none if all of it is null.
    bytes: Option<Vec<u8>>,
}

/// What a checkpoint has done so far, to be undone if it fails.
#[derive(Default)]
struct Progress {
    collected: Collected,
    copied: Vec<Arc<Node>>,
}

impl Engine {
    /// Makes a checkpoint. `edit` has the last word on the header that is committed with it.
    pub(crate) fn checkpoint(
        &self,
        shape: &Shape,
        committer: &mut Committer,
        edit: &mut dyn FnMut(&mut Header) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut progress = Progress::default();
        let prepared = self.seal_changed(shape, committer, &mut progress).and_then(|()| {
            let mut header = self.next_header(shape, committer);
            edit(&mut header)?;
            Ok(header)
        });
        let header = match prepared {
            Ok(header) => header,
            Err(error) => {
                self.undo(&progress);
                return Err(error);
            }
        };
        self.or_fail(self.commit_header(committer, header))?;
        let mut freed = std::mem::take(&mut committer.pending);
        freed.append(&mut committer.pending_pages);
        self.release(freed);
        Ok(())
    }

    fn next_header(&self, shape: &Shape, committer: &Committer) -> Header {
        let mut header = committer.header.clone();
        header.root = self.tree.root();
        header.depth = shape.depth;
        header.size = shape.size;
        header.generation = header.generation.saturating_add(1);
        header.next_sequence = shape.ring.next_sequence();
        header.log_number = committer.number;
        header.clean = false;
        header
    }

    /// Synchronises, then writes both copies of a header, the one that is not in force first.
    fn commit_header(&self, committer: &mut Committer, mut header: Header) -> io::Result<()> {
        header.end = self.written_end();
        self.medium.sync()?;
        let bytes = header.encode(&committer.header_key);
        let first = committer.in_force.other();
        self.medium.write_at(first.at(), bytes.as_slice())?;
        self.medium.sync()?;
        committer.in_force = first;
        self.medium.write_at(first.other().at(), bytes.as_slice())?;
        committer.position = 0;
        committer.chain = header.chain_salt;
        committer.unconfirmed = false;
        committer.header = header;
        Ok(())
    }

    /// Seals all changed pages, from level 1 up.
    fn seal_changed(
        &self,
        shape: &Shape,
        committer: &mut Committer,
        progress: &mut Progress,
    ) -> io::Result<()> {
        // What is unlogged is changed, too, and collected below.
        drop(self.tree.take_unlogged());
        let mut levels: BTreeMap<u8, Vec<Arc<Node>>> = BTreeMap::new();
        for level in 1..=shape.depth {
            for node in self.tree.take_changed() {
                if node.id.level < level {
                    // Changed again meanwhile: the next checkpoint's.
                    self.tree.note(&node, false, true);
                } else {
                    levels.entry(node.id.level).or_default().push(node);
                }
            }
            let mut nodes = levels.remove(&level).unwrap_or_default();
            nodes.sort_unstable_by_key(|node| node.id);
            // If it fails, the levels above are given back as well.
            let rest = levels.values().flatten().chain(&nodes).cloned();
            let done = progress.copied.len();
            progress.copied.extend(rest);
            for batch in nodes.chunks(BATCH) {
                self.seal_batch(shape, committer, progress, batch)?;
            }
            progress.copied.truncate(done);
            progress.copied.append(&mut nodes);
        }
        Ok(())
    }

    fn seal_batch(
        &self,
        shape: &Shape,
        committer: &mut Committer,
        progress: &mut Progress,
        nodes: &[Arc<Node>],
    ) -> io::Result<()> {
        let mut copied = Vec::with_capacity(nodes.len());
        for node in nodes {
            let mut guard = write(node);
            let Some(state) = guard.as_mut() else { continue };
            let bits = state.collect(&mut committer.pending);
            let null = state.refs().iter().all(Ref::is_null);
            let bytes = (!null).then(|| page::encode(state.refs()));
            state.sealed();
            drop(guard);
            progress.collected.push((Arc::clone(node), bits));
            copied.push(Copied { node: Arc::clone(node), bytes });
        }
        let sealed = copied.iter().filter(|page| page.bytes.is_some()).count();
        let runs = self.take_slots(None, u64::try_from(sealed).unwrap_or(0))?;
        let mut slots = runs.iter().flat_map(|run| run.slot..run.slot.saturating_add(run.count));
        let names = self.seal_copies(shape, &mut copied, &mut slots)?;
        self.write_pages(&copied, &names).inspect_err(|_| self.return_runs(&runs))?;
        for (page, name) in copied.iter().zip(names) {
            let old = self.tree.adopt(shape, page.node.id, name)?;
            if !old.is_null() && old.sequence >= shape.barrier {
                committer.pending_pages.push(Freed { slot: old.slot(), trimmed: false });
            }
        }
        Ok(())
    }

    fn seal_copies(
        &self,
        shape: &Shape,
        copied: &mut [Copied],
        slots: &mut dyn Iterator<Item = u64>,
    ) -> io::Result<Vec<Ref>> {
        let cipher_failed = |_| io::Error::other("the cipher failed");
        let mut names = Vec::with_capacity(copied.len());
        for page in copied {
            let Some(bytes) = page.bytes.as_mut() else {
                names.push(Ref::NULL);
                continue;
            };
            let sequence = shape.ring.take(1).map_err(cipher_failed)?;
            let unit = Unit::Page(page.node.id.level, page.node.id.number);
            let name = shape.ring.seal(sequence, unit, bytes).map_err(cipher_failed)?;
            let slot = slots.next().ok_or(io::ErrorKind::StorageFull)?;
            names.push(name.at(slot).map_err(page::refused)?);
        }
        Ok(names)
    }

    /// Writes sealed pages, those in neighbouring slots at once.
    fn write_pages(&self, copied: &[Copied], names: &[Ref]) -> io::Result<()> {
        let pages = copied.iter().zip(names).filter_map(|(page, name)| {
            let bytes = page.bytes.as_ref()?;
            Some((name.slot(), bytes))
        });
        let pages: Vec<(u64, &Vec<u8>)> = pages.collect();
        for run in pages.chunk_by(|a, b| a.0.checked_add(1) == Some(b.0)) {
            let Some((slot, _)) = run.first() else { continue };
            let mut bytes = Vec::with_capacity(run.len() * SLOT_BYTES);
            run.iter().for_each(|(_, page)| bytes.extend_from_slice(page));
            self.write_slot(*slot, &bytes)?;
        }
        Ok(())
    }

    fn undo(&self, progress: &Progress) {
        self.uncollect(&progress.collected);
        for node in &progress.copied {
            let mut guard = write(node);
            let Some(state) = guard.as_mut() else { continue };
            // It may have changed again and be on the list; twice does no harm.
            state.restore_changed();
            self.tree.note(node, false, true);
        }
    }
}
