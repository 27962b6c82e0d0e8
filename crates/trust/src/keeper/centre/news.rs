//! The centre's news: certificates of our orders, revocations, CRLs, where other trust services are,
//! migrations. Each piece is durable here before the next is asked for.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use model::centre::{Bound, CentreOutcome, Feed, FeedNews};
use pki::{CertFacts, Crl};
use serve::{exit::chain, fsfile, shutdown::Shutdown};
use store::typed::{Versioned, Write};

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
/// Longest CRL.
const MAX_CRL: usize = 8 << 20;
/// A CRL that was verified, and what the CA is called that signed it.
pub(super) type Listed = (Crl, String);
/// A CRL that is here: DER, and as it was verified.
pub(super) type Held = (Vec<u8>, Crl);

impl Line {
    /// Takes a CRL, if a CA of the PKI signed it and it is no older than the one of that CA that is
    /// here; with that one.
    pub(super) fn take_crl(&self, der: &[u8]) -> Option<(Listed, Option<Held>)> {
        let (crl, issuer) = self.verified(der)?;
        let mut known = held(&self.crls);
        if known.get(&issuer).is_some_and(|(_, older)| older.next_update() > crl.next_update()) {
            return None;
        }
        let older = known.insert(issuer.clone(), (der.to_vec(), crl.clone()));
        Some(((crl, issuer), older))
    }

    /// Takes it back: it comes again, and is compared again with the one before it.
    fn give_back(&self, issuer: &str, older: Option<Held>) {
        let mut known = held(&self.crls);
        match older {
            Some(older) => known.insert(issuer.to_owned(), older),
            None => known.remove(issuer),
        };
    }

    /// A CRL that a CA of the PKI signed and that is in force.
    fn verified(&self, der: &[u8]) -> Option<Listed> {
        let anchors = self.domain.anchors.iter().map(|der| der.0.as_slice());
        let mut issuers = anchors.chain(self.domain.above.iter().map(Vec::as_slice));
        let now = self.clock.now();
        issuers.find_map(|issuer| {
            let crl = Crl::verify(der, issuer, now).ok()?;
            Some((crl, CertFacts::read(issuer).ok()?.subject))
        })
    }

    /// The CRLs that are here.
    fn lists(&self) -> Vec<Listed> {
        let crls = held(&self.crls);
        crls.iter().map(|(issuer, (_, crl))| (crl.clone(), issuer.clone())).collect()
    }

    /// Where the CRL of this CA is kept: with many revocations it is more than a record holds.
    fn list_file(&self, issuer: &str) -> PathBuf {
        let name = pki::binding::short_digest(&[b"crl", issuer.as_bytes()]);
        self.dir.join(format!("centre-{}.crl", hex::encode(name)))
    }

    /// Takes the CRLs that were kept before a restart. One that cannot be read comes again.
    pub(super) fn read_lists(&self) {
        let anchors = self.domain.anchors.iter().map(|der| der.0.as_slice());
        for issuer in anchors.chain(self.domain.above.iter().map(Vec::as_slice)) {
            let Ok(facts) = CertFacts::read(issuer) else { continue };
            if let Ok(der) = fsfile::read_limited(&self.list_file(&facts.subject), MAX_CRL) {
                self.take_crl(&der);
            }
        }
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
                && let Some((listed, older)) = line.take_crl(&crl.0)
            {
                // What an older one named was seen to, unless news were missed meanwhile.
                let seen_to = older.as_ref().filter(|_| !feed.resync).map(|(_, older)| older);
                if let Err(fault) = self.listed(line, (&listed, &crl.0), seen_to) {
                    line.give_back(&listed.1, older);
                    return Err(fault);
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
            // Taken before.
            FeedNews::Crl { .. } => Ok(()),
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
                && let Some(guard) = self.guard_now(held.value.owner.as_deref())?
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

    /// Does what a CRL says that `older` did not, and keeps it.
    fn listed(
        &self,
        line: &Line,
        (listed, der): (&Listed, &[u8]),
        older: Option<&Crl>,
    ) -> Result<(), Fault> {
        self.compare(listed, older)?;
        fsfile::write_atomic(&line.list_file(&listed.1), der, 0o644).map_err(Fault::key)
    }

    /// Revokes what a CRL names and `older` does not.
    fn compare(&self, (crl, issuer): &Listed, older: Option<&Crl>) -> Result<(), Fault> {
        for serial in crl.names_besides(older) {
            let id = foreign_id(issuer, &serial);
            if let Some(entry) = self.library.get(&record::entry(id)?)? {
                self.revoked_elsewhere(id, self.now(), entry.value.not_on_or_after)?;
            }
        }
        Ok(())
    }

    /// Revokes what the CRLs that are here name of one owner's certificates.
    pub(super) fn compare_owned(&self, line: &Line, owner: &str) -> Result<(), Why> {
        let lists = line.lists();
        for key in self.owned_keys(owner, usize::MAX)? {
            let Some(id) = key.strip_prefix("entry/").and_then(EntryId::from_hex) else { continue };
            let Some(entry) = self.library.get(&record::entry(id)?)? else { continue };
            if lists.iter().any(|listed| names(listed, &entry.value)) {
                self.revoked_elsewhere(id, self.now(), entry.value.not_on_or_after)?;
            }
        }
        Ok(())
    }
}

/// Whether a CRL names the certificate of an entry.
fn names((crl, issuer): &Listed, entry: &Entry) -> bool {
    CertFacts::read(&entry.certificate.0).is_ok_and(|facts| {
        let issued = pki::names::canonical_dn(&facts.issuer) == pki::names::canonical_dn(issuer);
        issued && crl.is_revoked(&facts.serial)
    })
}
