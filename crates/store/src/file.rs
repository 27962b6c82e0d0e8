//! Tables in one file, by `redb`: copy-on-write pages, so a commit is either wholly there or not at
//! all; every commit is one `fdatasync` (`Durability::Immediate`). The file is locked while it is
//! open and readable by its owner only.

use std::{
    cell::OnceCell,
    fs::{File, OpenOptions},
    io,
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use redb::{
    Builder, Database, DatabaseError, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    ReadableTable, TableDefinition, WriteTransaction, backends::FileBackend,
};

use crate::{
    durable::sync_parent,
    engine::rows::{Backing, Bounds, PerTable, ReadWith, Rows, RowsMut, Table, Visit, WriteWith},
    error::StoreError,
};

/// Pages that `redb` keeps in memory.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

type Bytes = &'static [u8];

const fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.name())
}

fn get(
    table: &impl ReadableTable<Bytes, Bytes>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = table.get(key).map_err(StoreError::database("read"))?;
    Ok(row.map(|row| row.value().to_vec()))
}

fn scan(
    table: &impl ReadableTable<Bytes, Bytes>,
    bounds: &Bounds,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let Some(span) = bounds.span() else { return Ok(()) };
    let rows = table.range::<&[u8]>(span).map_err(StoreError::database("read"))?;
    for row in rows {
        let (key, value) = row.map_err(StoreError::database("read"))?;
        if let ControlFlow::Break(()) = visit(key.value(), value.value())? {
            break;
        }
    }
    Ok(())
}

impl Rows for PerTable<redb::Table<'_, Bytes, Bytes>> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(self.of(table), key)
    }

    fn scan(&self, table: Table, bounds: &Bounds, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        scan(self.of(table), bounds, visit)
    }
}

/// A consistent view: a table is opened when it is first looked at, which for a question is one or
/// two of them.
struct View {
    txn: ReadTransaction,
    open: PerTable<OnceCell<ReadOnlyTable<Bytes, Bytes>>>,
}

impl View {
    fn table(&self, table: Table) -> Result<&ReadOnlyTable<Bytes, Bytes>, StoreError> {
        let cell = self.open.of(table);
        if let Some(open) = cell.get() {
            return Ok(open);
        }
        let opened = self.txn.open_table(definition(table));
        let opened = opened.map_err(StoreError::database("open its tables"))?;
        Ok(cell.get_or_init(|| opened))
    }
}

impl Rows for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(self.table(table)?, key)
    }

    fn scan(&self, table: Table, bounds: &Bounds, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        scan(self.table(table)?, bounds, visit)
    }
}

impl RowsMut for PerTable<redb::Table<'_, Bytes, Bytes>> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let put = self.of_mut(table).insert(key, value);
        put.map(drop).map_err(StoreError::database("write"))
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        let removed = self.of_mut(table).remove(key);
        removed.map(drop).map_err(StoreError::database("write"))
    }
}

/// Tables in a file.
#[derive(Debug)]
pub(crate) struct FileBacking(Database);

impl FileBacking {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = open_file(path)?;
        sync_parent(path)?;
        let opened = FileBackend::new(file).and_then(|file| builder().create_with_backend(file));
        let database = opened.map_err(|error| {
            if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                return StoreError::Locked { path: path.to_owned() };
            }
            StoreError::database("open")(error)
        })?;
        Self::with_tables(database)
    }

    /// A database on other storage, for tests of power cuts.
    #[cfg(test)]
    pub(crate) fn on(backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        let database = builder().create_with_backend(backend);
        Self::with_tables(database.map_err(StoreError::database("open"))?)
    }

    /// Readers need the tables to exist.
    fn with_tables(database: Database) -> Result<Self, StoreError> {
        let backing = Self(database);
        backing.write(&mut |_| Ok(()))?;
        Ok(backing)
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut txn = self.0.begin_write().map_err(StoreError::database("begin a batch"))?;
        txn.set_durability(Durability::Immediate)
            .map_err(StoreError::database("ask for durability"))?;
        Ok(txn)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open_file(path: &Path) -> Result<File, StoreError> {
    let io = |source: io::Error| StoreError::Io { doing: "open", path: path.to_owned(), source };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)
}

impl Backing for FileBacking {
    fn read(&self, f: &mut ReadWith<'_>) -> Result<(), StoreError> {
        let txn = self.0.begin_read().map_err(StoreError::database("begin a read"))?;
        f(&View { txn, open: PerTable::default() })
    }

    fn write(&self, f: &mut WriteWith<'_>) -> Result<(), StoreError> {
        let txn = self.begin()?;
        let mut tables = PerTable::open(|table| txn.open_table(definition(table)))
            .map_err(StoreError::database("open its tables"))?;
        let outcome = f(&mut tables);
        drop(tables);
        match outcome {
            Ok(()) => txn.commit().map_err(StoreError::database("commit")),
            Err(error) => {
                txn.abort().map_err(StoreError::database("drop a batch"))?;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
