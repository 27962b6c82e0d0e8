//! Orders: taken once, looked up as often as somebody asks.

use std::{sync::Arc, time::Duration};

use model::{
    HostId, OrderId,
    api::Bytes,
    centre::{CentreOrder, CentreProgress, CentreWork},
    keys::order::Prototype,
};
use pki::{CertFacts, Job, RequestId};
use store::{Key, typed::Write, wait};
use time::OffsetDateTime;

use super::{
    Centre, Served,
    dispatch::hint,
    lane::Turn,
    library,
    record::{self, End, OpenMark, OrderRecord},
    refusal::{Fault, Refusal, Why},
};

/// Longest order, JSON: it fits a record, with what comes of it.
const MAX_ORDER: usize = 64 << 10;

impl Centre {
    /// Takes an order of a trust service, and says how far it is. The same order again is the same
    /// order.
    ///
    /// # Errors
    /// [`Why`]; [`Why::Full`] if there is no room now.
    pub fn order(&self, host: &HostId, order: CentreOrder) -> Result<CentreProgress, Why> {
        let served = self.allowed(&order.tenant, host, &order.domain)?;
        if serde_json::to_vec(&order).map_or(usize::MAX, |json| json.len()) > MAX_ORDER {
            return Err(Refusal::OrderTooLarge.into());
        }
        if let Some(known) = self.find(order.id)? {
            return self.repeated(known, &order);
        }
        let none = Prototype::default();
        let subject = match &order.work {
            CentreWork::Enrol { subject, .. } => subject,
            CentreWork::Renew { subject, certificate, .. } => {
                self.owned(&order, certificate)?;
                subject
            }
            CentreWork::Revoke { certificate, .. } => {
                self.owned(&order, certificate)?;
                &none
            }
        };
        let interval = served.domain.interval(subject, self.clock.now())?;
        let ask = Arc::new(served.domain.ask(&order, interval)?);
        let ahead = served.lane.admit(&order.tenant)?;
        let (id, tenant) = (order.id, order.tenant.clone());
        let record = OrderRecord { order, host: host.clone(), at: self.now(), interval, end: None };
        match self.keep(&record) {
            Ok(true) => {
                let turn = served.turn(record, ask);
                served.lane.enter(turn);
                Ok(CentreProgress::Queued { ahead: u32::try_from(ahead).unwrap_or(u32::MAX) })
            }
            // Another connection brought it at the same moment.
            Ok(false) => {
                served.lane.release(&tenant);
                let known = self.find(id)?.ok_or(Fault::Contended)?;
                self.repeated(known, &record.order)
            }
            Err(why) => {
                served.lane.release(&tenant);
                Err(why)
            }
        }
    }

    /// A certificate is renewed and revoked for the tenant that ordered it, where it did.
    fn owned(&self, order: &CentreOrder, certificate: &Bytes) -> Result<(), Why> {
        CertFacts::read(&certificate.0).map_err(|_| Refusal::CertificateUnreadable)?;
        let known = library::of_certificate(&self.records, &certificate.0)?;
        let ours = known.is_some_and(|known| {
            known.value.tenant == order.tenant && known.value.domain == order.domain
        });
        if ours { Ok(()) } else { Err(Refusal::CertificateForeign.into()) }
    }

    /// How far an order of a tenant on the server `host` is; others' are not known to it.
    ///
    /// # Errors
    /// [`Refusal::OrderUnknown`].
    pub fn progress_for(&self, host: &HostId, id: OrderId) -> Result<CentreProgress, Why> {
        let known = self.find(id)?.filter(|known| self.is_on(&known.order.tenant, host));
        self.progress(known.ok_or(Refusal::OrderUnknown)?)
    }

