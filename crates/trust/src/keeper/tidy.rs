//! Keeping house: checkpoints of the audit log, CRLs that are due, and what is of no use any more.
//!
//! **Invariant:** an authorization is forgotten only after every order that it authorized is.

use std::{io, sync::Arc, thread, time::Duration};

use serve::{exit::chain, shutdown::Shutdown};
use store::{
    typed::{Place, RecordError, Write},
    wait,
};

use super::{
    Keeper,
    centre::{MIGRATIONS, MovingRecord},
    owner::{OWNED, named_by},
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
/// Rows that are looked at together.
const PAGE: usize = 256;

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
        let rows = self.tidy_owned()?;
        let store = records.sealed().store();
        let state = wait(store.state()).map_err(RecordError::from)?;
        // A head must find its own commit: the one in force must not be older than what is left.
        if let Some(until) = state.compaction(HISTORY).filter(|_| self.anchor.settled()) {
            wait(store.compact(until)).map_err(RecordError::from)?;
        }
        tracing::debug!(orders, phrases, rows, "tidied up");
        Ok(())
    }

    /// Forgets rows that name an owner's records which were forgotten; how many. A row is written with
    /// its record: one without is of no use any more.
    fn tidy_owned(&self) -> Result<usize, Fault> {
        let records = self.library.records();
        let (mut count, mut after): (usize, _) = (0, None);
        loop {
            let (page, more) = wait(records.keys(OWNED, after, PAGE))?;
            for (key, version) in &page {
                let Some(named) = named_by(key) else { continue };
                let place: Place<()> = Place::at(named)?;
                if self.library.holds(&place)? {
                    continue;
                }
                let dead: Place<()> = Place::at(key.as_str())?;
                let write = Write::new().delete(dead, *version).only_if(place, 0);
                if self.library.commit(write)? {
                    count = count.saturating_add(1);
                }
            }
            after = page.last().map(|(key, _)| key.clone());
            if !more || after.is_none() {
                return Ok(count);
            }
        }
    }
}
