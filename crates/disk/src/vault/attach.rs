//! Opening a volume.
//!
//! ```text
//!   first slots + secret -> header -> anchor -> sessions -> snapshots -> log
//!     read-only: the log is laid over the tree in memory
//!     writing:   walk -> free slots; new session -> chain, pages, header -> open
//! ```
//!
//! **Invariant:** before the first write of an attachment a header that names its session is
//! durable, so nothing is ever sealed under a key that a copy of the file might use as well.

use std::{collections::BTreeMap, io, sync::Arc};

use model::Secret;

use super::{
    alloc::Slots,
    commit::Committer,
    engine::{Engine, Manner},
    header::{Header, SLOT_LIMIT, SessionRecord},
    kdf,
    keyring::{Keyring, VolumeKeys},
    log::Item,
    medium::Medium,
    node::{FAN, Freed, NodeId},
    page::{byte_of, volume_error},
    refs::Ref,
    replay::{self, Replayed},
    sessions::{self, Chain},
    snapshots::{self, Entry},
    tree::{Shape, Tree, write},
    unlock::{START_BYTES, Unlocked, unlock},
    volume::VaultVolume,
    walk::Survey,
};
use crate::{OpenOptions, Rejection, VolumeError, open::check_secret};

/// Bytes of tree pages in memory, unless said.
const CACHE_BYTES: u64 = 128 << 20;

/// Opens the volume on `medium`, which is locked by whoever made it.
///
/// # Errors
/// A [`Rejection`], or the medium's error.
pub fn open_on(
    medium: Arc<dyn Medium>,
    secret: &Secret<Vec<u8>>,
    options: &OpenOptions,
) -> Result<VaultVolume, VolumeError> {
    let start = read_start(medium.as_ref())?;
    check_secret(secret)?;
    let unlocked = unlock(&start, secret.expose(), options.kmi.as_ref())?;
    check_anchor(&unlocked.header, options.anchor)?;
    let length = medium.length().map_err(VolumeError::io("measure the volume"))?;
    if length < byte_of(unlocked.header.end) {
        return Err(Rejection::Truncated.into());
    }
    Attachment::begin(medium, unlocked, options)?.finish()
}

/// Both headers and both key areas; what the medium lacks of them is zeros.
pub(crate) fn read_start(medium: &dyn Medium) -> Result<Box<[u8; START_BYTES]>, VolumeError> {
    let failed = || VolumeError::io("read the header");
    let mut start = vec![0; START_BYTES];
    let length = medium.length().map_err(failed())?;
    let there = usize::try_from(length).unwrap_or(usize::MAX).min(START_BYTES);
    let part = start.get_mut(..there).unwrap_or_default();
    medium.read_at(0, part).map_err(failed())?;
    start.into_boxed_slice().try_into().map_err(|_| Rejection::Truncated.into())
}

fn check_anchor(header: &Header, anchor: Option<u64>) -> Result<(), Rejection> {
    Ok(anchor.map_or(Ok(()), |counter| model::anchor::accept(counter, header.anchor_count))?)
}

/// An opening in progress.
struct Attachment<'a> {
    medium: Arc<dyn Medium>,
    options: &'a OpenOptions,
    unlocked: Unlocked,
    keys: VolumeKeys,
    ring: Keyring,
    chain: Chain,
    snapshots: Vec<Entry>,
    log: Replayed,
}

impl<'a> Attachment<'a> {
    fn begin(
        medium: Arc<dyn Medium>,
        unlocked: Unlocked,
        options: &'a OpenOptions,
    ) -> Result<Self, VolumeError> {
        let header = &unlocked.header;
        let keys = VolumeKeys {
            epoch: header.epoch,
            current: unlocked.volume_key.clone(),
            previous: unlocked.old_key.clone(),
        };
        let first_slot = header.data_slot();
        let current = (header.session.id != 0).then_some(header.session);
        let ring = |records: &[SessionRecord]| {
            Keyring::new(header.uuid, header.suite, &keys, records, header.next_sequence)
        };
        let alone = ring(current.as_slice())?;
        let chain = sessions::read(medium.as_ref(), &alone, &header.sessions, first_slot)
            .map_err(volume_error("read the sessions"))?;
        let ring = ring(&merge(&chain.entries, current)?)?;
        let snapshots = snapshots::read(medium.as_ref(), &ring, &header.snapshots, first_slot)
            .map_err(volume_error("read the snapshots"))?;
        let log =
            replay::replay(medium.as_ref(), &ring, header).map_err(volume_error("read the log"))?;
        ring.skip_to(log.sequence.saturating_add(1));
        Ok(Self { medium, options, unlocked, keys, ring, chain, snapshots, log })
    }