    /// How far an order is that was read as this.
    fn progress(&self, known: OrderRecord) -> Result<CentreProgress, Why> {
        if known.end.is_some() {
            return Ok(told(known));
        }
        let id = known.order.id;
        match self.pkis.iter().find_map(|pki| pki.lane.progress(id)) {
            Some((progress, _)) => Ok(progress),
            // It ended since it was read, or is not in its lane yet.
            None => Ok(told(self.find(id)?.unwrap_or(known))),
        }
    }

    /// The same, once it is at its end or `patience` is over. Does not block the thread for that.
    ///
    /// # Errors
    /// [`Refusal::OrderUnknown`].
    pub async fn outcome(
        self: &Arc<Self>,
        host: &HostId,
        id: OrderId,
        patience: Duration,
    ) -> Result<CentreProgress, Why> {
        if let Some((_, ended)) = self.pkis.iter().find_map(|pki| pki.lane.progress(id)) {
            let told = ended.notified();
            tokio::pin!(told);
            // From here on nothing is missed.
            told.as_mut().enable();
            if self.pkis.iter().any(|pki| pki.lane.progress(id).is_some()) {
                tokio::select! {
                    () = told => {}
                    () = tokio::time::sleep(patience) => {}
                    () = self.stop.requested() => {}
                }
            }
        }
        let (centre, host) = (Arc::clone(self), host.clone());
        let told = tokio::task::spawn_blocking(move || centre.progress_for(&host, id)).await;
        told.map_err(Fault::key)?
    }

    fn repeated(&self, known: OrderRecord, order: &CentreOrder) -> Result<CentreProgress, Why> {
        if known.order != *order {
            return Err(Refusal::OrderReused.into());
        }
        self.progress(known)
    }

    fn find(&self, id: OrderId) -> Result<Option<OrderRecord>, Why> {
        Ok(wait(self.records.get(&record::order(id)?))?.map(|known| known.value))
    }

    fn keep(&self, one: &OrderRecord) -> Result<bool, Why> {
        let id = one.order.id;
        let write = Write::new().put(record::order(id)?, one, 0)?.put(
            record::open(id)?,
            &OpenMark { at: one.at },
            0,
        )?;
        Ok(wait(self.records.commit(write))?)
    }

    /// Takes up what was not at its end when the centre ended, in the order in which it came.
    pub(super) fn take_up(&self) -> Result<(), Fault> {
        let mut open: Vec<(Key, OpenMark)> = wait(self.records.all("open/"))?;
        open.sort_by_key(|(_, mark)| mark.at);
        for (key, _) in open {
            let id = key.as_str().strip_prefix("open/").and_then(|id| id.parse().ok());
            let Some(id) = id else { continue };
            let Some(known) = wait(self.records.get(&record::order(id)?))? else { continue };
            let record = known.value;
            let Ok(served) = self.served(&record.order.domain) else {
                tracing::warn!(order.id = %id, domain = %record.order.domain, "its PKI is gone");
                continue;
            };
            match served.domain.ask(&record.order, record.interval) {
                Ok(ask) => served.lane.restore(served.turn(record, Arc::new(ask))),
                Err(why) => tracing::warn!(order.id = %id, error = %why, "cannot be taken up"),
            }
        }
        Ok(())
    }
}

impl Served {
    /// Its first turn. How long it is tried counts from when it came, restarts or not.
    fn turn(&self, record: OrderRecord, ask: Arc<pki::Ask>) -> Turn {
        let id = record.order.id;
        let at = i128::from(record.at).saturating_mul(1_000_000);
        let since = OffsetDateTime::from_unix_timestamp_nanos(at);
        let since = since.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let job = Job::new(RequestId(id.0), self.domain.patience(), since);
        Turn { id, record: Arc::new(record), ask, job }
    }
}

fn told(record: OrderRecord) -> CentreProgress {
    match record.end {
        None => CentreProgress::Queued { ahead: 0 },
        Some(End::Done(outcome)) => CentreProgress::Done(outcome),
        Some(End::Refused { name }) => {
            let hint = Some(hint(&name).to_owned());
            CentreProgress::Refused { name, hint }
        }
    }
}
