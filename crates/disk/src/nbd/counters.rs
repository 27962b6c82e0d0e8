//! What an export has done, counted without locks.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use model::child::disk::{Counters as Snapshot, Damage};

use crate::Rejection;

/// Running counts of one server, shared by its connections.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_accepted: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) trims: AtomicU64,
    pub(crate) zeroes: AtomicU64,
    pub(crate) errors: AtomicU64,
    damage: OnceLock<Damage>,
}

impl Counters {
    /// Counts a request at `offset` that failed, and keeps the first that a rule refused: something
    /// in the volume is not authentic.
    pub(crate) fn failed(&self, offset: u64, error: &io::Error) {
        add(&self.errors, 1);
        if let Some(rejection) = Rejection::inside(error) {
            let position = if let Rejection::SectorDamaged { position } = rejection {
                *position
            } else {
                offset
            };
            let code = rejection.code().to_owned();
            self.damage.get_or_init(|| Damage { code, position, detail: rejection.to_string() });
        }
    }

    /// The first damage that a request met.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.get()
    }

    /// The counts now; each is exact, together they are of nearly one moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            connections: get(&self.connections),
            connections_accepted: get(&self.connections_accepted),
            connections_refused: get(&self.connections_refused),
            reads: get(&self.reads),
            writes: get(&self.writes),
            bytes_read: get(&self.bytes_read),
            bytes_written: get(&self.bytes_written),
            flushes: get(&self.flushes),
            trims: get(&self.trims),
            zeroes: get(&self.zeroes),
            errors: get(&self.errors),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
