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
    api::Bytes,
    centre::{CentreOrder, CentreOutcome, CentreProgress, CentreWork, EndReason},
    keys::{
        KeyFinding,
        order::{KeyFailure, KeyOutcome, Order, Prototype},
    },
};
use pki::{CertFacts, Pool, Terms, Usage, validate};
use serve::{exit::chain, shutdown::Shutdown};
use store::typed::{Versioned, Write};
use store::wait;

use super::{CentreError, Line, foreign_id, held, order_id};
use crate::keeper::{
    Keeper,
    authorize::Granted,
    issue::{Plan, entry_of},
    library::Library,
    record::{self, EntryId, OrderRecord, OrderState, Wanted, long_digest},
    refusal::{Fault, Refusal, Why},
    retried,
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

    /// Whether a certificate of the centre is for this key and leads to the PKI's anchors; the path.
    fn path_of(
        &self,
        certificate: &[u8],
        above: &[Bytes],
        key: &Bytes,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let unfit = |_| Refusal::CertificateUnfit;
        let facts = CertFacts::read(certificate).map_err(unfit)?;
        let above = above.iter().map(|der| der.0.as_slice());
        let above: Vec<&[u8]> = above.chain(self.domain.above.iter().map(Vec::as_slice)).collect();
        let pool = Pool::new(above).map_err(unfit)?;
        let terms = Terms::new(self.clock.now(), Usage::Any);
        let validation =
            validate(certificate, &pool, &self.anchors, None, &terms).map_err(unfit)?;
        let found = pki::binding::status(validation.status()).aspects;
        let good = [found.issuer_trust, found.signature, found.validity_interval];
        if facts.spki == key.0 && good.iter().all(|one| *one == KeyFinding::Good) {
            Ok(validation.path().to_vec())
        } else {
            Err(Refusal::CertificateUnfit)
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

    /// The keys of an owner are here now: their orders go on here, and what the newest CRL says of
    /// their certificates counts.
    pub(in crate::keeper) fn arrived(&self, owner: &str) -> Result<(), Fault> {
        let Some(line) = self.issuer.line() else { return Ok(()) };
        if let Some(crl) = line.crl().and_then(|der| line.verified(&der)) {
            self.compare(line, &crl)?;
        }
        self.take_up(line, Some(owner))
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
        match self.guard(held.value.owner.as_deref()) {
            Ok(_) => {}
            Err(Why::Refused(_)) => return Ok(false),
            Err(Why::Fault(fault)) => return Err(fault),
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

    /// What the centre did becomes the order's end; whatever else heard of it may have been faster.
    /// `false`: not now, because the owner's keys are on their way.
    pub(super) fn end_order(
        &self,
        line: &Line,
        id: EntryId,
        outcome: CentreOutcome,
    ) -> Result<bool, Fault> {
        let refusal = match retried(|| self.take_outcome(line, id, &outcome)) {
            Ok(()) => return Ok(true),
            Err(Why::Refused(Refusal::OwnerMigrating | Refusal::OwnerMoved)) => return Ok(false),
            Err(Why::Refused(refusal)) => refusal,
            Err(Why::Fault(fault)) => return Err(fault),
        };
        self.journal.refused("centre", "key-order", &format!("order:{id}"), refusal)?;
        self.close_order(id, OrderState::Failed(refusal.failure()))
    }

    fn take_outcome(&self, line: &Line, id: EntryId, outcome: &CentreOutcome) -> Result<(), Why> {
        let held = self.library.get(&record::order(id)?)?;
        let Some(held) = held.filter(|held| held.value.state == OrderState::Ordered) else {
            return Ok(());
        };
        match (&held.value.wanted, outcome) {
            (Wanted::Revoke(entry), CentreOutcome::Revoked { .. }) => {
                let (entry, name) = (*entry, held.value.name.clone());
                self.ordered_done(Write::new(), id, held, entry)?;
                let subject = format!("key:{name}");
                let detail = format!("{} at the PKI, order {id}", entry.public());
                Ok(self.journal.done("centre", "key-revoked", &subject, &detail)?)
            }
            (
                Wanted::Register(_) | Wanted::Reissue(_),
                CentreOutcome::Certified { certificate, chain },
            ) => self.take_certificate(line, (id, held), certificate, chain),
            _ => Err(Refusal::CertificateUnfit.into()),
        }
    }

    fn take_certificate(
        &self,
        line: &Line,
        (id, held): (EntryId, Versioned<OrderRecord>),
        certificate: &Bytes,
        above: &[Bytes],
    ) -> Result<(), Why> {
        let (plan, key, old) = self.planned(&held.value)?;
        let path = line.path_of(&certificate.0, above, &key)?;
        let facts = CertFacts::read(&certificate.0).map_err(Fault::ca)?;
        let new = foreign_id(&facts.issuer, &facts.serial);
        let mut entry = entry_of(&plan, &certificate.0)?;
        entry.chain = path.into_iter().skip(1).map(Bytes).collect();
        let (name, operation) = (plan.name, held.value.wanted.operation());
        let mut write = Write::new();
        if self.library.entry(new)?.is_none() {
            let guard = self.guard(entry.owner.as_deref())?;
            write = Library::add(guard.owning(write, &record::entry(new)?)?, new, &entry)?;
            if let Some((old, mut entry)) = old {
                entry.value.replaced_by = Some(new);
                write = Library::retire(write, old, &entry)?;
            }
        }
        self.ordered_done(write, id, held, new)?;
        let again = operation == model::keys::order::KeyOperation::Reissue;
        let event = if again { "key-reissued" } else { "key-registered" };
        let detail = format!("{}, order {id}", new.public());
        Ok(self.journal.done("centre", event, &format!("key:{name}"), &detail)?)
    }

    /// What the binding of an order will be, its key, and the entry whose place it takes.
    #[expect(clippy::type_complexity, reason = "three things that are used once, together")]
    fn planned(
        &self,
        order: &OrderRecord,
    ) -> Result<(Plan, Bytes, Option<(EntryId, Versioned<record::Entry>)>), Why> {
        let validity = self.interval(None, None)?;
        match &order.wanted {
            Wanted::Register(asked) => {
                let code = asked.revocation_code_identifier.as_ref();
                let plan = Plan {
                    name: order.name.clone(),
                    uses: asked.uses.clone(),
                    use_with: asked.use_with.clone(),
                    validity,
                    revocation_code: code.map(|code| Bytes(long_digest(&[&code.0]).to_vec())),
                    replaces: None,
                    private: None,
                    owner: order.owner.clone(),
                };
                let key = asked.key.clone().ok_or(Refusal::KeyGenerationOff)?;
                Ok((plan, key, None))
            }
            Wanted::Reissue(old) | Wanted::Revoke(old) => {
                let entry = self.library.entry(*old)?.ok_or(Refusal::BindingUnknown)?;
                let value = entry.value.clone();
                let plan = Plan {
                    name: value.name,
                    uses: value.uses,
                    use_with: value.use_with,
                    validity,
                    revocation_code: value.revocation_code,
                    replaces: Some(*old),
                    private: None,
                    owner: value.owner,
                };
                Ok((plan, value.key, Some((*old, entry))))
            }
        }
    }

    fn ordered_done(
        &self,
        write: Write,
        id: EntryId,
        held: Versioned<OrderRecord>,
        entry: EntryId,
    ) -> Result<(), Why> {
        let mut value = held.value;
        value.state = OrderState::Done(entry);
        let guard = self.guard(value.owner.as_deref())?;
        let write = guard.on(write).put(record::order(id)?, &value, held.version)?;
        if self.library.commit(write)? { Ok(()) } else { Err(Fault::Contended.into()) }
    }

    /// `false`: not now, because the owner's keys are on their way.
    fn close_order(&self, id: EntryId, state: OrderState) -> Result<bool, Fault> {
        let closed = retried(|| {
            let held = self.library.get(&record::order(id)?)?;
            let Some(held) = held.filter(|held| held.value.state == OrderState::Ordered) else {
                return Ok(());
            };
            let mut value = held.value;
            value.state = state;
            let guard = self.guard(value.owner.as_deref())?;
            let write = guard.on(Write::new()).put(record::order(id)?, &value, held.version)?;
            if self.library.commit(write)? { Ok(()) } else { Err(Fault::Contended.into()) }
        });
        match closed {
            Ok(()) => Ok(true),
            Err(Why::Refused(_)) => Ok(false),
            Err(Why::Fault(fault)) => Err(fault),
        }
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
        let (by, subject) = (crate::keeper::actor(order), format!("key:{name}"));
        let detail = format!("{} order {id}", operation.name());
        self.journal.done(&by, "key-ordered", &subject, &detail)?;
        line.run(id);
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
