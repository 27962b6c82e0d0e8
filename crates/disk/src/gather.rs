//! Letting requests gather: a worker that has nothing left to do sleeps for some microseconds before it
//! waits, if that has lately let several come together.
//!
//! To be woken costs a worker as much as a request of 4 KiB, and waking it costs the client the same. A
//! client with many requests in flight sends them one by one; served at once, each finds the worker
//! asleep. Network adapters hold interrupts back for the same reason. A pause that brought too few
//! requests is not repeated for a while, each time twice as long, so that a client that sends one at a
//! time meets one in a thousand.

use std::{num::NonZeroU64, thread, time::Duration};

/// How long a worker sleeps. The kernel adds some microseconds of its own.
const PAUSE: Duration = Duration::from_micros(14);
/// A thread's sleep ends at most so much later than asked, in nanoseconds; the kernel's default is
/// four times the pause.
const SLACK: Option<NonZeroU64> = NonZeroU64::new(1000);
/// So many requests after a pause say that it was worth it: a client with four in flight loses more by
/// the pause than both gain by fewer calls.
const WORTH: u32 = 5;
/// The most waits without a pause in a row.
const MOST_WITHOUT: u32 = 1023;

/// Whether to pause, learnt from what pauses brought.
#[derive(Debug, Default)]
struct Habit {
    paused: bool,
    /// Waits without a pause that are still to come.
    without: u32,
    /// How many there were after the last pause that was not worth it.
    last: u32,
}

impl Habit {
    /// Before a wait, when `served` requests were done since the one before: whether to pause first.
    fn pauses(&mut self, served: u32) -> bool {
        if self.paused {
            self.last = if served >= WORTH {
                0
            } else {
                self.last.saturating_mul(2).saturating_add(1).min(MOST_WITHOUT)
            };
            self.without = self.last;
        }
        self.paused = self.without == 0;
        self.without = self.without.saturating_sub(1);
        self.paused
    }
}

/// The pauses of one thread, and the requests that it served since the last one.
#[derive(Debug)]
pub(crate) struct Gather {
    habit: Habit,
    served: u32,
    able: bool,
}

impl Gather {
    /// For the thread that calls; it pauses only where the kernel lets it do so for microseconds.
    pub(crate) fn here() -> Self {
        let able = rustix::thread::set_current_timer_slack(SLACK).is_ok();
        Self { habit: Habit::default(), served: 0, able }
    }

    /// A request was served.
    pub(crate) const fn served(&mut self) {
        self.served = self.served.saturating_add(1);
    }

    /// Nothing is left to do: pauses if that is worth it.
    pub(crate) fn pause(&mut self) {
        let served = std::mem::take(&mut self.served);
        if self.able && self.habit.pauses(served) {
            thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `waits` waits are paused before, with `served` requests between two.
    fn pauses(habit: &mut Habit, waits: u32, served: impl Fn(bool) -> u32) -> u32 {
        let mut paused = false;
        (0..waits).fold(0, |count, _| {
            paused = habit.pauses(served(paused));
            count + u32::from(paused)
        })
    }

    #[test]
    fn a_client_of_one_request_at_a_time_meets_few_pauses() {
        let mut habit = Habit::default();
        pauses(&mut habit, 2048, |_| 1);
        let seldom = pauses(&mut habit, 102_400, |_| 1);
        assert!((90..=110).contains(&seldom), "{seldom}");
    }

    #[test]
    fn pauses_that_bring_many_are_kept() {
        let mut habit = Habit::default();
        assert_eq!(pauses(&mut habit, 1000, |paused| if paused { 8 } else { 1 }), 1000);
    }

    #[test]
    fn after_a_change_of_the_client_the_habit_changes() {
        let mut habit = Habit::default();
        pauses(&mut habit, 5000, |_| 1);
        let many = pauses(&mut habit, 5000, |paused| if paused { 8 } else { 1 });
        assert!(many > 3900, "{many}");
        let few = pauses(&mut habit, 5000, |_| 1);
        assert!(few < 20, "{few}");
    }
}
