//! Ordered tables of bytes: what a local back end provides.

use std::{
    fmt,
    ops::{Bound, ControlFlow},
};

use crate::{
    error::StoreError,
    types::{Range, Span},
};

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Revision -> what the commit changed.
    Changes,
    /// Revision -> head of the hash chain.
    Commits,
    /// Key -> present record.
    Current,
    /// Lease, key -> nothing.
    LeaseKeys,
    /// Lease -> time to live and end.
    Leases,
    /// One row: format, identifier, revision, compaction, chain, next lease.
    Meta,
    /// Key, 0, revision -> record that was replaced or deleted since, or tombstone.
    Versions,
}

impl Table {
    /// The table's name on disk.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Commits => "commits",
            Self::Current => "current",
            Self::LeaseKeys => "lease-keys",
            Self::Leases => "leases",
            Self::Meta => "meta",
            Self::Versions => "versions",
        }
    }
}

/// One value for each table.
#[derive(Debug, Default)]
pub(crate) struct PerTable<T> {
    changes: T,
    commits: T,
    current: T,
    lease_keys: T,
    leases: T,
    meta: T,
    versions: T,
}

impl<T> PerTable<T> {
    /// Makes each table's value.
    pub(crate) fn open<E>(mut open: impl FnMut(Table) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self {
            changes: open(Table::Changes)?,
            commits: open(Table::Commits)?,
            current: open(Table::Current)?,
            lease_keys: open(Table::LeaseKeys)?,
            leases: open(Table::Leases)?,
            meta: open(Table::Meta)?,
            versions: open(Table::Versions)?,
        })
    }

    /// One table's value.
    pub(crate) const fn of(&self, table: Table) -> &T {
        match table {
            Table::Changes => &self.changes,
            Table::Commits => &self.commits,
            Table::Current => &self.current,
            Table::LeaseKeys => &self.lease_keys,
            Table::Leases => &self.leases,
            Table::Meta => &self.meta,
            Table::Versions => &self.versions,
        }
    }

    /// One table's value, to change it.
    pub(crate) const fn of_mut(&mut self, table: Table) -> &mut T {
        match table {
            Table::Changes => &mut self.changes,
            Table::Commits => &mut self.commits,
            Table::Current => &mut self.current,
            Table::LeaseKeys => &mut self.lease_keys,
            Table::Leases => &mut self.leases,
            Table::Meta => &mut self.meta,
            Table::Versions => &mut self.versions,
        }
    }
}

/// Rows from `start`, included, to `end`, excluded; no end means the table's.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Option<Vec<u8>>,
}

impl Bounds {
    pub(crate) const fn all() -> Self {
        Self { start: Vec::new(), end: None }
    }

    pub(crate) fn from(start: &[u8]) -> Self {
        Self { start: start.to_vec(), end: None }
    }

    pub(crate) fn between(start: &[u8], end: &[u8]) -> Self {
        Self { start: start.to_vec(), end: Some(end.to_vec()) }
    }

    /// Every row whose key begins with `prefix`.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        Self { start: prefix.to_vec(), end: successor(prefix) }
    }

    /// The rows of a range, both in [`Table::Current`] and in [`Table::Versions`]: a revision comes
    /// after its key and a byte that no key has.
    pub(crate) fn of(range: &Range) -> Self {
        let mut bounds = match &range.span {
            Span::Prefix(prefix) => Self::prefix(prefix.as_str().as_bytes()),
            Span::Between(start, end) => Self::between(start.as_bytes(), end.as_bytes()),
        };
        if let Some(after) = &range.after {
            let mut next = after.as_bytes().to_vec();
            next.push(1);
            bounds.start = bounds.start.max(next);
        }
        bounds
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// The same for an ordered map; `None` if they are empty, for which such maps panic.
    pub(crate) fn span(&self) -> Option<KeySpan<'_>> {
        let end = self.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (!self.is_empty()).then_some((Bound::Included(self.start.as_slice()), end))
    }
}

/// [`Bounds`] as an ordered map takes them.
pub(crate) type KeySpan<'b> = (Bound<&'b [u8]>, Bound<&'b [u8]>);

/// The first bytes after everything that begins with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// What a scan calls with each row's key and value.
pub(crate) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError> + 'v;

/// A consistent view of the tables.
pub(crate) trait Rows {
    /// The value of a row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits rows in order until the visitor breaks.
    fn scan(&self, table: Table, bounds: &Bounds, visit: &mut Visit<'_>) -> Result<(), StoreError>;
}

/// The tables while a batch is written; reads see what was written.
pub(crate) trait RowsMut: Rows {
    /// Writes a row.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes a row, if it is there.
    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;
}

/// What a backing calls with a view.
pub(crate) type ReadWith<'f> = dyn FnMut(&dyn Rows) -> Result<(), StoreError> + 'f;

/// What a backing calls to write a batch.
pub(crate) type WriteWith<'f> = dyn FnMut(&mut dyn RowsMut) -> Result<(), StoreError> + 'f;

/// A place that holds the tables. One writer at a time; readers see the last commit.
pub(crate) trait Backing: Send + Sync + fmt::Debug + 'static {
    /// Calls `f` with a consistent view.
    fn read(&self, f: &mut ReadWith<'_>) -> Result<(), StoreError>;

    /// Calls `f` and makes durable what it wrote, if it succeeds; else nothing is kept.
    fn write(&self, f: &mut WriteWith<'_>) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn the_end_of_a_prefix_carries_over() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(&[1, 255]), Some(vec![2]));
        assert_eq!(successor(&[255]), None);
        assert_eq!(successor(b""), None);
    }
}
