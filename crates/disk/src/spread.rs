//! A small fixed pool of threads for requests that should not hold up the others of their
//! connection: large ones, which then use several cores, and all of a medium that makes its reader
//! wait.
//!
//! **Invariant:** the queue is bounded; what does not fit is done by the caller itself.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

/// Jobs that wait at a time.
const WAITING_MAX: usize = 64;

/// A piece of work; it gets what its thread keeps between jobs.
type Job<K> = Box<dyn FnOnce(&mut K) + Send>;

/// The pool. Dropping it finishes what was given and ends the threads.
#[derive(Debug)]
pub(crate) struct Spread<K> {
    shared: Arc<Shared<K>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Condvar,
}

struct State<K> {
    jobs: VecDeque<Job<K>>,
    ended: bool,
}

impl<K> std::fmt::Debug for Shared<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<K: Default + 'static> Spread<K> {
    /// A pool of `threads` threads.
    pub(crate) fn new(threads: usize) -> io::Result<Self> {
        let state = Mutex::new(State { jobs: VecDeque::new(), ended: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let mut pool = Self { shared, threads: Vec::new() };
        for _ in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name("spread".to_owned());
            pool.threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(pool)
    }
}

impl<K> Spread<K> {
    /// Whether a job given now would be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.shared.state().jobs.len() < WAITING_MAX
    }

    /// Gives a job to the next free thread.
    pub(crate) fn give(&self, job: impl FnOnce(&mut K) + Send + 'static) {
        self.shared.state().jobs.push_back(Box::new(job));
        self.shared.changed.notify_one();
    }
}

impl<K> Drop for Spread<K> {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl<K> Shared<K> {
    fn state(&self) -> std::sync::MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job<K>> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.ended {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self)
    where
        K: Default,
    {
        let mut kept = K::default();
        while let Some(job) = self.next() {
            job(&mut kept);
        }
    }
}

/// Counts work in flight, so that its owner can wait for the last of it.
#[derive(Debug, Default)]
pub(crate) struct Flying {
    count: Mutex<usize>,
    landed: Condvar,
}

impl Flying {
    pub(crate) fn begin(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    pub(crate) fn end(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.landed.notify_all();
    }

    pub(crate) fn any(&self) -> bool {
        self.count() > 0
    }

    pub(crate) fn count(&self) -> usize {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is in flight.
    pub(crate) fn wait(&self) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count > 0 {
            count = self.landed.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_done_before_the_pool_ends() {
        let (pool, flying) = (Spread::<u32>::new(3).unwrap(), Arc::new(Flying::default()));
        let sum = Arc::new(Mutex::new(0));
        for value in 1..=50_u64 {
            let (sum, flying) = (Arc::clone(&sum), Arc::clone(&flying));
            flying.begin();
            pool.give(move |kept| {
                *kept += 1;
                *sum.lock().unwrap() += value;
                flying.end();
            });
        }
        flying.wait();
        assert!(!flying.any());
        drop(pool);
        assert_eq!(*sum.lock().unwrap(), 1275);
    }
}
