//! The centre's news: certificates of our orders, revocations, CRLs, where other trust services are,
//! migrations. Each piece is durable here before the next is asked for.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use model::centre::{Bound, CentreOutcome, Feed, FeedNews, MigrationOrder};
use pki::{CertFacts, Crl};
use serve::{exit::chain, shutdown::Shutdown};
use store::typed::{Versioned, Write};
use store::wait;

use super::{
    CentreError, Line, foreign_id, held,
    opening::{NewsRecord, news_place},
};
use crate::keeper::{
    Keeper,
    record::{self, Entry, EntryId, OrderState, Revoked},
    refusal::{Fault, Why},
    retried,
};

/// How long one question for news may wait at the centre.
const WAIT: Duration = Duration::from_secs(20);
/// Pause after the centre did not answer.
const PAUSE: Duration = Duration::from_millis(300);
/// How far the durable mark of our knowledge may lag behind, milliseconds.
const LAG_MS: u64 = 5000;
/// Entries of one page when the library is compared with a CRL.
const PAGE: usize = 256;

impl Line {
    /// Takes a CRL, if the PKI signed it and it is no older than the one that is here.
    pub(super) fn take_crl(&self, der: &[u8]) -> Option<Crl> {
        let anchors = self.domain.anchors.iter().map(|der| der.0.as_slice());
        let issuers = anchors.chain(self.domain.above.iter().map(Vec::as_slice));
        let now = self.clock.now();
        let crl = issuers.filter_map(|issuer| Crl::verify(der, issuer, now).ok()).next()?;
        let mut known = held(&self.crl);
        if known.as_ref().is_some_and(|(_, due)| *due > crl.next_update()) {
            return None;
        }
        *known = Some((der.to_vec(), crl.next_update()));
        Some(crl)
    }
}

impl Keeper {
    pub(super) fn take_news_until(
        self: &Arc<Self>,
        line: &Arc<Line>,
        stop: &Shutdown,
    ) -> io::Result<()> {
        let (keeper, line, stop) = (Arc::clone(self), Arc::clone(line), stop.clone());
        let run = move || {
            let mut told = false;
            while !stop.is_requested() {
                if let Err(why) = keeper.take_news(&line, &mut told) {
                    tracing::debug!(why, "no news of the centre");
                    thread::sleep(PAUSE);
                }
            }
        };
        thread::Builder::new().name("news".to_owned()).spawn(run).map(drop)
    }

    /// Asks for news once; the first time it says that we are there.
    fn take_news(&self, line: &Line, told: &mut bool) -> Result<(), String> {
        let away = |error: CentreError| error.to_string();
        if !*told {
            match line.call(|centre| centre.hello()) {
                Ok(_) => {}
                // Whoever moves keys cannot find us; news come all the same.
                Err(CentreError::Refused(name)) => tracing::warn!(name, "our greeting was refused"),
                Err(error) => return Err(error.to_string()),
            }
            *told = true;
        }
        let fault = |fault: Fault| chain(&fault).to_string();
        let known = self.news().map_err(fault)?;
        let after = known.as_ref().map_or(0, |known| known.value.after);
        // Everything that happened before it was asked is in the answer.
        let asked_at = self.now();
        let wait = WAIT.min(Duration::from_secs(line.at.max_age_s / 3));
        let feed = line.call(|centre| centre.feed(after, wait)).map_err(away)?;
        self.take_feed(line, known, feed, asked_at).map_err(fault)
    }

    fn news(&self) -> Result<Option<Versioned<NewsRecord>>, Fault> {
        Ok(self.library.get(&news_place()?)?)
    }

    fn take_feed(
        &self,
        line: &Line,
        known: Option<Versioned<NewsRecord>>,
        feed: Feed,
        asked_at: u64,
    ) -> Result<(), Fault> {
        let version = known.as_ref().map_or(0, |known| known.version);
        let mut record = known.map(|known| known.value).unwrap_or_default();
        if feed.resync {
            tracing::warn!("news were missed: the library is compared with the CRL");
            line.forwarded.clear();
        }
        let some = !feed.items.is_empty();
        for item in feed.items {
            if let FeedNews::Crl { domain, crl } = &item.news
                && *domain == line.at.domain
                && let Some(read) = line.take_crl(&crl.0)
            {
                record.crl = crl.clone();
                if feed.resync {
                    self.compare(line, &read)?;
                }
            }
            self.take(line, item.news)?;
        }
        line.as_of.store(asked_at, Ordering::Release);
        if some || record.after != feed.next || asked_at.saturating_sub(record.as_of) > LAG_MS {
            (record.after, record.as_of) = (feed.next, asked_at);
            let write = Write::new().put(news_place()?, &record, version)?;
            if !self.library.commit(write)? {
                return Err(Fault::Contended);
            }
        }
        Ok(())
    }

