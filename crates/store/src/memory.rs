//! Tables in memory: for tests, and the plainest reading of what a back end must do.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{PoisonError, RwLock},
};

use crate::{
    engine::rows::{Backing, Bounds, PerTable, ReadWith, Rows, RowsMut, Table, Visit, WriteWith},
    error::StoreError,
};

type Rank = BTreeMap<Vec<u8>, Vec<u8>>;

/// All tables.
#[derive(Debug, Default)]
struct Tables(PerTable<Rank>);

impl Tables {
    fn set(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let rank = self.0.of_mut(table);
        match value {
            Some(value) => rank.insert(key.to_vec(), value),
            None => rank.remove(key),
        }
    }
}

impl Rows for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.of(table).get(key).cloned())
    }

    fn scan(&self, table: Table, bounds: &Bounds, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let Some(span) = bounds.span() else { return Ok(()) };
        for (key, value) in self.0.of(table).range::<[u8], _>(span) {
            if let ControlFlow::Break(()) = visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}

/// A batch being written, with what it takes to undo it.
struct Batch<'t> {
    tables: &'t mut Tables,
    undo: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch<'_> {
    fn set(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) {
        let before = self.tables.set(table, key, value);
        self.undo.push((table, key.to_vec(), before));
    }

    fn roll_back(self) {
        for (table, key, before) in self.undo.into_iter().rev() {
            self.tables.set(table, &key, before);
        }
    }
}

impl Rows for Batch<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.tables.get(table, key)
    }

    fn scan(&self, table: Table, bounds: &Bounds, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.tables.scan(table, bounds, visit)
    }
}

impl RowsMut for Batch<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.set(table, key, Some(value.to_vec()));
        Ok(())
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.set(table, key, None);
        Ok(())
    }
}

/// Tables in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryBacking(RwLock<Tables>);

impl Backing for MemoryBacking {
    fn read(&self, f: &mut ReadWith<'_>) -> Result<(), StoreError> {
        f(&*self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, f: &mut WriteWith<'_>) -> Result<(), StoreError> {
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch { tables: &mut tables, undo: Vec::new() };
        let outcome = f(&mut batch);
        if outcome.is_err() {
            batch.roll_back();
        }
        outcome
    }
}
