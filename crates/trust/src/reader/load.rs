//! How much happens in a second: to ask for two phases under load, and to note refusals one by one
//! only as long as they are few. Pure: `now` comes in.
//!
//! Not [`serve::flood`]: that shares out an allowance a minute to each source, this asks of all
//! together whether the present second, or the one before, is a busy one.

use std::sync::{Mutex, PoisonError};

/// Counts what happens in each second.
#[derive(Debug)]
pub(super) struct Rate {
    limit: u32,
    /// The second, and how much happened in it and in the one before.
    counts: Mutex<(i64, u32, u32)>,
}

impl Rate {
    /// Up to `limit` in a second is calm.
    pub(super) const fn new(limit: u32) -> Self {
        Self { limit, counts: Mutex::new((0, 0, 0)) }
    }

    fn with<T>(&self, second: i64, work: impl FnOnce(u32, &mut u32, u32) -> T) -> T {
        // Three numbers are whole whatever panicked.
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, present, before) = &mut *counts;
        if *at != second {
            *before = if at.checked_add(1) == Some(second) { *present } else { 0 };
            (*at, *present) = (second, 0);
        }
        work(self.limit, present, *before)
    }

    /// Whether the present second, or the one before, had more than the limit.
    pub(super) fn is_exceeded(&self, second: i64) -> bool {
        self.with(second, |limit, present, before| *present >= limit || before > limit)
    }

    /// Counts one; whether it is within the limit of this second.
    pub(super) fn note(&self, second: i64) -> bool {
        self.with(second, |limit, present, _| {
            *present = present.saturating_add(1);
            *present <= limit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_second_is_remembered_for_one_more() {
        let rate = Rate::new(2);
        assert!(rate.note(10) && rate.note(10));
        assert!(rate.is_exceeded(10));
        assert!(!rate.note(10));
        assert!(rate.is_exceeded(11));
        assert!(!rate.is_exceeded(12));
        assert!(rate.note(12));
    }
}
