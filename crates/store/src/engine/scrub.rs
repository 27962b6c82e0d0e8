//! The full check: the hash chain is recomputed, and the present state is replayed from the oldest
//! one and compared.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    backend::State,
    engine::{
        compact::state_digest,
        read::{commit_at, past},
        record::{Commit, Meta, encode_record, link, parse_revision},
        rows::{Bounds, Rows, Table},
    },
    error::StoreError,
    key::Key,
    types::{Event, KeyValue, Revision},
};

/// Checks everything that the chain covers.
pub(crate) fn scrub(rows: &dyn Rows) -> Result<State, StoreError> {
    let meta = Meta::load(rows)?;
    let mut replay = Replay::start(rows, &meta)?;
    rows.scan(Table::Changes, &Bounds::all(), &mut |key, row| {
        replay.step(rows, parse_revision(key)?, row)?;
        Ok(ControlFlow::Continue(()))
    })?;
    replay.finish(rows, &meta)?;
    Ok(meta.state())
}

struct Replay {
    revision: Revision,
    chain: [u8; 32],
    live: BTreeMap<Key, KeyValue>,
    compacted: Revision,
    /// Digest of the state at the oldest revision; a compaction's commit must agree.
    base: [u8; 32],
    base_seen: bool,
}

impl Replay {
    fn start(rows: &dyn Rows, meta: &Meta) -> Result<Self, StoreError> {
        let chain = commit_at(rows, meta.compacted)?
            .ok_or_else(|| StoreError::corrupt("the commit of the compaction is missing"))?;
        let mut live = BTreeMap::new();
        past(rows, &Bounds::all(), meta.compacted, &mut |entry| {
            live.insert(entry.key.clone(), entry);
            ControlFlow::Continue(())
        })?;
        let base = state_digest(rows, meta.compacted)?;
        let (revision, compacted) = (meta.compacted, meta.compacted);
        Ok(Self { revision, chain, live, compacted, base, base_seen: compacted == 0 })
    }

    fn step(&mut self, rows: &dyn Rows, revision: Revision, row: &[u8]) -> Result<(), StoreError> {
        if self.revision.checked_add(1) != Some(revision) {
            return Err(damaged(revision, "its predecessor is missing"));
        }
        self.revision = revision;
        self.chain = link(&self.chain, revision, row);
        if commit_at(rows, revision)? != Some(self.chain) {
            return Err(damaged(revision, "the hash chain does not match"));
        }
        match Commit::decode(row)? {
            Commit::Changes(events) => events.into_iter().for_each(|event| self.replay(event)),
            Commit::Compaction { compacted, state } if compacted == self.compacted => {
                if state != self.base {
                    return Err(damaged(compacted, "the compacted state was altered"));
                }
                self.base_seen = true;
            }
            Commit::Compaction { .. } => {}
        }
        Ok(())
    }

    fn replay(&mut self, event: Event) {
        match event {
            Event::Put(entry) => self.live.insert(entry.key.clone(), entry),
            Event::Delete(key) => self.live.remove(&key),
        };
    }

    fn finish(mut self, rows: &dyn Rows, meta: &Meta) -> Result<(), StoreError> {
        if self.revision != meta.revision || self.chain != meta.commit || !self.base_seen {
            return Err(damaged(meta.revision, "the last commit is not the chain's head"));
        }
        rows.scan(Table::Current, &Bounds::all(), &mut |key, row| {
            let replayed = std::str::from_utf8(key).ok().and_then(|key| self.live.remove(key));
            if replayed.is_some_and(|entry| encode_record(&entry) == row) {
                return Ok(ControlFlow::Continue(()));
            }
            let key = String::from_utf8_lossy(key).into_owned();
            Err(StoreError::corrupt(format!("{key} is not what the commits say")))
        })?;
        self.live
            .into_keys()
            .next()
            .map_or(Ok(()), |key| Err(StoreError::corrupt(format!("{key} is missing"))))
    }
}

fn damaged(revision: Revision, what: &str) -> StoreError {
    StoreError::corrupt(format!("commit {revision}: {what}"))
}
