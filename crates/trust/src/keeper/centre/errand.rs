//! Orders on their way through the centre.
//!
//! ```text
//! on record (state `ordered`) ─► submit ─┬─ done ─► checked ─► library, order done: one transaction
//!        ▲                               ├─ refused ─► order failed
//!        └── again later, twice as late ─┴─ queued, working, away
//! ```
//! After a restart every order in that state is submitted again, under its id.

use std::{io, sync::Arc, thread, time::Duration};

use model::{
    centre::{CentreOrder, CentreProgress, CentreWork, EndReason},
    keys::order::{KeyFailure, KeyOutcome, Order, Prototype},
};
use serve::{exit::chain, shutdown::Shutdown};
use store::wait;

use super::{CentreError, Line, held, order_id};
use crate::keeper::{
    Keeper,
    authorize::Granted,
    record::{self, EntryId, OrderRecord, OrderState, Wanted},
    refusal::{Fault, Refusal, Why},
};

/// Threads that run errands.
const RUNNERS: usize = 4;
/// The first and the longest wait before an errand is taken up again.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// How long one may wait at the centre for an order that was just given.
const FRESH: Duration = Duration::from_secs(2);
/// How often it is looked whether the process is to end.
const TICK: Duration = Duration::from_millis(500);

impl Line {
    /// Has an order taken further after `wait`; `tries` were made.
    pub(super) fn add(&self, id: EntryId, wait: Duration, tries: u32) {
        let at = self.clock.monotonic().saturating_add(wait);
        held(&self.errands).insert((at, id), tries);
        self.errand_added.notify_one();
    }

    /// Has a new order taken to the centre.
    pub(in crate::keeper) fn run(&self, id: EntryId) {
        self.add(id, Duration::ZERO, 0);
    }

    /// The next errand that is due, if one becomes so soon.
    fn due(&self) -> Option<(EntryId, u32)> {
        let mut errands = held(&self.errands);
        let now = self.clock.monotonic();
        let first = errands.first_key_value().map(|((at, _), _)| *at);
        if first.is_none_or(|at| at > now) {
            let wait = first.map_or(TICK, |at| at.saturating_sub(now).min(TICK));
            let waited = self.errand_added.wait_timeout(errands, wait);
            errands = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        let now = self.clock.monotonic();
        let due = errands.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, id), tries) = due.remove_entry();
        Some((id, tries))
    }

    fn is_idle(&self) -> bool {
        held(&self.errands).is_empty()
    }

    /// The centre's word on an order, which is given (again) if it was never tried.
    fn advance(&self, order: &CentreOrder, tries: u32) -> Result<CentreProgress, CentreError> {
        if tries > 0 {
            let wait = if self.is_idle() { FRESH } else { Duration::ZERO };
            match self.call(|centre| centre.progress(order.id, wait)) {
                // It may never have arrived: the same id makes it the same order.
                Err(CentreError::Refused(name)) if name == "order-unknown" => {}
                answer => return answer,
            }
        }
        match self.call(|centre| centre.submit(order))? {
            progress if progress.is_final() || !self.is_idle() => Ok(progress),
            _ => self.call(|centre| centre.progress(order.id, FRESH)),
        }
    }
}

impl Keeper {
    /// Takes up what was left, and runs errands and takes the centre's news in threads of their own
    /// until `stop` is raised. Nothing in the manner `full`.
    ///
    /// # Errors
    /// If the store cannot be read or no thread be started.
    pub fn attend_centre(self: &Arc<Self>, stop: &Shutdown) -> io::Result<()> {
        let Some(line) = self.issuer.line() else { return Ok(()) };
        self.take_up(line, None).map_err(io::Error::other)?;
        for number in 0..RUNNERS {
            let (keeper, line, stop) = (Arc::clone(self), Arc::clone(line), stop.clone());
            let run = move || {
                while !stop.is_requested() {
                    keeper.run_errand(&line);
                }
            };
            thread::Builder::new().name(format!("errands-{number}")).spawn(run)?;
        }
        self.take_news_until(line, stop)
    }

    /// Has every order run that the centre is not done with; of one owner, or all.
    fn take_up(&self, line: &Line, owner: Option<&str>) -> Result<(), Fault> {
        let all = wait(self.library.records().all::<OrderRecord>(record::ORDERS))?;
        for (key, order) in all {
            let id = key.as_str().strip_prefix(record::ORDERS).and_then(EntryId::from_hex);
            let meant = owner.is_none() || order.owner.as_deref() == owner;
            if let Some(id) = id.filter(|_| meant && order.state == OrderState::Ordered) {
                line.run(id);
            }
        }
        Ok(())
    }

    /// The keys of an owner are here now: their orders go on here, and what the newest CRLs say of
    /// their certificates counts.
    pub(in crate::keeper) fn arrived(&self, owner: &str) -> Result<(), Why> {
        let Some(line) = self.issuer.line() else { return Ok(()) };
        self.compare_owned(line, owner)?;
        Ok(self.take_up(line, Some(owner))?)
    }

