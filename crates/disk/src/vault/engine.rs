//! An open vault volume: what its parts share.
//!
//! ```text
//!   read:   gate(shared) -> page's references -> read runs of slots -> open each sector
//!   write:  gate(shared) -> seal in place -> free slots -> write -> references into the page
//!   flush:  gate(shared) -> commit lock -> one log record -> one sync -> slots of before are free
//!   checkpoint: commit lock -> changed pages into free slots -> sync -> header -> log is empty
//! ```
//!
//! **Locks, outermost first:** gate, stripes, commit, pages (child before parent), slots, lists.
//!
//! **Invariant:** a slot that the header in force or its log can reach is not written. What was
//! replaced is set aside and becomes free when the record or header that replaces it is durable.

use std::{
    io,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    alloc::{Run, Slots},
    background::Wake,
    commit::Committer,
    header::SLOT_BYTES,
    medium::Medium,
    node::Freed,
    page::byte_of,
    tree::{Shape, Tree},
};
use crate::{TrimPolicy, stripes::Stripes};

/// Slots set aside after which a commit is made in the background, and by the writer itself.
const ASIDE_SOFT: u64 = 16 << 10;
const ASIDE_HARD: u64 = 64 << 10;

/// How a volume was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) read_only: bool,
    pub(crate) trim: TrimPolicy,
}

/// Slots that were taken; most often they follow each other.
#[derive(Debug)]
pub(crate) enum Runs {
    One(Run),
    Many(Vec<Run>),
}

impl Deref for Runs {
    type Target = [Run];

    fn deref(&self) -> &[Run] {
        match self {
            Self::One(run) => std::slice::from_ref(run),
            Self::Many(runs) => runs,
        }
    }
}

/// An open volume.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) manner: Manner,
    pub(crate) tree: Tree,
    gate: RwLock<Shape>,
    pub(crate) slots: Mutex<Slots>,
    pub(crate) stripes: Stripes,
    commit: Mutex<Committer>,
    /// Flushes that were asked for.
    pub(crate) tickets: AtomicU64,
    pub(crate) size: AtomicU64,
    /// Every slot that was written lies in front of this one; the medium reaches that far.
    written: AtomicU64,
    /// A synchronisation failed, or a header could not be written.
    failed: AtomicBool,
    closed: AtomicBool,
    /// Sectors that did not open.
    pub(crate) damaged: AtomicU64,
    pub(crate) wake: Wake,
}

impl Engine {
    pub(crate) fn new(
        medium: Arc<dyn Medium>,
        manner: Manner,
        tree: Tree,
        shape: Shape,
        slots: Slots,
        committer: Committer,
    ) -> Self {
        Self {
            written: AtomicU64::new(slots.end()),
            medium,
            manner,
            tree,
            size: AtomicU64::new(shape.size),
            gate: RwLock::new(shape),
            slots: Mutex::new(slots),
            stripes: Stripes::new(),
            commit: Mutex::new(committer),
            tickets: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            damaged: AtomicU64::new(0),
            wake: Wake::default(),
        }
    }

    /// Slots in front of `end` were written.
    pub(crate) fn note_written(&self, end: u64) {
        if self.written.load(Ordering::Relaxed) < end {
            self.written.fetch_max(end, Ordering::SeqCst);
        }
    }

    /// No slot that anything names is at or behind this one.
    pub(crate) fn written_end(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Writes one sealed slot.
    pub(crate) fn write_slot(&self, slot: u64, bytes: &[u8]) -> io::Result<()> {
        self.medium.write_at(byte_of(slot), bytes)?;
        let count = u64::try_from(bytes.len() / SLOT_BYTES).unwrap_or(0);
        self.note_written(slot.saturating_add(count));
        Ok(())
    }

    /// Enters an operation. Never taken twice by one thread.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, Shape> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an operation that writes.
    pub(crate) fn enter_to_write(&self) -> io::Result<RwLockReadGuard<'_, Shape>> {
        let shape = self.enter();
        self.check_writable()?;
        Ok(shape)
    }

