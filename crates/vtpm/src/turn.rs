//! A lock that is taken in the order of asking, so that neither a guest that sends command after
//! command nor a busy host starves the other.

use std::{
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    serving: u64,
}

/// A value that is used in turns.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    queue: Mutex<Queue>,
    moved: Condvar,
    value: Mutex<T>,
}

/// One turn; ends on drop.
#[derive(Debug)]
pub(crate) struct Turn<'a, T> {
    turns: &'a Turns<T>,
    guard: MutexGuard<'a, T>,
}

impl<T> Turns<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { queue: Mutex::default(), moved: Condvar::new(), value: Mutex::new(value) }
    }

    /// Waits for one's turn.
    pub(crate) fn take(&self) -> Turn<'_, T> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = queue.next;
        queue.next = ticket.wrapping_add(1);
        while queue.serving != ticket {
            queue = self.moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        let guard = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        Turn { turns: self, guard }
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        // The guard is released a moment after the next one is called; that one waits for it.
        let mut queue = self.turns.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.serving = queue.serving.wrapping_add(1);
        drop(queue);
        self.turns.moved.notify_all();
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_thread_gets_its_turn_and_no_update_is_lost() {
        let turns = Arc::new(Turns::new(0_u32));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let turns = Arc::clone(&turns);
                std::thread::spawn(move || (0..500).for_each(|_| *turns.take() += 1))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*turns.take(), 2000);
    }
}
