//! Workers: each takes turns of one PKI's orders, tries them there, and makes what came of them
//! durable together.
//!
//! **Invariants:** what came of an order is in the audit log and in the store before anybody can see
//! it; a try that is lost, by a crash at any point, is tried again under the same id.

use std::{
    collections::BTreeSet,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use model::{
    OrderId,
    api::Bytes,
    centre::{CentreOutcome, CentreWork},
};
use pki::{Outcome, Step};
use serve::exit::chain;
use store::{MAX_TXN_OPS, typed::Write};

use super::{
    Centre,
    domain::{Pki, PkiDomain},
    lane::{Lane, Turn},
    library,
    record::{self, BoundId, BoundRecord, End, OrderRecord, StoredNews},
    refusal::{Fault, Why},
};

/// How long to wait after a failure of our own store or log.
const TROUBLE_MS: u64 = 1000;
/// Places in a transaction that news take besides the items: the feed's state.
const FEED_PLACES: usize = 1;
/// Most places in a transaction: each is compared and written.
const MAX_PLACES: usize = MAX_TXN_OPS / 2;

/// An order and what came of it.
struct Ended {
    turn: Turn,
    end: End,
}

impl Ended {
    /// The binding whose record is written.
    fn touches(&self) -> Option<BoundId> {
        match (&self.end, &self.turn.record.order.work) {
            (End::Done(CentreOutcome::Certified { certificate, .. }), _)
            | (End::Done(_), CentreWork::Revoke { certificate, .. }) => {
                Some(BoundId::of(&certificate.0))
            }
            (End::Done(_) | End::Refused { .. }, _) => None,
        }
    }
}

impl Centre {
    /// Starts the workers of every PKI.
    pub(super) fn start_workers(self: &Arc<Self>) -> io::Result<Vec<JoinHandle<()>>> {
        let mut threads = Vec::new();
        for (at, pki) in self.pkis.iter().enumerate() {
            for _ in 0..pki.lane.workers() {
                let centre = Arc::clone(self);
                let work = move || {
                    if let Some(pki) = centre.pkis.get(at) {
                        centre.work(&pki.domain, &pki.lane);
                    }
                };
                threads.push(thread::Builder::new().name("worker".to_owned()).spawn(work)?);
            }
        }
        Ok(threads)
    }

    fn work(&self, domain: &PkiDomain, lane: &Lane) {
        // A foreign PKI may take long: what waits behind it is better taken by another worker.
        let batch = match domain.pki {
            Pki::Own(_) => self.settings.limits.batch,
            Pki::Cmp(_) | Pki::Acme(_) => 1,
        };
        loop {
            let turns = lane.take(batch, || self.clock.unix_ms());
            if turns.is_empty() {
                return;
            }
            let count = u32::try_from(turns.len()).unwrap_or(1).max(1);
            let begun = self.clock.monotonic();
            let ended: Vec<Ended> =
                turns.into_iter().filter_map(|turn| self.attempt(domain, lane, turn)).collect();
            self.settle(domain, lane, ended, || {
                self.clock.monotonic().saturating_sub(begun) / count
            });
        }
    }

    /// Tries an order at its PKI; what came of it, unless it was put off.
    fn attempt(&self, domain: &PkiDomain, lane: &Lane, mut turn: Turn) -> Option<Ended> {
        let ask = Arc::clone(&turn.ask);
        let end = match turn.job.advance(domain.provider(), &ask, self.clock.now()) {
            Ok(Step::Done(outcome)) => End::Done(told(outcome)),
            Ok(Step::Wait(at)) => {
                let at = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
                tracing::info!(order.id = %turn.id, domain = %domain.name(), "put off");
                lane.put_off(turn, at);
                return None;
            }
            Err(error) => {
                tracing::info!(order.id = %turn.id, error = chain(&error), "refused by its PKI");
                End::Refused { name: error.code().to_owned() }
            }
        };
        Some(Ended { turn, end })
    }

    /// Makes durable what came of orders, as many together as there is room for in a transaction.
    fn settle(
        &self,
        domain: &PkiDomain,
        lane: &Lane,
        ended: Vec<Ended>,
        took: impl Fn() -> Duration,
    ) {
        let revoked =
            ended.iter().any(|one| matches!(&one.end, End::Done(CentreOutcome::Revoked { .. })));
        let mut rest = ended.as_slice();
        while !rest.is_empty() {
            let done = self.settle_some(rest).unwrap_or_else(|why| {
                tracing::warn!(error = chain(&why), "what came of orders cannot be recorded yet");
                0
            });
            let (settled, left) = rest.split_at_checked(done).unwrap_or((rest, &[]));
            settled.iter().for_each(|one| lane.end(one.turn.id, took()));
            rest = left;
            if done == 0 {
                let at = self.clock.unix_ms().saturating_add(TROUBLE_MS);
                rest.iter().for_each(|one| lane.put_off(one.turn.clone(), at));
                return;
            }
        }
        if revoked && let Err(fault) = self.publish(domain) {
            tracing::warn!(error = chain(&fault), "the CRL will follow later");
        }
        if revoked {
            self.anchor.soon();
        }
    }

    /// The same for the first of them; how many.
    fn settle_some(&self, ended: &[Ended]) -> Result<usize, Why> {
        let (mut write, mut news, mut count) = (Write::new(), Vec::new(), 0);
        let mut touched = BTreeSet::new();
        for one in ended {
            let (more, told) = self.written(one)?;
            // Two orders about one certificate are not in one transaction.
            let again = one.touches().is_some_and(|id| !touched.insert(id));
            let places = [write.places(), more.places(), news.len(), told.len(), FEED_PLACES];
            if again || count > 0 && places.iter().sum::<usize>() > MAX_PLACES {
                break;
            }
            write = write.and(more);
            news.extend(told);
            count += 1;
        }
        for one in ended.iter().take(count) {
            self.noted(&one.turn.record, &one.end)?;
        }
        if self.feed.commit(write, news, self.clock.unix_ms())? {
            return Ok(count);
        }
        // Another try of the same order came first; then this one has nothing to add.
        let all = ended.iter().take(count);
        let known =
            all.map(|one| self.is_ended(one.turn.id)).collect::<Result<Vec<bool>, Why>>()?;
        if known.contains(&false) { Err(Fault::Contended.into()) } else { Ok(count) }
    }

    /// In the audit log.
    fn noted(&self, record: &OrderRecord, end: &End) -> Result<(), Fault> {
        let OrderRecord { order, host, .. } = record;
        let (actor, subject) = (format!("trust:{host}"), format!("order:{}", order.id));
        let event = format!("order-{}", order.work.name());
        Ok(match end {
            End::Done(_) => {
                let detail = format!("tenant {}, domain {}", order.tenant, order.domain);
                self.journal.done(&actor, &event, &subject, &detail)
            }
            End::Refused { name } => {
                self.journal.refused(&actor, &event, &subject, (name, hint(name)))
            }
        }?)
    }

    /// What is to be written about an order at its end, and which news it makes.
    fn written(&self, one: &Ended) -> Result<(Write, Vec<StoredNews>), Why> {
        let order = &one.turn.record.order;
        let ended = OrderRecord { end: Some(one.end.clone()), ..(*one.turn.record).clone() };
        let write = Write::new().put(record::order(order.id)?, &ended, 1)?;
        let write = write.delete(record::open(order.id)?, 1);
        Ok(match (&one.end, &order.work) {
            (End::Done(CentreOutcome::Certified { certificate, chain }), work) => {
                if library::of_certificate(&self.records, &certificate.0)?.is_some() {
                    return Ok((write, Vec::new()));
                }
                let bound = bound(&one.turn.record, work, (certificate, chain));
                let news = StoredNews::Bound(BoundId::of(&certificate.0));
                (library::add(write, &bound)?, vec![news])
            }
            (End::Done(CentreOutcome::Revoked { at }), CentreWork::Revoke { certificate, .. }) => {
                let news = StoredNews::Revoked {
                    tenant: order.tenant.clone(),
                    domain: order.domain.clone(),
                    certificate: certificate.clone(),
                    at: *at,
                };
                let write = match library::of_certificate(&self.records, &certificate.0)? {
                    Some(mut known) => {
                        known.value.revoked_at.get_or_insert(*at);
                        let place = record::bound(BoundId::of(&certificate.0))?;
                        write.put(place, &known.value, known.version)?
                    }
                    None => write,
                };
                (write, vec![news])
            }
            (End::Done(CentreOutcome::Revoked { .. }) | End::Refused { .. }, _) => {
                (write, Vec::new())
            }
        })
    }

    fn is_ended(&self, id: OrderId) -> Result<bool, Why> {
        let known = store::wait(self.records.get(&record::order(id)?))?;
        Ok(known.is_some_and(|known| known.value.end.is_some()))
    }
}

fn bound(
    record: &OrderRecord,
    work: &CentreWork,
    (certificate, chain): (&Bytes, &[Bytes]),
) -> BoundRecord {
    let order = &record.order;
    let subject = match work {
        CentreWork::Enrol { subject, .. } | CentreWork::Renew { subject, .. } => Some(subject),
        CentreWork::Revoke { .. } => None,
    };
    BoundRecord {
        order: order.id,
        tenant: order.tenant.clone(),
        domain: order.domain.clone(),
        name: subject.and_then(|subject| subject.name.clone()),
        use_with: subject.map(|subject| subject.use_with.clone()).unwrap_or_default(),
        certificate: certificate.clone(),
        chain: chain.to_vec(),
        revoked_at: None,
    }
}

fn told(outcome: Outcome) -> CentreOutcome {
    match outcome {
        Outcome::Issued { certificate, chain } => CentreOutcome::Certified {
            certificate: Bytes(certificate),
            chain: chain.into_iter().map(Bytes).collect(),
        },
        Outcome::Revoked(at) => {
            let at = u64::try_from(at.unix_timestamp()).unwrap_or(0).saturating_mul(1000);
            CentreOutcome::Revoked { at }
        }
    }
}

/// What an operator can do about what a PKI said no to.
pub(super) fn hint(name: &str) -> &'static str {
    match name {
        "provider-timed-out" => {
            "ask the PKI's operator what became of it, then order under a new id"
        }
        "provider-outcome-unknown" => "the PKI's operator knows what became of it",
        "provider-refused" => "the centre's log has the PKI's own words",
        "provider-issue" => "the key must be P-256, P-384 or RSA from 2048 bits, and fit its uses",
        "provider-not-ours" => "order at the PKI that issued the certificate",
        "provider-revoked" => "a revoked certificate is not renewed: enrol another key",
        _ => "the centre's log has the cause",
    }
}
