//! Trust services: where they are, what is new to them, and which of them are to hand keys over.

use std::{sync::Arc, time::Duration};

use model::{
    HostId, MigrationId, VmId,
    api::Bytes,
    centre::{
        Bound, CentreReply, Feed, FeedItem, FeedNews, Hello, MAX_WAIT_S, MigrationOrder,
        MigrationReport, MigrationStage, ServiceEntry, Welcome,
    },
};
use serve::random;
use store::{
    typed::{Versioned, Write},
    wait,
};

use super::{
    Centre,
    record::{self, MigrationRecord, ServiceRecord, StoredNews},
    refusal::{Fault, Refusal, Why},
};

/// Bytes of certificates and CRLs after which an answer is full.
const FULL: usize = 4 << 20;
/// A migration of which nothing was reported for so long bars no other of its owner.
const SILENCE_MS: u64 = 10 * 60_000;
/// Longest place.
const MAX_URL: usize = 256;

impl Centre {
    /// A trust service says that it is there, and where others reach it; one that nobody reaches
    /// gives no place.
    ///
    /// # Errors
    /// [`Refusal::PeerUrlInvalid`].
    pub fn hello(&self, host: &HostId, hello: &Hello) -> Result<Welcome, Why> {
        if !hello.peer_url.is_empty() {
            self.entered(host, &hello.peer_url)?;
        }
        Ok(Welcome { domains: self.pkis.iter().map(|pki| pki.domain.info()).collect() })
    }

    /// Writes down where a trust service is, if that is new.
    fn entered(&self, host: &HostId, peer_url: &str) -> Result<(), Why> {
        let peer_url = peer_url.to_owned();
        let plain =
            |rest: &str| rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        let after = peer_url.strip_prefix("https://").filter(|rest| plain(rest));
        let port =
            after.and_then(|rest| rest.rsplit_once(':')).map(|(_, port)| port.parse::<u16>());
        if peer_url.len() > MAX_URL || !matches!(port, Some(Ok(1..))) {
            return Err(Refusal::PeerUrlInvalid.into());
        }
        let known = wait(self.records.get(&record::service(host)?))?;
        let new = ServiceRecord { peer_url };
        if known.as_ref().is_some_and(|known| known.value == new) {
            return Ok(());
        }
        let version = known.map_or(0, |known| known.version);
        self.journal.done(&format!("trust:{host}"), "service-hello", "centre", &new.peer_url)?;
        let write = Write::new().put(record::service(host)?, &new, version)?;
        if wait(self.records.commit(write))? { Ok(()) } else { Err(Fault::Contended.into()) }
    }

    /// Trust services that said hello.
    pub(super) fn services(&self) -> Result<Vec<ServiceEntry>, Why> {
        let all = wait(self.records.all::<ServiceRecord>("service/"))?;
        let one = |(key, record): (store::Key, ServiceRecord)| {
            let host = key.as_str().strip_prefix("service/")?.parse().ok()?;
            Some(ServiceEntry { host, peer_url: record.peer_url })
        };
        Ok(all.into_iter().filter_map(one).collect())
    }

    fn service(&self, host: &HostId) -> Result<Option<ServiceEntry>, Why> {
        let known = wait(self.records.get(&record::service(host)?))?;
        let host = host.clone();
        Ok(known.map(|known| ServiceEntry { host, peer_url: known.value.peer_url }))
    }

