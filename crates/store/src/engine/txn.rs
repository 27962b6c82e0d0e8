//! Transactions: compares, then one of two lists of operations in one revision.

use crate::{
    engine::{
        lease,
        read::current,
        record::{Commit, Meta, encode_record, encode_version, version_key},
        rows::{Rows, RowsMut, Table},
    },
    error::{RequestRejection, StoreError},
    key::Key,
    types::{Compare, Event, KeyValue, LeaseId, Op, OpReply, Revision, Txn, TxnReply},
};

/// Runs a transaction that has passed [`Txn::check`].
pub(crate) fn apply(rows: &mut dyn RowsMut, txn: &Txn) -> Result<TxnReply, StoreError> {
    let mut meta = Meta::load(rows)?;
    let succeeded = holds_all(rows, &txn.compares)?;
    let ops = if succeeded { &txn.then } else { &txn.otherwise };
    check_leases(rows, ops)?;
    let mut changes = Changes::new(meta.revision.saturating_add(1));
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        responses.push(changes.run(rows, op)?);
    }
    changes.commit(rows, &mut meta)?;
    Ok(TxnReply { succeeded, revision: meta.revision, responses })
}

fn holds_all(rows: &dyn Rows, compares: &[Compare]) -> Result<bool, StoreError> {
    for compare in compares {
        let entry = current(rows, compare.key())?;
        let holds = match compare {
            Compare::Absent(_) => entry.is_none(),
            Compare::Present(_) => entry.is_some(),
            Compare::ModRevision(_, at) => entry.map_or(0, |e| e.mod_revision) == *at,
            Compare::Version(_, version) => entry.map_or(0, |e| e.version) == *version,
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_leases(rows: &dyn Rows, ops: &[Op]) -> Result<(), StoreError> {
    for op in ops {
        if let Op::Put { lease: Some(id), .. } = op
            && lease::find(rows, *id)?.is_none()
        {
            return Err(RequestRejection::LeaseNotFound { lease: *id }.into());
        }
    }
    Ok(())
}

/// The changes of the commit that is being made.
#[derive(Debug)]
pub(crate) struct Changes {
    revision: Revision,
    events: Vec<Event>,
}

impl Changes {
    pub(crate) const fn new(revision: Revision) -> Self {
        Self { revision, events: Vec::new() }
    }

    fn run(&mut self, rows: &mut dyn RowsMut, op: &Op) -> Result<OpReply, StoreError> {
        match op {
            Op::Get(key) => Ok(OpReply::Got(current(rows, key)?)),
            Op::Put { key, value, lease } => {
                Ok(OpReply::Put { version: self.put(rows, key, value, *lease)? })
            }
            Op::Delete(key) => Ok(OpReply::Deleted { existed: self.delete(rows, key)? }),
        }
    }

    fn put(
        &mut self,
        rows: &mut dyn RowsMut,
        key: &Key,
        value: &[u8],
        lease: Option<LeaseId>,
    ) -> Result<u64, StoreError> {
        let before = current(rows, key)?;
        if let Some(before) = &before {
            lease::unbind(rows, before)?;
            supersede(rows, before)?;
        }
        let entry = KeyValue {
            key: key.clone(),
            value: value.to_vec(),
            create_revision: before.as_ref().map_or(self.revision, |b| b.create_revision),
            mod_revision: self.revision,
            version: before.map_or(0, |b| b.version).saturating_add(1),
            lease,
        };
        lease::bind(rows, &entry)?;
        let version = entry.version;
        rows.put(Table::Current, key.as_bytes(), &encode_record(&entry))?;
        self.events.push(Event::Put(entry));
        Ok(version)
    }

    pub(crate) fn delete(&mut self, rows: &mut dyn RowsMut, key: &Key) -> Result<bool, StoreError> {
        let Some(before) = current(rows, key)? else { return Ok(false) };
        lease::unbind(rows, &before)?;
        supersede(rows, &before)?;
        rows.remove(Table::Current, key.as_bytes())?;
        let row = version_key(key, self.revision);
        rows.put(Table::Versions, &row, &encode_version(None))?;
        self.events.push(Event::Delete(key.clone()));
        Ok(true)
    }

    /// Makes the commit, unless nothing changed.
    pub(crate) fn commit(self, rows: &mut dyn RowsMut, meta: &mut Meta) -> Result<(), StoreError> {
        if self.events.is_empty() {
            return Ok(());
        }
        meta.append(rows, &Commit::Changes(self.events))
    }
}

/// Keeps a record that is about to be replaced or deleted, for reads of the past.
fn supersede(rows: &mut dyn RowsMut, before: &KeyValue) -> Result<(), StoreError> {
    let row = version_key(&before.key, before.mod_revision);
    rows.put(Table::Versions, &row, &encode_version(Some(before)))
}
