//! The centre's news: certificates of our orders, revocations, CRLs, where other trust services are,
//! migrations. Each piece is durable here before the next is asked for.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use model::centre::{Bound, CentreOutcome, Feed, FeedNews};
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
/// The same while keys move, because what becomes of them is reported.
const SOON: Duration = Duration::from_secs(1);
/// Pause after the centre did not answer.
const PAUSE: Duration = Duration::from_millis(300);
/// How far the durable mark of our knowledge may lag behind, milliseconds.
const LAG_MS: u64 = 5000;
/// Entries of one page when the library is compared with a CRL.
const PAGE: usize = 256;

impl Line {
    /// Takes a CRL, if the PKI signed it and it is no older than the one that is here.
    pub(super) fn take_crl(&self, der: &[u8]) -> Option<Crl> {
        let crl = self.verified(der)?;
        let mut known = held(&self.crl);
        if known.as_ref().is_some_and(|(_, due)| *due > crl.next_update()) {
            return None;
        }
        *known = Some((der.to_vec(), crl.next_update()));
        Some(crl)
    }

    /// A CRL that the PKI signed and that is in force.
    pub(super) fn verified(&self, der: &[u8]) -> Option<Crl> {
        let anchors = self.domain.anchors.iter().map(|der| der.0.as_slice());
        let issuers = anchors.chain(self.domain.above.iter().map(Vec::as_slice));
        let now = self.clock.now();
        issuers.filter_map(|issuer| Crl::verify(der, issuer, now).ok()).next()
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
        let moving = self.see_to_migrations(line).map_err(fault)?;
        let known = self.news().map_err(fault)?;
        let after = known.as_ref().map_or(0, |known| known.value.after);
        // Everything that happened before it was asked is in the answer.
        let asked_at = self.now();
        let longest = if moving { SOON } else { WAIT };
        let wait = longest.min(Duration::from_secs(line.at.max_age_s / 3));
        let feed = line.call(|centre| centre.feed(after, wait)).map_err(away)?;
        self.take_feed(line, known, feed, asked_at).map_err(fault)?;
        self.see_to_migrations(line).map(drop).map_err(fault)
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
                let ends = pki::binding::millis(facts.not_after).saturating_add(1000);
                self.revoked_elsewhere(foreign_id(&facts.issuer, &facts.serial), at, ends)
            }
            FeedNews::Migrate(order) => self.take_migration(line, order),
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
            if self.end_order(line, id, CentreOutcome::Certified { certificate, chain })? {
                line.note_end();
            }
        }
        Ok(())
    }

    /// The PKI revoked a certificate. It is marked whether it is in the library or not, because it
    /// may be on its way here, or its owner's keys on their way elsewhere.
    fn revoked_elsewhere(&self, id: EntryId, at: u64, ends: i64) -> Result<(), Fault> {
        let at = at.min(self.now());
        let outcome = retried(|| {
            if self.library.get(&record::revoked(id)?)?.is_some() {
                return Ok(None);
            }
            let mark = Revoked { at, not_on_or_after: ends };
            let mut write = Write::new().put(record::revoked(id)?, &mark, 0)?;
            let mut name = None;
            // What is stored, whoever is answered from it now.
            if let Some(held) = self.library.get(&record::entry(id)?)?
                && held.value.revoked_at.is_none()
                && let Ok(guard) = self.guard(held.value.owner.as_deref())
            {
                let mut value = held.value;
                value.revoked_at = Some(at);
                write = guard.on(write).put(record::entry(id)?, &value, held.version)?;
                name = Some(value.name);
            }
            if self.library.commit(write)? { Ok(name) } else { Err(Fault::Contended.into()) }
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
    pub(super) fn compare(&self, line: &Line, crl: &Crl) -> Result<(), Fault> {
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
                    self.revoked_elsewhere(id, self.now(), entry.value.not_on_or_after)?;
                }
            }
            after = page.last().map(|(key, _)| key.clone());
            if !more || after.is_none() {
                return Ok(());
            }
        }
    }
}
