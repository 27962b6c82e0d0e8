//! Leases: granted, extended, ended. Only the caller knows the time.

use std::ops::ControlFlow;

use crate::{
    codec::{Reader, Writer},
    engine::{
        record::{Meta, parse_key},
        rows::{Bounds, Rows, RowsMut, Table},
        txn::Changes,
    },
    error::{RequestRejection, StoreError},
    key::Key,
    types::{KeyValue, Lease, LeaseId, Revision},
};

fn decode(key: &[u8], row: &[u8]) -> Result<Lease, StoreError> {
    let mut id = Reader::new(key, "leases");
    let mut reader = Reader::new(row, "leases");
    let lease = Lease { id: LeaseId(id.u64()?), ttl_ms: reader.u64()?, expires_at: reader.u64()? };
    id.end()?;
    reader.end()?;
    Ok(lease)
}

fn save(rows: &mut dyn RowsMut, lease: &Lease) -> Result<(), StoreError> {
    let row = Writer::new().u64(lease.ttl_ms).u64(lease.expires_at).done();
    rows.put(Table::Leases, &lease.id.0.to_be_bytes(), &row)
}

/// The lease, if it exists.
pub(crate) fn find(rows: &dyn Rows, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    let key = id.0.to_be_bytes();
    rows.get(Table::Leases, &key)?.map(|row| decode(&key, &row)).transpose()
}

fn require(rows: &dyn Rows, id: LeaseId) -> Result<Lease, StoreError> {
    find(rows, id)?.ok_or_else(|| RequestRejection::LeaseNotFound { lease: id }.into())
}

pub(crate) fn grant(rows: &mut dyn RowsMut, ttl_ms: u64, now: u64) -> Result<Lease, StoreError> {
    let mut meta = Meta::load(rows)?;
    let lease =
        Lease { id: LeaseId(meta.next_lease), ttl_ms, expires_at: now.saturating_add(ttl_ms) };
    meta.next_lease = meta.next_lease.saturating_add(1);
    meta.save(rows)?;
    save(rows, &lease)?;
    Ok(lease)
}

pub(crate) fn keepalive(
    rows: &mut dyn RowsMut,
    id: LeaseId,
    now: u64,
) -> Result<Lease, StoreError> {
    let lease = require(rows, id)?;
    if lease.expires_at <= now {
        return Err(RequestRejection::LeaseNotFound { lease: id }.into());
    }
    let lease = Lease { expires_at: now.saturating_add(lease.ttl_ms), ..lease };
    save(rows, &lease)?;
    Ok(lease)
}

pub(crate) fn revoke(rows: &mut dyn RowsMut, id: LeaseId) -> Result<Revision, StoreError> {
    require(rows, id)?;
    let mut meta = Meta::load(rows)?;
    let mut changes = Changes::new(meta.revision.saturating_add(1));
    for key in keys(rows, id)? {
        changes.delete(rows, &key)?;
    }
    changes.commit(rows, &mut meta)?;
    rows.remove(Table::Leases, &id.0.to_be_bytes())?;
    Ok(meta.revision)
}

/// Ends what has expired at `now`, each lease in its own revision.
pub(crate) fn expire(rows: &mut dyn RowsMut, now: u64) -> Result<Vec<LeaseId>, StoreError> {
    let mut ended = Vec::new();
    rows.scan(Table::Leases, &Bounds::all(), &mut |key, row| {
        let lease = decode(key, row)?;
        if lease.expires_at <= now {
            ended.push(lease.id);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for id in &ended {
        revoke(rows, *id)?;
    }
    Ok(ended)
}

fn keys(rows: &dyn Rows, id: LeaseId) -> Result<Vec<Key>, StoreError> {
    let prefix = id.0.to_be_bytes();
    let mut keys = Vec::new();
    rows.scan(Table::LeaseKeys, &Bounds::prefix(&prefix), &mut |row, _| {
        keys.push(parse_key(row.get(prefix.len()..).unwrap_or_default())?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

fn binding(entry: &KeyValue) -> Option<Vec<u8>> {
    entry.lease.map(|id| Writer::new().u64(id.0).raw(entry.key.as_bytes()).done())
}

/// Notes that the entry ends with its lease, if it has one.
pub(crate) fn bind(rows: &mut dyn RowsMut, entry: &KeyValue) -> Result<(), StoreError> {
    binding(entry).map_or(Ok(()), |row| rows.put(Table::LeaseKeys, &row, &[]))
}

/// Takes that note back.
pub(crate) fn unbind(rows: &mut dyn RowsMut, entry: &KeyValue) -> Result<(), StoreError> {
    binding(entry).map_or(Ok(()), |row| rows.remove(Table::LeaseKeys, &row))
}