    /// Takes one errand a step further, if one is due soon.
    fn run_errand(&self, line: &Line) {
        let Some((id, tries)) = line.due() else { return };
        match self.step(line, id, tries) {
            Ok(true) => line.note_end(),
            Ok(false) => {
                let wait = WAITS.0.saturating_mul(1 << tries.min(8)).min(WAITS.1);
                line.add(id, wait, tries.saturating_add(1));
            }
            Err(fault) => {
                tracing::error!(order = %id, detail = chain(&fault), "an order could not be ended");
                line.add(id, WAITS.1, tries.saturating_add(1));
            }
        }
    }

    /// Whether the order is at its end.
    fn step(&self, line: &Line, id: EntryId, tries: u32) -> Result<bool, Fault> {
        let Some(held) = self.library.get(&record::order(id)?)? else { return Ok(true) };
        if held.value.state != OrderState::Ordered {
            return Ok(true);
        }
        // Orders of keys that are on their way go on where those arrive.
        if self.guard_now(held.value.owner.as_deref())?.is_none() {
            return Ok(false);
        }
        let Some(order) = self.as_order(line, id, &held.value)? else { return Ok(true) };
        match line.advance(&order, tries) {
            Ok(CentreProgress::Done(outcome)) => self.end_order(line, id, outcome),
            Ok(CentreProgress::Refused { name, hint }) => {
                let subject = format!("key:{}", held.value.name);
                let hint = hint.unwrap_or_default();
                self.journal.named("centre", "key-order", &subject, (&name, &hint))?;
                self.close_order(id, OrderState::Failed(KeyFailure::Refused))
            }
            Ok(CentreProgress::Queued { .. } | CentreProgress::Working)
            | Err(CentreError::Away(_) | CentreError::Busy) => Ok(false),
            Err(CentreError::Refused(name)) => {
                tracing::warn!(order = %id, name, "the centre does not take an order; again later");
                Ok(false)
            }
        }
    }

    /// A record as the centre is told it.
    fn as_order(
        &self,
        line: &Line,
        id: EntryId,
        order: &OrderRecord,
    ) -> Result<Option<CentreOrder>, Fault> {
        let certificate =
            |entry: EntryId| self.library.entry(entry).map(|found| found.map(|found| found.value));
        let work = match &order.wanted {
            Wanted::Register(asked) => {
                let subject = Prototype { revocation_code_identifier: None, ..asked.clone() };
                CentreWork::Enrol { subject, request: None }
            }
            Wanted::Reissue(old) => {
                let Some(old) = certificate(*old)? else { return Ok(None) };
                let subject = Prototype {
                    name: Some(old.name),
                    uses: old.uses,
                    use_with: old.use_with,
                    ..Prototype::default()
                };
                CentreWork::Renew { certificate: old.certificate, subject, request: None }
            }
            Wanted::Revoke(ended) => {
                let Some(ended) = certificate(*ended)? else { return Ok(None) };
                let (certificate, reason) = (ended.certificate, EndReason::Unspecified);
                CentreWork::Revoke { certificate, reason }
            }
        };
        let (tenant, domain) = (line.at.tenant.clone(), line.at.domain.clone());
        Ok(Some(CentreOrder { id: order_id(id), tenant, domain, work }))
    }

    /// Puts an order on record for the centre, using up what authorized it, and has it run.
    pub(in crate::keeper) fn send(
        &self,
        line: &Line,
        order: &Order,
        (name, wanted): (&str, Wanted),
        by: Option<(&Granted, [u8; 32])>,
    ) -> Result<KeyOutcome, Why> {
        let operation = wanted.operation();
        let (id, write) = self.on_record(order, (name, wanted), by, OrderState::Ordered)?;
        if !self.library.commit(write)? {
            return Err(Fault::Contended.into());
        }
        // It is on its way whatever the log says: a crash here would not stop it either.
        line.run(id);
        let (by, subject) = (crate::keeper::actor(order), format!("key:{name}"));
        let detail = format!("{} order {id}", operation.name());
        self.journal.done(&by, "key-ordered", &subject, &detail)?;
        self.await_end(line, order, id)
    }

    /// What becomes of an order at the centre: at once for a client that can wait, and else as long
    /// as clients are kept waiting.
    pub(in crate::keeper) fn await_end(
        &self,
        line: &Line,
        order: &Order,
        id: EntryId,
    ) -> Result<KeyOutcome, Why> {
        if order.may_wait {
            return Ok(KeyOutcome::Later);
        }
        let deadline = self.clock.monotonic().saturating_add(Duration::from_secs(line.at.wait_s));
        loop {
            let seen = *held(&line.ended);
            let now = self.library.get(&record::order(id)?)?.ok_or(Refusal::OrderUnknown)?;
            match now.value.state {
                OrderState::Done(entry) => {
                    return self.done(now.value.wanted.operation(), entry, None);
                }
                OrderState::Failed(_) => return Err(Refusal::CentreRefused.into()),
                OrderState::Waiting | OrderState::Ordered => {}
            }
            if !line.wait_for_an_end(seen, deadline) {
                return Err(Refusal::OrderUnderWay.into());
            }
        }
    }
}
