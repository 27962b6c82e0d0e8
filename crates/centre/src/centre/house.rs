//! Keeping house: CRLs that are due, checkpoints of the audit log, and what is of no use any more.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use serve::exit::chain;
use store::{typed::RecordError, wait};

use super::{Centre, record::OrderRecord, refusal::Fault};

/// How often it is looked whether there is something to do.
const TICK: Duration = Duration::from_millis(250);
/// How often records that are over are forgotten.
const EVERY: Duration = Duration::from_secs(3600);
/// Revisions of history that are kept.
const HISTORY: u64 = 1000;

impl Centre {
    pub(super) fn keep_house(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let centre = Arc::clone(self);
        let run = move || {
            let (mut checked, mut tidied) = (Duration::ZERO, centre.clock.monotonic());
            while !centre.stop.is_requested() {
                let now = centre.clock.monotonic();
                let pause = Duration::from_secs(centre.settings.limits.checkpoint_s);
                let mut done = centre.publish_due(true);
                if now.saturating_sub(checked) >= pause {
                    checked = now;
                    done = done.and_then(|()| Ok(centre.journal.checkpoint().map(drop)?));
                }
                if now.saturating_sub(tidied) >= EVERY {
                    tidied = now;
                    done = done.and_then(|()| centre.tidy());
                }
                if let Err(fault) = done {
                    tracing::warn!(error = chain(&fault), "keeping house failed; again later");
                }
                thread::sleep(TICK);
            }
        };
        thread::Builder::new().name("keep-house".to_owned()).spawn(run)
    }

    /// Forgets orders that ended long ago, old feed items, and the store's history. What the PKIs
    /// record about orders stays, so that an id is never used for a second certificate.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn tidy(&self) -> Result<(), Fault> {
        let now = self.now();
        let kept = self.settings.limits.order_life_s.saturating_mul(1000);
        let over = |one: &OrderRecord| one.end.is_some() && now.saturating_sub(one.at) > kept;
        let orders = wait(self.records.forget("order/", over))?;
        self.feed.forget(self.settings.limits.feed_items)?;
        let store = self.records.sealed().store();
        let state = wait(store.state()).map_err(RecordError::from)?;
        // A head must find its own commit: the one in force must not be older than what is left.
        if let Some(until) = state.compaction(HISTORY).filter(|_| self.anchor.settled()) {
            wait(store.compact(until)).map_err(RecordError::from)?;
        }
        tracing::debug!(orders, "tidied up");
        Ok(())
    }
}