    /// Waits until no operation runs, and keeps others out.
    pub(crate) fn enter_alone(&self) -> RwLockWriteGuard<'_, Shape> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check_writable(&self) -> io::Result<()> {
        if self.manner.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if self.closed.load(Ordering::SeqCst) {
            return Err(io::Error::other("the volume was detached"));
        }
        Ok(())
    }

    /// No write is accepted from now on. The caller is alone.
    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn committer(&self) -> MutexGuard<'_, Committer> {
        self.commit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    pub(crate) fn check_failed(&self) -> io::Result<()> {
        if self.failed() { Err(io::Error::other("an earlier flush failed")) } else { Ok(()) }
    }

    /// Runs what must not fail halfway: after an error nothing is ever said to be durable again.
    pub(crate) fn or_fail<T>(&self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| {
            tracing::error!(%error, "the volume's state on the medium is unknown; flushes fail");
            self.failed.store(true, Ordering::SeqCst);
        })
    }

    /// Slots for `count` sectors from `first` on: their homes, or what there is.
    pub(crate) fn take_slots(&self, first: Option<u64>, count: u64) -> io::Result<Runs> {
        let mut slots = self.slots();
        if count == 0 {
            return Ok(Runs::Many(Vec::new()));
        }
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let run = match first.and_then(|first| slots.take_home(first, count)) {
            Some(run) => run,
            None => slots.take(count).map_err(|_| full())?,
        };
        if run.count >= count {
            return Ok(Runs::One(run));
        }
        let (mut runs, mut left) = (vec![run], count.saturating_sub(run.count));
        while left > 0 {
            let Ok(run) = slots.take(left) else {
                runs.iter().for_each(|run| give_back(&mut slots, *run));
                return Err(full());
            };
            left = left.saturating_sub(run.count);
            runs.push(run);
        }
        Ok(Runs::Many(runs))
    }

    /// Gives slots back that nothing names.
    pub(crate) fn return_runs(&self, runs: &[Run]) {
        let mut slots = self.slots();
        runs.iter().for_each(|run| give_back(&mut slots, *run));
    }

    /// Frees slots; the trimmed ones go back to the medium first.
    pub(crate) fn release(&self, mut freed: Vec<Freed>) {
        if freed.is_empty() {
            return;
        }
        if self.manner.trim == TrimPolicy::Punch && freed.iter().any(|f| f.trimmed) {
            freed.sort_unstable();
            let trimmed: Vec<u64> = freed.iter().filter(|f| f.trimmed).map(|f| f.slot).collect();
            for run in trimmed.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
                let Some(&first) = run.first() else { continue };
                let length = u64::try_from(run.len() * SLOT_BYTES).unwrap_or(0);
                // Advice: a medium without holes keeps what is there.
                if let Err(error) = self.medium.punch(byte_of(first), length) {
                    tracing::debug!(%error, "a trimmed range was not given back");
                }
            }
        }
        let mut slots = self.slots();
        freed.iter().for_each(|f| slots.release(f.slot, f.trimmed));
    }

    /// After a write: keeps what waits for a commit bounded.
    pub(crate) fn relieve(&self, shape: &Shape) -> io::Result<()> {
        let aside = self.tree.set_aside_count();
        let changed = self.tree.changed_count();
        let limit = (self.tree.capacity() / 2).max(64);
        if aside < ASIDE_SOFT && changed < limit / 2 {
            return Ok(());
        }
        if aside >= ASIDE_HARD || changed >= limit {
            self.relieve_now(shape, changed >= limit)
        } else {
            self.wake.now();
            Ok(())
        }
    }

    /// What [`Engine::relieve`] asks the background for.
    pub(crate) fn wants_relief(&self) -> (bool, bool) {
        let limit = (self.tree.capacity() / 2).max(64);
        let commit = self.tree.set_aside_count() >= ASIDE_SOFT;
        (commit, self.tree.changed_count() >= limit / 2)
    }
}

fn give_back(slots: &mut Slots, run: Run) {
    for slot in run.slot..run.slot.saturating_add(run.count) {
        slots.release(slot, true);
    }
}
