//! Reads: one key, a range at present or in the past, the commits that a watch follows.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    engine::{
        record::{Commit, Meta, decode_record, decode_version, parse_revision, parse_version_key},
        rows::{Bounds, Rows, Table},
    },
    error::{RequestRejection, StoreError},
    key::{Key, Prefix},
    types::{Batch, Event, KeyValue, MAX_RANGE, MAX_RANGE_BYTES, Range, RangeReply, Revision},
};

/// The present record of a key.
pub(crate) fn current(rows: &dyn Rows, key: &Key) -> Result<Option<KeyValue>, StoreError> {
    let row = rows.get(Table::Current, key.as_bytes())?;
    row.map(|row| decode_record(key.as_bytes(), &row)).transpose()
}

/// Refuses revisions that are compacted or have not happened.
pub(crate) fn check_revision(meta: &Meta, asked: Revision) -> Result<(), RequestRejection> {
    if asked < meta.compacted {
        return Err(RequestRejection::Compacted { asked, compacted: meta.compacted });
    }
    if asked > meta.revision {
        return Err(RequestRejection::FutureRevision { asked, now: meta.revision });
    }
    Ok(())
}

/// Collects a range's answer and knows when it is full.
struct Page {
    entries: Vec<KeyValue>,
    bytes: usize,
    limit: usize,
    more: bool,
}

impl Page {
    fn new(range: &Range) -> Self {
        Self { entries: Vec::new(), bytes: 0, limit: range.limit.min(MAX_RANGE), more: false }
    }

    fn push(&mut self, entry: KeyValue) -> ControlFlow<()> {
        if self.entries.len() >= self.limit || self.bytes > MAX_RANGE_BYTES {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.bytes = self.bytes.saturating_add(entry.value.len());
        self.entries.push(entry);
        ControlFlow::Continue(())
    }

    fn reply(self, revision: Revision) -> RangeReply {
        RangeReply { entries: self.entries, more: self.more, revision }
    }
}

/// A range of keys.
pub(crate) fn range(rows: &dyn Rows, range: &Range) -> Result<RangeReply, StoreError> {
    let meta = Meta::load(rows)?;
    let at = range.at.unwrap_or(meta.revision);
    check_revision(&meta, at)?;
    let bounds = Bounds::of(range);
    let mut page = Page::new(range);
    if bounds.is_empty() {
        return Ok(page.reply(at));
    }
    if at == meta.revision {
        rows.scan(
            Table::Current,
            &bounds,
            &mut |key, row| Ok(page.push(decode_record(key, row)?)),
        )?;
    } else {
        past(rows, &bounds, at, &mut |entry| page.push(entry))?;
    }
    Ok(page.reply(at))
}

/// Visits the records that were live at revision `at`, in key order: present ones that are as old,
/// and what has been replaced or deleted since. The latter are held in memory.
pub(crate) fn past(
    rows: &dyn Rows,
    bounds: &Bounds,
    at: Revision,
    visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut older = superseded_since(rows, bounds, at)?;
    let mut flow = ControlFlow::Continue(());
    rows.scan(Table::Current, bounds, &mut |key, row| {
        while let Some(first) = older.first_entry().filter(|first| first.key().as_slice() < key) {
            flow = first.remove().map_or(ControlFlow::Continue(()), &mut *visit);
            if flow.is_break() {
                return Ok(flow);
            }
        }
        let present = decode_record(key, row)?;
        let before = older.remove(key).flatten();
        let then = if present.mod_revision <= at { Some(present) } else { before };
        flow = then.map_or(ControlFlow::Continue(()), &mut *visit);
        Ok(flow)
    })?;
    let mut rest = older.into_values().flatten();
    while flow.is_continue()
        && let Some(entry) = rest.next()
    {
        flow = visit(entry);
    }
    Ok(())
}

/// Of each key with a row of history up to `at`: the last such record, none if that is a tombstone.
fn superseded_since(
    rows: &dyn Rows,
    bounds: &Bounds,
    at: Revision,
) -> Result<BTreeMap<Vec<u8>, Option<KeyValue>>, StoreError> {
    let mut last = BTreeMap::new();
    rows.scan(Table::Versions, bounds, &mut |row_key, row| {
        let (key, revision) = parse_version_key(row_key)?;
        if revision <= at {
            last.insert(key.to_vec(), decode_version(key, row)?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(last)
}

/// What a watch reads in one go.
#[derive(Debug)]
pub(crate) enum Follow {
    /// The commits that touch the prefix, and the revision to go on from.
    Batches { batches: Vec<Batch>, next: Revision },
    /// The next revision is compacted.
    Compacted { compacted: Revision },
}

/// Commits that one read of a watch looks at, at most.
const FOLLOW: usize = 256;

/// The commits from `next` on that touch `prefix`.
pub(crate) fn follow(
    rows: &dyn Rows,
    prefix: &Prefix,
    next: Revision,
) -> Result<Follow, StoreError> {
    let meta = Meta::load(rows)?;
    if next <= meta.compacted {
        return Ok(Follow::Compacted { compacted: meta.compacted });
    }
    let mut batches = Vec::new();
    let (mut seen, mut cursor) = (0_usize, next);
    rows.scan(Table::Changes, &Bounds::from(&next.to_be_bytes()), &mut |key, row| {
        let revision = parse_revision(key)?;
        if let Commit::Changes(events) = Commit::decode(row)? {
            let events: Vec<Event> =
                events.into_iter().filter(|event| prefix.covers(event.key())).collect();
            if !events.is_empty() {
                batches.push(Batch { revision, events });
            }
        }
        cursor = revision.saturating_add(1);
        seen = seen.saturating_add(1);
        Ok(if seen < FOLLOW { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(Follow::Batches { batches, next: cursor })
}

/// Head of the hash chain after commit `revision`.
pub(crate) fn commit_at(
    rows: &dyn Rows,
    revision: Revision,
) -> Result<Option<[u8; 32]>, StoreError> {
    let meta = Meta::load(rows)?;
    if revision == 0 && meta.compacted == 0 {
        return Ok(Some(Meta::genesis(meta.id).commit));
    }
    let Some(row) = rows.get(Table::Commits, &revision.to_be_bytes())? else { return Ok(None) };
    let bytes = row.as_slice().try_into();
    bytes.map(Some).map_err(|_| StoreError::corrupt("a commit has 32 bytes"))
}
