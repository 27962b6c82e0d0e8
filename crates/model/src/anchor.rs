//! The protocol between something that can be put back to an earlier state (a volume's header, a
//! table in a file) and the counter that it is anchored in, as a pure transition. Whoever keeps a
//! counter runs this very function: `disk` for volumes that stand alone, the host agent for those of
//! its VMs and for its own table.
//!
//! ```text
//!            Opened          HeaderDurable          Incremented
//!   Closed ---------> Writing ------------> Counting -----------> Attached   (or Writing again,
//!                       ^  Tick, Detach        |                     |        until the goal)
//!                       +----------------------|---------------------+
//!                                              +-----------------------> Detached
//! ```
//!
//! **Invariants** (model-checked in the `disk` crate on this very function): no header older than what the
//! last completed advance covered is ever accepted for writing; a crash at any point leaves a
//! volume that is accepted.

pub mod record;

use thiserror::Error;

/// Why a header is not used with its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The header counts further than the counter, or somebody else moves the counter.
    #[error("it is not the one that its anchor counts")]
    AnchorMismatch,
    /// The header is older than what the counter says was written.
    #[error("it is older than its anchor says: an earlier copy was put in its place")]
    RolledBack,
}

impl Rejection {
    /// The name of the refusal, in kebab-case.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AnchorMismatch => "anchor-mismatch",
            Self::RolledBack => "rolled-back",
        }
    }
}

/// How many advances come before the first write of an attachment, and after one that failed: each
/// leaves no acceptable header behind that an interrupted advance to the same count wrote.
const LEAD: u64 = 2;

/// Where an attachment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing happened yet.
    #[default]
    Closed,
    /// A header that counts `from + 1` is being written.
    Writing {
        /// The counter.
        from: u64,
        /// The counter at which this row of advances ends.
        goal: u64,
        /// The volume is detached then.
        last: bool,
    },
    /// That header is durable, and the counter is being incremented.
    Counting {
        /// The counter before.
        from: u64,
        /// The counter at which this row of advances ends.
        goal: u64,
        /// The volume is detached then.
        last: bool,
    },
    /// The guest may write.
    Attached {
        /// The counter, and the count of the header in force.
        count: u64,
    },
    /// In good order.
    Detached {
        /// The counter, and the count of the header in force.
        count: u64,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The volume was opened; nothing was written to it.
    Opened {
        /// The counter.
        counter: u64,
        /// The count of its header.
        header: u64,
    },
    /// The header that was asked for is durable.
    HeaderDurable,
    /// The counter was incremented, by us.
    Incremented,
    /// The counter was not what we took it for: somebody else moves it.
    Moved,
    /// Writing the header or incrementing failed, with an unknown outcome; the counter was read
    /// again.
    Retried {
        /// The counter.
        counter: u64,
        /// Nobody else can have moved it.
        alone: bool,
    },
    /// It is time for the next advance.
    Tick,
    /// The guest is done.
    Detach,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing.
    Rest,
    /// Commit a header with this count and make it durable.
    WriteHeader {
        /// The count.
        count: u64,
        /// It is the last one of this attachment.
        last: bool,
    },
    /// Increment the counter.
    Increment {
        /// What it must be.
        from: u64,
    },
}

/// Whether a header that counts `header` may be used when the counter is `counter`.
///
/// # Errors
/// [`Rejection::RolledBack`], [`Rejection::AnchorMismatch`].
pub const fn accept(counter: u64, header: u64) -> Result<(), Rejection> {
    if header < counter {
        return Err(Rejection::RolledBack);
    }
    if header - counter > 1 {
        return Err(Rejection::AnchorMismatch);
    }
    Ok(())
}