    fn finish(self) -> Result<VaultVolume, VolumeError> {
        match &self.options.snapshot {
            Some(name) => {
                let wanted = |entry: &&Entry| entry.name.as_str() == name;
                let entry = self.snapshots.iter().find(wanted).cloned();
                let entry = entry.ok_or(Rejection::SnapshotNotFound)?;
                if !self.options.read_only {
                    return Err(Rejection::unsupported("writing to a snapshot").into());
                }
                self.read_only(Some(&entry))
            }
            None if self.options.read_only => self.read_only(None),
            None => self.writing(),
        }
    }

    fn read_only(self, snapshot: Option<&Entry>) -> Result<VaultVolume, VolumeError> {
        let slots = Slots::new(self.unlocked.header.data_slot(), 0);
        let log = if snapshot.is_some() { Vec::new() } else { self.log.items.clone() };
        let (engine, identity) = self.engine(slots, snapshot);
        apply(&engine, &log).map_err(volume_error("lay the log over the tree"))?;
        VaultVolume::start(engine, identity)
    }

    /// Walks everything that is reachable.
    fn survey(&self) -> io::Result<Survey> {
        let header = &self.unlocked.header;
        let medium = self.medium.as_ref();
        let mut survey =
            Survey::of(medium, &self.ring, header, &self.snapshots, &self.chain.slots)?;
        for item in &self.log.items {
            let Item::Refs(first, names) = item else { continue };
            for (sector, name) in (*first..).zip(names) {
                survey.take(name, &self.ring, SLOT_LIMIT)?;
                if name.slot() != header.data_slot().saturating_add(sector) {
                    survey.slots.displaced(sector);
                }
            }
        }
        survey.slots.settle();
        Ok(survey)
    }

    fn writing(mut self) -> Result<VaultVolume, VolumeError> {
        let survey = self.survey().map_err(volume_error("walk the volume"))?;
        self.ring.retain(|record| survey.sessions.contains(&record.id));
        let id = self.unlocked.header.session.id.checked_add(1);
        let mut session = SessionRecord {
            id: id.ok_or_else(|| Rejection::unsupported("more sessions"))?,
            epoch: self.unlocked.header.epoch,
            salt: [0; 32],
        };
        kdf::random(&mut session.salt)?;
        let older: Vec<SessionRecord> = self.ring.records().copied().collect();
        self.ring.push(&self.keys, session)?;
        let log = std::mem::take(&mut self.log.items);
        let (engine, identity) = self.engine(survey.slots, None);
        apply(&engine, &log).map_err(volume_error("lay the log over the tree"))?;
        {
            let shape = engine.enter();
            let mut committer = engine.committer();
            engine
                .begin_session(&shape, &mut committer, session, &older, &mut |_| ())
                .map_err(volume_error("begin a session"))?;
        }
        VaultVolume::start(engine, identity)
    }

