//! The anchor of one store: at a start it decides whether the store may be used, and then it writes
//! heads and moves the counter, step by step as [`store::head`] says.
//!
//! **Invariant:** if the counter is not where only this store can have moved it, no head is written.

use store::head::{self, Anchor, AnchorError, Found, Head, HeadRejection, Step};

use crate::{fault::AnchorFault, ground::Ground};

/// The anchor with its ground.
#[derive(Debug)]
pub struct Anchored {
    ground: Ground,
    anchor: Anchor,
    covered: (u64, u64),
    /// An increment was tried and its answer lost: the counter may have moved by our own hand.
    unsure: bool,
}

impl Anchored {
    /// The anchor of a new store, or of one that an explicit restore has made the newest.
    ///
    /// # Errors
    /// [`AnchorFault`].
    pub async fn first(ground: Ground) -> Result<Self, AnchorFault> {
        let counter = ground.counter.define().await?.value;
        Self::open(ground, Anchor::first(counter)).await
    }

    /// The anchor of a store that was never anchored, if its counter was not used either.
    ///
    /// # Errors
    /// [`AnchorFault`]; [`HeadRejection::Missing`] if the counter is in use.
    pub async fn unused(ground: Ground) -> Result<Self, AnchorFault> {
        let begun = ground.counter.define().await?;
        if !begun.fresh {
            return Err(HeadRejection::Missing { anchored: begun.value }.into());
        }
        Self::open(ground, Anchor::first(begun.value)).await
    }

    /// The anchor of a store that exists, if it is the newest there is.
    ///
    /// # Errors
    /// [`AnchorFault`]; if [`AnchorFault::refusal`] has a name, the store may not start.
    pub async fn resume(ground: Ground) -> Result<Self, AnchorFault> {
        let anchored = ground.counter.read().await?;
        let head = ground.load(&ground.head)?;
        let witness = ground.witnessed()?;
        let state = ground.store.state().await?;
        let at = |head: Option<&Head>| head.map(|head| head.revision);
        let commit_at_head = ground.commit_at(at(head.as_ref())).await?;
        let commit_at_witness = ground.commit_at(at(witness.as_ref())).await?;
        let found = Found {
            state: &state,
            commit_at_head,
            commit_at_witness,
            audit_size: ground.log.tree_head().size,
            audit_root_at_head: head.as_ref().and_then(|h| ground.log.root_at(h.audit.size)),
        };
        let fresh = head::check(head.as_ref(), anchored, witness.as_ref(), &found)?;
        Self::open(ground, Anchor::resume(&fresh)).await
    }

    async fn open(ground: Ground, anchor: Anchor) -> Result<Self, AnchorFault> {
        let mut anchored = Self { ground, anchor, covered: (0, 0), unsure: false };
        anchored.finish().await?;
        Ok(anchored)
    }

    /// Writes a head of the present state and moves the counter, if anything has changed.
    ///
    /// # Errors
    /// [`AnchorFault`].
    pub async fn advance(&mut self) -> Result<(), AnchorFault> {
        // What an earlier round left open covers an earlier state.
        self.finish().await?;
        if self.covered == self.ground.now_at().await? {
            return Ok(());
        }
        self.anchor.begin();
        self.finish().await
    }

    async fn finish(&mut self) -> Result<(), AnchorFault> {
        while let Some(step) = self.anchor.pending() {
            match step {
                Step::WriteHead { counter } => {
                    // A value that someone else has taken must not be in a head of ours.
                    self.expect(counter).await?;
                    self.covered = self.ground.write(counter).await?;
                    self.anchor.wrote_head()?;
                }
                Step::Increment { expect } => self.increment(expect).await?,
            }
        }
        Ok(())
    }

    /// That `next` is the counter's next value.
    async fn expect(&self, next: u64) -> Result<(), AnchorFault> {
        let (found, expected) = (self.ground.counter.read().await?, next.saturating_sub(1));
        if found == expected { Ok(()) } else { Err(AnchorError::Forked { expected, found }.into()) }
    }

    async fn increment(&mut self, next: u64) -> Result<(), AnchorFault> {
        if self.unsure && self.ground.counter.read().await? == next {
            self.unsure = false;
            return Ok(self.anchor.incremented(next)?);
        }
        self.expect(next).await?;
        self.unsure = true;
        let found = self.ground.counter.increment(next.saturating_sub(1)).await?;
        self.unsure = false;
        Ok(self.anchor.incremented(found)?)
    }

    /// The counter's value, as far as it is known.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.anchor.counter()
    }

    /// Puts the head out of use: if another copy of the store has the counter, this one must not
    /// start again by itself.
    pub(crate) fn disown(&self) {
        self.ground.disown();
    }
}
