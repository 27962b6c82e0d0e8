//! Compaction: history before a revision is forgotten; the state at it and what came later stays.

use std::ops::ControlFlow;

use crate::{
    engine::{
        read::{check_revision, current, past},
        record::{Commit, Meta, encode_record, hash, parse_key, parse_version_key},
        rows::{Bounds, Rows, RowsMut, Table},
    },
    error::{RequestRejection, StoreError},
    types::Revision,
};

/// Records that are digested in one view of the store.
const SLICE: usize = 1024;

/// Compacts to `revision`, whose state has the digest `state`, and notes it as a commit of its own.
/// The work is that of the history that goes.
pub(crate) fn compact(
    rows: &mut dyn RowsMut,
    revision: Revision,
    state: [u8; 32],
) -> Result<Revision, StoreError> {
    let mut meta = Meta::load(rows)?;
    check_revision(&meta, revision)?;
    if revision == meta.compacted {
        let compacted = meta.compacted;
        return Err(RequestRejection::Compacted { asked: revision, compacted }.into());
    }
    for key in superseded(rows, revision)? {
        rows.remove(Table::Versions, &key)?;
    }
    remove_before(rows, Table::Changes, revision.saturating_add(1))?;
    remove_before(rows, Table::Commits, revision)?;
    meta.compacted = revision;
    meta.append(rows, &Commit::Compaction { compacted: revision, state })?;
    Ok(meta.revision)
}

/// Digest of all records that are live at `revision`, in key order.
pub(crate) fn state_digest(rows: &dyn Rows, revision: Revision) -> Result<[u8; 32], StoreError> {
    let mut digest = StateDigest::new(revision);
    loop {
        if let Some(done) = digest.step(rows)? {
            return Ok(done);
        }
    }
}

/// The digest of a state, slice by slice. A state in the past does not change, so each slice may be
/// read from a newer view of the store, as long as its revision is not compacted.
#[derive(Debug)]
pub(crate) struct StateDigest {
    revision: Revision,
    digest: [u8; 32],
    start: Vec<u8>,
}

impl StateDigest {
    pub(crate) fn new(revision: Revision) -> Self {
        Self { revision, digest: hash(&[b"vouchsafe:store-state:v1"]), start: Vec::new() }
    }

    /// The next slice; the digest if it was the last.
    pub(crate) fn step(&mut self, rows: &dyn Rows) -> Result<Option<[u8; 32]>, StoreError> {
        check_revision(&Meta::load(rows)?, self.revision)?;
        let end = self.end(rows)?;
        let bounds = Bounds { start: std::mem::take(&mut self.start), end: end.clone() };
        let mut digest = self.digest;
        past(rows, &bounds, self.revision, &mut |entry| {
            let key = hash(&[entry.key.as_bytes()]);
            digest = hash(&[&digest, &key, &hash(&[&encode_record(&entry)])]);
            ControlFlow::Continue(())
        })?;
        self.digest = digest;
        match end {
            Some(end) => {
                self.start = end;
                Ok(None)
            }
            None => Ok(Some(digest)),
        }
    }

    /// Where the slice ends: behind its last key, and that key's history.
    fn end(&self, rows: &dyn Rows) -> Result<Option<Vec<u8>>, StoreError> {
        let (mut count, mut end) = (0_usize, None);
        rows.scan(Table::Current, &Bounds::from(&self.start), &mut |key, _| {
            count = count.saturating_add(1);
            if count < SLICE {
                return Ok(ControlFlow::Continue(()));
            }
            let mut behind = key.to_vec();
            behind.push(1);
            end = Some(behind);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(end)
    }
}

/// Rows of [`Table::Versions`] that no read at `revision` or later can see: tombstones, and records
/// whose successor is as old.
fn superseded(rows: &dyn Rows, revision: Revision) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut gone = Vec::new();
    let mut latest: Option<Row> = None;
    rows.scan(Table::Versions, &Bounds::all(), &mut |row_key, row| {
        let (key, at) = parse_version_key(row_key)?;
        if at > revision {
            return Ok(ControlFlow::Continue(()));
        }
        let next = Row { key: key.to_vec(), row: row_key.to_vec(), dead: row == [0] };
        if let Some(before) = latest.replace(next)
            && (before.key == key || before.is_over(rows, revision)?)
        {
            gone.push(before.row);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(last) = latest
        && last.is_over(rows, revision)?
    {
        gone.push(last.row);
    }
    Ok(gone)
}

/// A row of history.
struct Row {
    key: Vec<u8>,
    row: Vec<u8>,
    dead: bool,
}

impl Row {
    /// Whether the last row of its key up to `revision` is of no use: a tombstone, or a record that
    /// the present one had replaced by then.
    fn is_over(&self, rows: &dyn Rows, revision: Revision) -> Result<bool, StoreError> {
        if self.dead {
            return Ok(true);
        }
        let present = current(rows, &parse_key(&self.key)?)?;
        Ok(present.is_some_and(|present| present.mod_revision <= revision))
    }
}

fn remove_before(
    rows: &mut dyn RowsMut,
    table: Table,
    revision: Revision,
) -> Result<(), StoreError> {
    let mut gone = Vec::new();
    rows.scan(table, &Bounds::between(&[], &revision.to_be_bytes()), &mut |key, _| {
        gone.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    gone.into_iter().try_for_each(|key| rows.remove(table, &key))
}