    fn take(&self, line: &Line, news: FeedNews) -> Result<(), Fault> {
        match news {
            FeedNews::Bound(bound) => self.take_bound(line, *bound),
            FeedNews::Revoked { certificate, at, .. } => {
                line.forwarded.revoked(&certificate);
                let Ok(facts) = CertFacts::read(&certificate.0) else { return Ok(()) };
                self.revoked_elsewhere(foreign_id(&facts.issuer, &facts.serial), at)
            }
            FeedNews::Migrate(order) => self.take_migration(line, &order),
            // CRLs were taken before; where others are, who moves keys asks for.
            FeedNews::Crl { .. } | FeedNews::Service(_) => Ok(()),
        }
    }

    /// A certificate of one of our own orders goes into the library; of others' it is only
    /// remembered that answers about them may have changed.
    fn take_bound(&self, line: &Line, bound: Bound) -> Result<(), Fault> {
        line.forwarded.bound(bound.name.as_deref());
        let id = EntryId(bound.order.0);
        let ours = self.library.get(&record::order(id)?)?;
        if ours.is_some_and(|order| order.value.state == OrderState::Ordered) {
            let Bound { certificate, chain, .. } = bound;
            self.end_order(line, id, CentreOutcome::Certified { certificate, chain })?;
            line.note_end();
        }
        Ok(())
    }

    /// The centre wants keys moved. It may say so twice; the second time a rule says no.
    fn take_migration(&self, line: &Line, order: &MigrationOrder) -> Result<(), Fault> {
        if line.centre.host().as_ref() != Some(&order.from.host) {
            return Ok(());
        }
        let who = (order.owner.as_str(), "centre");
        match retried(|| self.begin(who, &order.to.host, &order.to.peer_url)) {
            Ok(_) => Ok(()),
            Err(Why::Fault(fault)) => Err(fault),
            Err(Why::Refused(refusal)) => {
                let subject = format!("owner:{}", order.owner);
                self.journal.refused("centre", "key-migration", &subject, refusal)
            }
        }
    }

    /// The PKI revoked what is in the library.
    fn revoked_elsewhere(&self, id: EntryId, at: u64) -> Result<(), Fault> {
        let outcome = retried(|| {
            let Some(held) = self.library.entry(id)? else { return Ok(None) };
            if held.value.revoked_at.is_some() {
                return Ok(None);
            }
            let Entry { name, not_on_or_after, .. } = held.value.clone();
            let mut value = held.value;
            value.revoked_at = Some(at.min(self.now()));
            let write = Write::new().put(record::entry(id)?, &value, held.version)?.put(
                record::revoked(id)?,
                &Revoked { at, not_on_or_after },
                0,
            )?;
            if self.library.commit(write)? { Ok(Some(name)) } else { Err(Fault::Contended.into()) }
        });
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(name)) => {
                let detail = format!("{}, by the PKI", id.public());
                self.journal.done("centre", "key-revoked", &format!("key:{name}"), &detail)
            }
            Err(Why::Fault(fault)) => Err(fault),
            Err(Why::Refused(refusal)) => Err(Fault::ca(refusal)),
        }
    }

    /// Revokes what the CRL names, after news were missed.
    fn compare(&self, line: &Line, crl: &Crl) -> Result<(), Fault> {
        let anchor = CertFacts::read(line.anchor()).map_err(Fault::ca)?.subject;
        let mut after = None;
        loop {
            let records = self.library.records();
            let (page, more) = wait(records.page::<Entry>("entry/", after, PAGE))?;
            for (key, entry) in &page {
                let id = key.as_str().strip_prefix("entry/").and_then(EntryId::from_hex);
                let facts = CertFacts::read(&entry.value.certificate.0).ok();
                let named = facts
                    .filter(|facts| {
                        pki::names::canonical_dn(&facts.issuer) == pki::names::canonical_dn(&anchor)
                    })
                    .is_some_and(|facts| crl.is_revoked(&facts.serial));
                if let Some(id) = id.filter(|_| named) {
                    self.revoked_elsewhere(id, self.now())?;
                }
            }
            after = page.last().map(|(key, _)| key.clone());
            if !more || after.is_none() {
                return Ok(());
            }
        }
    }
}