    /// What is new to the trust service of `host` after this number, once there is something or
    /// `patience` is over. Does not block the thread for that.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn news(
        self: &Arc<Self>,
        host: &HostId,
        after: u64,
        patience: Duration,
    ) -> Result<Feed, Why> {
        let mut newest = self.feed.subscribe();
        let patience = patience.min(Duration::from_secs(MAX_WAIT_S));
        let known = *newest.borrow();
        if after == known {
            tokio::select! {
                // The sender is in `self`: it is not dropped meanwhile.
                _ = newest.wait_for(|newest| *newest != after) => {}
                () = tokio::time::sleep(patience) => {}
                () = self.stop.requested() => {}
            }
        }
        let (centre, host) = (Arc::clone(self), host.clone());
        let feed = tokio::task::spawn_blocking(move || centre.feed(&host, after)).await;
        feed.map_err(Fault::key)?
    }

    /// What is new to the trust service of `host` after this number: of tenants on that server,
    /// and of migrations from or to it. What is not for it is passed over.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn feed(&self, host: &HostId, after: u64) -> Result<Feed, Why> {
        let state = self.feed.state();
        if after < state.forgotten || after > state.newest {
            return self.whole(host, state.newest);
        }
        let (mut items, mut next, mut size) = (Vec::new(), after, 0);
        for (seq, stored) in self.feed.after(after)? {
            for news in self.told(host, stored.news)? {
                size += weight(&news);
                items.push(FeedItem { seq, at: stored.at, news });
            }
            next = seq;
            if size >= FULL {
                break;
            }
        }
        Ok(Feed { next, resync: false, items })
    }

    /// For a reader that missed what was forgotten: the newest CRLs, and what keys are to move.
    fn whole(&self, host: &HostId, newest: u64) -> Result<Feed, Why> {
        let mut all = Vec::new();
        for pki in &self.pkis {
            all.extend(self.told(host, StoredNews::Crl(pki.domain.name().clone()))?);
        }
        let migrations = wait(self.records.all::<MigrationRecord>("migration/"))?;
        let open = migrations
            .into_iter()
            .filter(|(_, one)| !is_final(one.stage) && concerns(&one.order, host));
        all.extend(open.map(|(_, one)| FeedNews::Migrate(one.order)));
        let at = self.now();
        let items = all.into_iter().map(|news| FeedItem { seq: newest, at, news }).collect();
        Ok(Feed { next: newest, resync: true, items })
    }

    /// A stored piece of news in the words of the wire: none if what it is about is gone, or not for
    /// this server.
    fn told(&self, to: &HostId, news: StoredNews) -> Result<Vec<FeedNews>, Why> {
        Ok(match news {
            StoredNews::Bound(id) => {
                let known = wait(self.records.get(&record::bound(id)?))?;
                let ours = known.filter(|known| self.is_on(&known.value.tenant, to));
                ours.map(|known| bound(known.value)).into_iter().collect()
            }
            StoredNews::Revoked { tenant, .. } if !self.is_on(&tenant, to) => Vec::new(),
            StoredNews::Revoked { domain, certificate, at, .. } => {
                vec![FeedNews::Revoked { domain, certificate, at }]
            }
            StoredNews::Crl(domain) => {
                let ders = self.lists.of(&domain).ders;
                let one = |der: Arc<Vec<u8>>| FeedNews::Crl {
                    domain: domain.clone(),
                    crl: Bytes(der.to_vec()),
                };
                ders.into_iter().map(one).collect()
            }
            StoredNews::Migrate(id) => {
                let known = wait(self.records.get(&record::migration(id)?))?;
                let ours = known.filter(|known| concerns(&known.value.order, to));
                ours.map(|known| FeedNews::Migrate(known.value.order)).into_iter().collect()
            }
        })
    }

    /// Has everything of an owner moved; both trust services learn of it by the feed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn migrate(
        &self,
        owner: &str,
        (from, to): (&HostId, &HostId),
        operator: &str,
    ) -> Result<MigrationOrder, Why> {
        let owner: VmId = owner.parse().map_err(|_| Refusal::OwnerInvalid)?;
        if from == to {
            return Err(Refusal::SameService.into());
        }
        let from = self.service(from)?.ok_or(Refusal::ServiceUnknown)?;
        let to = self.service(to)?.ok_or(Refusal::ServiceUnknown)?;
        let moving = wait(self.records.get(&record::moving(owner.as_str())?))?;
        let mut barred = 0;
        if let Some(moving) = moving {
            let last = self.migration_record(moving.value)?.value;
            if self.now().saturating_sub(last.at) < SILENCE_MS {
                return Err(Refusal::OwnerMoving.into());
            }
            // Nobody has heard of it for long. The trust services have journals of their own, which
            // keep two from going on at once.
            barred = moving.version;
        }
        let id = MigrationId(random::bytes().map_err(Fault::key)?);
        let order = MigrationOrder { id, owner: owner.to_string(), from, to };
        let stage = MigrationStage::Ordered;
        let at = self.now();
        let record = MigrationRecord { order: order.clone(), at, stage, refusal: None };
        let write = Write::new().put(record::migration(id)?, &record, 0)?.put(
            record::moving(owner.as_str())?,
            &id,
            barred,
        )?;
        let detail = format!("from {} to {}", order.from.host, order.to.host);
        let actor = format!("operator:{operator}");
        self.journal.done(&actor, "key-migration", &format!("vm:{owner}"), &detail)?;
        if self.feed.commit(write, vec![StoredNews::Migrate(id)], self.now())? {
            Ok(order)
        } else {
            // Somebody ordered the same owner's at the same moment.
            Err(Refusal::OwnerMoving.into())
        }
    }

    /// How far a migration is.
    ///
    /// # Errors
    /// [`Refusal::MigrationUnknown`].
    pub fn migration(&self, id: MigrationId) -> Result<CentreReply, Why> {
        let MigrationRecord { order, stage, refusal, .. } = self.migration_record(id)?.value;
        Ok(CentreReply::Migration { order, stage, refusal })
    }

    /// Gives a migration up, here: its owner may be moved anew. What the two trust services have
    /// begun, their own operators end.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn cancel(&self, id: MigrationId, operator: &str) -> Result<CentreReply, Why> {
        let Versioned { mut value, version } = self.migration_record(id)?;
        if is_final(value.stage) {
            return Err(Refusal::MigrationOver.into());
        }
        value.stage = MigrationStage::Refused;
        value.refusal = Some("operator-cancelled".to_owned());
        value.at = self.now();
        let write = Write::new().put(record::migration(id)?, &value, version)?;
        let write = self.free(write, &value)?;
        let (by, subject) = (format!("operator:{operator}"), format!("vm:{}", value.order.owner));
        self.journal.done(&by, "key-migration-cancelled", &subject, &id.to_string())?;
        if !wait(self.records.commit(write))? {
            return Err(Fault::Contended.into());
        }
        self.migration(id)
    }

    /// The owner may be moved anew.
    fn free(&self, write: Write, ended: &MigrationRecord) -> Result<Write, Why> {
        let place = record::moving(&ended.order.owner)?;
        let moving = wait(self.records.get(&place))?;
        Ok(match moving.filter(|moving| moving.value == ended.order.id) {
            Some(moving) => write.delete(place, moving.version),
            None => write,
        })
    }

    fn migration_record(&self, id: MigrationId) -> Result<Versioned<MigrationRecord>, Why> {
        let known = wait(self.records.get(&record::migration(id)?))?;
        Ok(known.ok_or(Refusal::MigrationUnknown)?)
    }

    /// Takes note of what a trust service reports. A report that comes late changes nothing.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn report(
        &self,
        host: &HostId,
        id: MigrationId,
        report: &MigrationReport,
    ) -> Result<(), Why> {
        let Versioned { mut value, version } = self.migration_record(id)?;
        if !concerns(&value.order, host) {
            return Err(Refusal::MigrationForeign.into());
        }
        if is_final(value.stage) || rank(report.stage) <= rank(value.stage) {
            return Ok(());
        }
        value.stage = report.stage;
        value.at = self.now();
        value.refusal.clone_from(&report.refusal);
        let owner = value.order.owner.clone();
        let mut write = Write::new().put(record::migration(id)?, &value, version)?;
        if is_final(report.stage) {
            write = self.free(write, &value)?;
        }
        let (actor, subject) = (format!("trust:{host}"), format!("vm:{owner}"));
        match &report.refusal {
            Some(name) => {
                let rule = (name.as_str(), "the audit logs of both trust services say more");
                self.journal.refused(&actor, "key-migration", &subject, rule)?;
            }
            None => {
                let detail = format!("{id}: {:?}", report.stage).to_ascii_lowercase();
                self.journal.done(&actor, "key-migration", &subject, &detail)?;
            }
        }
        if wait(self.records.commit(write))? { Ok(()) } else { Err(Fault::Contended.into()) }
    }
}

/// Whether it is one of the two.
fn concerns(order: &MigrationOrder, host: &HostId) -> bool {
    order.from.host == *host || order.to.host == *host
}

const fn is_final(stage: MigrationStage) -> bool {
    matches!(stage, MigrationStage::Active | MigrationStage::Refused)
}

const fn rank(stage: MigrationStage) -> u8 {
    match stage {
        MigrationStage::Ordered => 0,
        MigrationStage::Gone => 1,
        MigrationStage::Active | MigrationStage::Refused => 2,
    }
}

fn bound(one: record::BoundRecord) -> FeedNews {
    FeedNews::Bound(Box::new(Bound {
        order: one.order,
        name: one.name,
        certificate: one.certificate,
        chain: one.chain,
    }))
}

/// Roughly how many bytes it adds to an answer.
fn weight(news: &FeedNews) -> usize {
    match news {
        FeedNews::Bound(bound) => {
            bound.chain.iter().chain([&bound.certificate]).map(|der| der.0.len()).sum()
        }
        FeedNews::Revoked { certificate, .. } => certificate.0.len(),
        FeedNews::Crl { crl, .. } => crl.0.len(),
        FeedNews::Migrate(_) => MAX_URL,
    }
}
