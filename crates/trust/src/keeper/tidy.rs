//! Keeping house: checkpoints of the audit log, CRLs that are due, and what is of no use any more.
//!
//! **Invariant:** an authorization is forgotten only after every order that it authorized is.

use std::{io, sync::Arc, thread, time::Duration};

use serve::{exit::chain, shutdown::Shutdown};
use store::{typed::RecordError, wait};

use super::{
    Keeper,
    centre::{MIGRATIONS, MovingRecord},
    record::{
        Authorization, Escrowed, Issuing, OrderRecord, OrderState, REVOKED, ReceiptRecord,
        Recovery, Revoked,
    },
    refusal::Fault,
};

/// How often it is looked whether there is something to do.
const TICK: Duration = Duration::from_millis(500);
/// How often records that are over are forgotten.
const EVERY: Duration = Duration::from_secs(3600);
/// Revisions of history that are kept.
const HISTORY: u64 = 1000;

impl Keeper {
    pub(super) fn keep_house(self: &Arc<Self>, stop: Shutdown) -> io::Result<()> {
        let keeper = Arc::clone(self);
        let run = move || {
            let (mut checked, mut tidied) = (Duration::ZERO, Duration::ZERO);
            loop {
                thread::sleep(TICK);
                if stop.is_requested() {
                    return;
                }
                let now = keeper.clock.monotonic();
                let pause = Duration::from_secs(keeper.settings.checkpoint_s);
                let mut done = keeper.publish();
                if now.saturating_sub(checked) >= pause {
                    checked = now;
                    done = done.and_then(|()| keeper.journal.checkpoint());
                }
                if now.saturating_sub(tidied) >= EVERY {
                    tidied = now;
                    done = done.and_then(|()| keeper.tidy());
                }
                if let Err(fault) = done {
                    tracing::warn!(detail = chain(&fault), "keeping house failed; again later");
                }
            }
        };
        thread::Builder::new().name("keep-house".to_owned()).spawn(run).map(drop)
    }

    /// Forgets what is over, and the store's history.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn tidy(&self) -> Result<(), Fault> {
        self.renew_responder()?;
        let now = self.now();
        let kept = self.settings.order_life_s.saturating_mul(1000);
        let old = move |at: u64| now.saturating_sub(at) > kept;
        let records = self.library.records();
        let orders = wait(records.forget("order/", |one: &OrderRecord| {
            !matches!(one.state, OrderState::Waiting | OrderState::Ordered) && old(one.at)
        }))?;
        wait(records.forget("receipt/", |one: &ReceiptRecord| old(one.at)))?;
        let twice = move |at: u64| old(at.saturating_add(kept));
        let phrases = wait(records.forget("auth/", |one: &Authorization| twice(one.expires_at)))?;
        if self.issuer.line().is_some() {
            // What is over is so by its interval; our own CA keeps its marks for its CRLs.
            let instant = i64::try_from(now).unwrap_or(i64::MAX);
            wait(records.forget(REVOKED, |one: &Revoked| instant >= one.not_on_or_after))?;
        }
        wait(records.forget("recovery/", |one: &Recovery| now >= one.expires_at))?;
        wait(records.forget(MIGRATIONS, |one: &MovingRecord| one.is_over() && old(one.at)))?;
        wait(records.forget("made/", |one: &Escrowed| now >= one.until))?;
        wait(records.forget("ledger/", |one: &Issuing| one.issued))?;
        let store = records.sealed().store();
        let state = wait(store.state()).map_err(RecordError::from)?;
        let until = state.revision.saturating_sub(HISTORY);
        if until > state.compacted {
            wait(store.compact(until)).map_err(RecordError::from)?;
        }
        tracing::debug!(orders, phrases, "tidied up");
        Ok(())
    }
}
