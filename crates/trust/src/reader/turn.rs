//! Turns of the runtime's threads: who may keep one busy, in the order of asking.
//!
//! ```text
//! request ─► Turns::next (waits in line) ─► work on this thread ─┬─ question: a moment
//!                                                               └─ order: Turn::wait
//!                                         the turn goes to the next, the thread is replaced
//! ```
//!
//! **Invariants:** as many requests are worked on as there are turns, the longest waiting first;
//! nobody has a turn while it waits for a disk, so orders hold up no question.

use std::{cell::Cell, fmt, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    /// So many at once.
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// The next turn, once everyone who asked before has had one; `None` only when the process ends.
    pub(super) async fn next(&self) -> Option<Turn> {
        let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
        Some(Turn(Some(Cell::new(Some(permit)))))
    }
}

/// Where something is worked on: on a thread of the runtime, in its turn; or on a thread that may
/// wait as long as it likes.
pub(super) struct Turn(Option<Cell<Option<OwnedSemaphorePermit>>>);

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

impl Turn {
    /// On a thread that holds up nobody.
    pub(super) const fn aside() -> Self {
        Self(None)
    }

    /// Waits for what may take long: others have the turn, and the thread's other work, meanwhile.
    pub(super) fn wait<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            None => work(),
            Some(permit) => {
                drop(permit.take());
                tokio::task::block_in_place(work)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn turns_are_had_in_the_order_of_asking() {
        let turns = Turns::new(1);
        let first = turns.next().await.unwrap();
        let (had, mut seen) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..8 {
            let (mine, had) = (turns.clone(), had.clone());
            tokio::spawn(async move {
                let _turn = mine.next().await.unwrap();
                had.send(number).unwrap();
            });
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(first);
        for number in 0..8 {
            assert_eq!(seen.recv().await, Some(number));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_waits_for_the_disk_gives_the_turn_to_the_next() {
        let turns = Turns::new(1);
        let (go, wait) = std::sync::mpsc::channel();
        let slow = {
            let turns = turns.clone();
            tokio::spawn(async move {
                let turn = turns.next().await.unwrap();
                turn.wait(|| wait.recv()).unwrap();
            })
        };
        tokio::time::sleep(Duration::from_millis(5)).await;
        let next = tokio::time::timeout(Duration::from_secs(5), turns.next()).await;
        assert!(next.unwrap().is_some());
        go.send(()).unwrap();
        slow.await.unwrap();
    }

    #[test]
    fn beside_the_runtime_it_just_waits() {
        assert_eq!(Turn::aside().wait(|| 1), 1);
    }
}