/// The transition. What does not fit the state, or a counter that somebody else moved, ends the
/// attachment.
///
/// # Errors
/// [`Rejection::RolledBack`], [`Rejection::AnchorMismatch`]: the guest must not write (any more).
pub fn step(state: State, event: Event) -> Result<(State, Action), Rejection> {
    match (state, event) {
        (State::Closed, Event::Opened { counter, header }) => {
            accept(counter, header)?;
            // Also if the header counts one more already: it may not be durable yet.
            Ok(write(counter, counter.saturating_add(LEAD), false))
        }
        (State::Writing { from, goal, last }, Event::HeaderDurable) => {
            Ok((State::Counting { from, goal, last }, Action::Increment { from }))
        }
        (State::Counting { from, goal, last }, Event::Incremented) => {
            Ok(counted(from.saturating_add(1), goal, last))
        }
        (State::Writing { from, goal, last }, Event::Retried { counter, .. })
            if counter == from =>
        {
            Ok(write(counter, goal.max(counter.saturating_add(LEAD)), last))
        }
        (State::Counting { from, goal, last }, Event::Retried { counter, .. })
            if counter == from =>
        {
            Ok(write(counter, goal.max(counter.saturating_add(LEAD)), last))
        }
        // Not alone nobody would know whether we moved it or a sibling did.
        (State::Counting { from, goal, last }, Event::Retried { counter, alone: true })
            if counter == from.saturating_add(1) =>
        {
            Ok(counted(counter, goal, last))
        }
        (State::Attached { count }, Event::Tick) => {
            Ok(write(count, count.saturating_add(1), false))
        }
        (State::Attached { count }, Event::Detach) => {
            Ok(write(count, count.saturating_add(1), true))
        }
        (_, _) => Err(Rejection::AnchorMismatch),
    }
}

const fn write(from: u64, goal: u64, last: bool) -> (State, Action) {
    let count = from.saturating_add(1);
    (State::Writing { from, goal, last }, Action::WriteHeader { count, last })
}

const fn counted(counter: u64, goal: u64, last: bool) -> (State, Action) {
    if counter < goal {
        write(counter, goal, last)
    } else if last {
        (State::Detached { count: counter }, Action::Rest)
    } else {
        (State::Attached { count: counter }, Action::Rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_at_the_counter_or_one_ahead_is_accepted_and_no_other() {
        assert_eq!(accept(5, 4), Err(Rejection::RolledBack));
        assert_eq!(accept(5, 0), Err(Rejection::RolledBack));
        assert_eq!(accept(5, 5), Ok(()));
        assert_eq!(accept(5, 6), Ok(()));
        assert_eq!(accept(5, 7), Err(Rejection::AnchorMismatch));
        assert_eq!(accept(0, u64::MAX), Err(Rejection::AnchorMismatch));
    }

    #[test]
    fn an_attachment_advances_by_two_before_the_guest_may_write() {
        let mut state = State::Closed;
        let mut actions = Vec::new();
        for event in [
            Event::Opened { counter: 7, header: 8 },
            Event::HeaderDurable,
            Event::Incremented,
            Event::HeaderDurable,
            Event::Incremented,
        ] {
            let (next, action) = step(state, event).unwrap();
            assert_ne!(state, State::Attached { count: 8 });
            state = next;
            actions.push(action);
        }
        assert_eq!(state, State::Attached { count: 9 });
        let expected = [
            Action::WriteHeader { count: 8, last: false },
            Action::Increment { from: 7 },
            Action::WriteHeader { count: 9, last: false },
            Action::Increment { from: 8 },
            Action::Rest,
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn a_counter_that_somebody_else_moved_ends_the_attachment() {
        let counting = State::Counting { from: 3, goal: 4, last: false };
        assert_eq!(step(counting, Event::Moved), Err(Rejection::AnchorMismatch));
        for counter in [0, 2, 5] {
            let moved = step(counting, Event::Retried { counter, alone: true });
            assert_eq!(moved, Err(Rejection::AnchorMismatch));
        }
        let sibling = Event::Retried { counter: 4, alone: false };
        assert_eq!(step(counting, sibling), Err(Rejection::AnchorMismatch));
        let ours = Event::Retried { counter: 4, alone: true };
        assert_eq!(step(counting, ours), Ok((State::Attached { count: 4 }, Action::Rest)));
        let writing = State::Writing { from: 3, goal: 4, last: false };
        assert_eq!(step(writing, ours), Err(Rejection::AnchorMismatch));
        let detached = State::Detached { count: 3 };
        assert_eq!(step(detached, Event::Tick), Err(Rejection::AnchorMismatch));
    }
}