    fn engine(self, slots: Slots, snapshot: Option<&Entry>) -> (Engine, Identity) {
        let Unlocked { header, header_key, in_force, area, slot, kmi, damage, .. } = self.unlocked;
        let (size, depth, root) = match snapshot {
            Some(entry) => (entry.size, entry.depth, entry.root),
            None => (header.size, header.depth, header.root),
        };
        let barrier = self.snapshots.iter().map(|entry| entry.barrier).max().unwrap_or(0);
        let first_slot = header.data_slot();
        // Who writes has walked all of it, and goes behind this header's end.
        let end = if self.options.read_only { header.end } else { SLOT_LIMIT };
        let shape = Shape { ring: self.ring, size, depth, barrier, first_slot, end };
        let cache = self.options.cache_bytes.unwrap_or(CACHE_BYTES);
        let tree = Tree::new(Arc::clone(&self.medium), root, cache);
        let committer = Committer {
            header_key,
            keys: self.keys,
            area,
            in_force,
            position: self.log.position,
            number: self.log.number,
            chain: header.chain_salt,
            unconfirmed: false,
            pending: Vec::new(),
            pending_pages: Vec::new(),
            done: 0,
            header,
            snapshots: self.snapshots,
            chain_slots: self.chain.slots,
        };
        let manner = Manner { read_only: self.options.read_only, trim: self.options.trim };
        let engine = Engine::new(self.medium, manner, tree, shape, slots, committer);
        (engine, Identity { kmi, damage, key_slot: slot })
    }
}

/// What a volume says of itself.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) kmi: Option<model::Kmi>,
    pub(crate) damage: Option<String>,
    /// The key slot that opened it.
    pub(crate) key_slot: usize,
}

/// The chain's entries with the current session, which may be the last of them.
fn merge(
    entries: &[SessionRecord],
    current: Option<SessionRecord>,
) -> Result<Vec<SessionRecord>, Rejection> {
    let mut all = entries.to_vec();
    let Some(current) = current else { return Ok(all) };
    match all.last() {
        Some(last) if last.id > current.id || (last.id == current.id && *last != current) => {
            Err(Rejection::malformed("the current session"))
        }
        Some(last) if last.id == current.id => Ok(all),
        Some(_) | None => {
            all.push(current);
            Ok(all)
        }
    }
}

/// Lays the log over the tree. What it replaces stays untouched until the next header; unless a
/// later record named the same slot again, it is free then.
fn apply(engine: &Engine, items: &[Item]) -> io::Result<()> {
    let shape = engine.enter();
    let nulls = [Ref::NULL; FAN];
    let mut freed: BTreeMap<u64, bool> = BTreeMap::new();
    for item in items {
        let (first, count) = match item {
            Item::Refs(first, names) => (*first, names.len()),
            Item::Null(first, count) => (*first, usize::try_from(*count).unwrap_or(0)),
        };
        let (mut sector, mut done) = (first, 0);
        while done < count {
            let (id, index) = NodeId::of_sector(sector);
            let step = (count - done).min(FAN - index);
            let (names, trimmed) = match item {
                Item::Refs(_, names) => (names.get(done..done + step), false),
                Item::Null(..) => (nulls.get(..step), true),
            };
            let node = engine.tree.node(id);
            let names = names.unwrap_or_default();
            let mut left = engine.tree.install(&shape, &node, index, names, trimmed)?;
            if let Some(state) = write(&node).as_mut() {
                state.drain_freed(&mut left);
            }
            freed.extend(left.into_iter().map(|f| (f.slot, f.trimmed)));
            for name in names.iter().filter(|name| !name.is_null()) {
                freed.remove(&name.slot());
            }
            done += step;
            sector = first.saturating_add(super::data::length(done));
        }
    }
    let freed = freed.into_iter().map(|(slot, trimmed)| Freed { slot, trimmed });
    engine.committer().pending.extend(freed);
    Ok(())
}

impl Engine {
    /// Commits a header that names `session`, which the ring has already, and writes the chain of
    /// those that are older. `edit` has the last word.
    pub(crate) fn begin_session(
        &self,
        shape: &Shape,
        committer: &mut Committer,
        session: SessionRecord,
        older: &[SessionRecord],
        edit: &mut dyn FnMut(&mut Header),
    ) -> io::Result<()> {
        let mut chain_salt = [0; 16];
        kdf::random(&mut chain_salt).map_err(io::Error::other)?;
        let (sessions, slots) = sessions::write(self, &shape.ring, older)?;
        let old = std::mem::replace(&mut committer.chain_slots, slots);
        let old = old.into_iter().map(|slot| Freed { slot, trimmed: false });
        committer.pending_pages.extend(old);
        self.checkpoint(shape, committer, &mut |header| {
            header.session = session;
            header.sessions = sessions;
            header.chain_salt = chain_salt;
            edit(header);
            Ok(())
        })
    }
}
