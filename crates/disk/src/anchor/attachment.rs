//! The driver: runs the protocol between a volume and an anchor.

use std::{
    fmt::Debug,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::anchor::{Action, Event, State, step};

use super::Anchor;
use crate::VolumeError;

/// Something with a header that counts.
pub trait Anchored: Send + Sync + Debug {
    /// The count of the header in force.
    fn anchor_count(&self) -> u64;

    /// Commits everything that is durable by now under a header with this count, and makes that
    /// durable in turn. `last`: nothing is written afterwards.
    ///
    /// # Errors
    /// That of the medium.
    fn commit(&self, count: u64, last: bool) -> io::Result<()>;
}

/// A volume that is attached for writing, with its anchor.
#[derive(Debug)]
pub struct Attachment<V: Anchored> {
    volume: Arc<V>,
    run: Mutex<Run>,
}

#[derive(Debug)]
struct Run {
    anchor: Box<dyn Anchor>,
    state: State,
    /// The last action failed; what it left is unknown.
    unknown: bool,
}

impl<V: Anchored> Attachment<V> {
    /// Attaches `volume`: when this returns the guest may write, and not before.
    ///
    /// # Errors
    /// [`Rejection::RolledBack`](crate::Rejection::RolledBack),
    /// [`Rejection::AnchorMismatch`](crate::Rejection::AnchorMismatch), or the system's error.
    pub fn attach(volume: Arc<V>, mut anchor: Box<dyn Anchor>) -> Result<Self, VolumeError> {
        let counter = anchor.read().map_err(VolumeError::io("read the anchor"))?;
        let mut run = Run { anchor, state: State::Closed, unknown: false };
        run.go(&*volume, Event::Opened { counter, header: volume.anchor_count() })?;
        Ok(Self { volume, run: Mutex::new(run) })
    }

    /// The counter, as far as this attachment knows.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self.run().state {
            State::Attached { count } | State::Detached { count } => count,
            State::Writing { from, .. } | State::Counting { from, .. } => from,
            State::Closed => 0,
        }
    }

    /// The next advance: what is durable now cannot be rolled back afterwards. Also finishes one
    /// that failed.
    ///
    /// # Errors
    /// A rejection if somebody else uses the anchor: the guest must be stopped. The system's error:
    /// the window stays open, and a later call tries again.
    pub fn tick(&self) -> Result<u64, VolumeError> {
        let mut run = self.run();
        if !run.settle(&*self.volume)? {
            run.go(&*self.volume, Event::Tick)?;
        }
        drop(run);
        Ok(self.count())
    }

    /// The last advance: the volume is as the anchor says, and nothing is written any more.
    ///
    /// # Errors
    /// As for [`tick`](Self::tick).
    pub fn detach(&self) -> Result<u64, VolumeError> {
        let mut run = self.run();
        run.settle(&*self.volume)?;
        if !matches!(run.state, State::Detached { .. }) {
            run.go(&*self.volume, Event::Detach)?;
        }
        drop(run);
        Ok(self.count())
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// Finishes what failed before; whether there was something.
    fn settle(&mut self, volume: &dyn Anchored) -> Result<bool, VolumeError> {
        if !self.unknown {
            return Ok(false);
        }
        let counter = self.anchor.read().map_err(VolumeError::io("read the anchor"))?;
        self.unknown = false;
        let alone = self.anchor.alone();
        self.go(volume, Event::Retried { counter, alone }).map(|()| true)
    }

    fn go(&mut self, volume: &dyn Anchored, mut event: Event) -> Result<(), VolumeError> {
        loop {
            let (state, action) = step(self.state, event)?;
            self.state = state;
            let done = match action {
                Action::Rest => return Ok(()),
                Action::WriteHeader { count, last } => volume
                    .commit(count, last)
                    .map(|()| Event::HeaderDurable)
                    .map_err(VolumeError::io("write a header for the anchor")),
                Action::Increment { from } => self
                    .anchor
                    .increment(from)
                    .map(|ours| if ours { Event::Incremented } else { Event::Moved })
                    .map_err(VolumeError::io("increment the anchor")),
            };
            event = done.inspect_err(|_| self.unknown = true)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::Rejection;

    #[derive(Debug, Default)]
    struct Disk {
        count: AtomicU64,
        fails: AtomicBool,
    }

    impl Anchored for Disk {
        fn anchor_count(&self) -> u64 {
            self.count.load(Ordering::SeqCst)
        }

        fn commit(&self, count: u64, _last: bool) -> io::Result<()> {
            if self.fails.swap(false, Ordering::SeqCst) {
                return Err(io::Error::other("full"));
            }
            self.count.store(count, Ordering::SeqCst);
            Ok(())
        }
    }

    /// Fails after counting if told so: the outcome is unknown to the caller.
    #[derive(Clone, Debug, Default)]
    struct Counter(Arc<(AtomicU64, AtomicBool)>);

    impl Anchor for Counter {
        fn read(&mut self) -> io::Result<u64> {
            Ok(self.0.0.load(Ordering::SeqCst))
        }

        fn alone(&self) -> bool {
            true
        }

        fn increment(&mut self, from: u64) -> io::Result<bool> {
            let order = Ordering::SeqCst;
            let done = self.0.0.compare_exchange(from, from + 1, order, order);
            if self.0.1.swap(false, Ordering::SeqCst) {
                return Err(io::Error::other("the answer was lost"));
            }
            Ok(done.is_ok())
        }
    }

    #[test]
    fn attach_tick_and_detach_move_header_and_counter_together() {
        let (disk, counter) = (Arc::new(Disk::default()), Counter::default());
        let attached = Attachment::attach(disk.clone(), Box::new(counter.clone())).unwrap();
        assert_eq!((attached.count(), disk.anchor_count()), (2, 2));
        assert_eq!(attached.tick().unwrap(), 3);
        assert_eq!(attached.detach().unwrap(), 4);
        assert_eq!(attached.detach().unwrap(), 4);
        assert!(attached.tick().is_err());
        assert_eq!(counter.0.0.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn an_older_copy_and_a_foreign_one_are_refused_by_name() {
        let (disk, counter) = (Arc::new(Disk::default()), Counter::default());
        Attachment::attach(disk.clone(), Box::new(counter.clone())).unwrap().detach().unwrap();
        for (count, refusal) in [(2, Rejection::RolledBack), (5, Rejection::AnchorMismatch)] {
            let copy = Arc::new(Disk { count: count.into(), ..Disk::default() });
            let error = Attachment::attach(copy, Box::new(counter.clone())).unwrap_err();
            assert_eq!(error.rejection(), Some(&refusal));
        }
    }

    #[test]
    fn what_failed_with_an_unknown_outcome_is_finished_by_the_next_tick() {
        let (disk, counter) = (Arc::new(Disk::default()), Counter::default());
        let attached = Attachment::attach(disk.clone(), Box::new(counter.clone())).unwrap();
        counter.0.1.store(true, Ordering::SeqCst);
        assert!(attached.tick().is_err());
        assert_eq!(attached.tick().unwrap(), 3);
        disk.fails.store(true, Ordering::SeqCst);
        assert!(attached.tick().is_err());
        // By two for the one that failed, and once to detach.
        assert_eq!(attached.detach().unwrap(), 6);
    }

    #[test]
    fn of_two_siblings_on_one_counter_the_first_notices_at_its_next_advance() {
        let (disk, counter) = (Arc::new(Disk::default()), Counter::default());
        let first = Attachment::attach(disk.clone(), Box::new(counter.clone())).unwrap();
        let copy = Arc::new(Disk { count: disk.anchor_count().into(), ..Disk::default() });
        let second = Attachment::attach(copy, Box::new(counter)).unwrap();
        assert_eq!(first.tick().unwrap_err().rejection(), Some(&Rejection::AnchorMismatch));
        assert_eq!(second.tick().unwrap(), 5);
    }
}
