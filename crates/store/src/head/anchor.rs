//! The order of writing heads and moving the counter, as a small state machine: [`Anchor::pending`]
//! says what to do next, the caller does it durably and reports.
//!
//! **Invariant:** a head for value T is durable before the counter reaches T, and the counter is
//! exactly T after it: any other value means that a second copy of the store uses the same counter.

use std::collections::VecDeque;

use thiserror::Error;

use super::Fresh;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sign a head of the present state with this counter and make it durable, at the witness too.
    WriteHead {
        /// The counter in the head.
        counter: u64,
    },
    /// Increment the TPM's counter and read it back.
    Increment {
        /// The value that it must then have.
        expect: u64,
    },
}

/// Why anchoring failed; the store must stop granting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AnchorError {
    /// The counter has another value than the one that only this store should have moved it to.
    #[error("the counter is at {found} instead of {expected}: another copy of the store uses it")]
    Forked {
        /// Value expected.
        expected: u64,
        /// Value found.
        found: u64,
    },
    /// A report of something that was not the pending step.
    #[error("this step was not pending")]
    OutOfOrder,
}

impl AnchorError {
    /// The refusal's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Forked { .. } => "store-forked",
            Self::OutOfOrder => "anchor-out-of-order",
        }
    }
}

/// The anchor of a running store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    counter: u64,
    pending: VecDeque<Step>,
}

impl Anchor {
    /// The anchor of a new store whose counter was defined just now and has the value `counter`.
    #[must_use]
    pub fn first(counter: u64) -> Self {
        let mut anchor = Self { counter, pending: VecDeque::new() };
        anchor.begin();
        anchor
    }

    /// The anchor of a store that [`super::check`] has let in.
    #[must_use]
    pub fn resume(fresh: &Fresh) -> Self {
        Self { counter: fresh.counter(), pending: fresh.steps().into() }
    }

    /// The value of the counter as far as it is known.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// Plans one more head, unless one is pending.
    pub fn begin(&mut self) {
        if self.pending.is_empty() {
            let next = self.counter.saturating_add(1);
            self.pending.push_back(Step::WriteHead { counter: next });
            self.pending.push_back(Step::Increment { expect: next });
        }
    }

    /// What to do next; `None` when head and counter agree and writes may be acknowledged.
    #[must_use]
    pub fn pending(&self) -> Option<Step> {
        self.pending.front().copied()
    }

    /// The pending head is durable.
    ///
    /// # Errors
    /// [`AnchorError::OutOfOrder`] if no head was pending.
    pub fn wrote_head(&mut self) -> Result<(), AnchorError> {
        match self.pending() {
            Some(Step::WriteHead { .. }) => {
                self.pending.pop_front();
                Ok(())
            }
            Some(Step::Increment { .. }) | None => Err(AnchorError::OutOfOrder),
        }
    }

    /// The counter was incremented and now reads `found`.
    ///
    /// # Errors
    /// [`AnchorError::Forked`] if it is not the expected value, [`AnchorError::OutOfOrder`] if no
    /// increment was pending.
    pub fn incremented(&mut self, found: u64) -> Result<(), AnchorError> {
        match self.pending() {
            Some(Step::Increment { expect }) if found == expect => {
                self.pending.pop_front();
                self.counter = found;
                Ok(())
            }
            Some(Step::Increment { expect }) => {
                Err(AnchorError::Forked { expected: expect, found })
            }
            Some(Step::WriteHead { .. }) | None => Err(AnchorError::OutOfOrder),
        }
    }
}
