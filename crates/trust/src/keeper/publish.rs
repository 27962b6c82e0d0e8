//! Publishing who is revoked: CRLs, full and delta, and answers over OCSP.
//!
//! A new full CRL is made when the last is half way to its end, or when something was revoked; the
//! latter not more often than its size allows, while the delta is new at once. A delta adds to the
//! last full CRL that was made for its time, and so to every younger one.
//!
//! **Invariant:** a number is durable before the CRL that has it is published; none is used twice.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{api::Bytes, keys::rpc::KeyAnswer};
use pki::{Ca, CrlEntry, CrlPlan, OcspStatus, Responder, Revocation, Validity};
use store::{
    Prefix, Range, Revision,
    typed::{RecordError, Write},
    wait,
};
use time::OffsetDateTime;

use super::{
    Keeper,
    issuer::Own,
    keyring,
    ledger::revocation,
    record::{self, EntryId, Revoked},
    refusal::{Fault, Why},
};

/// A full CRL may take this part of the time.
const SHARE: u32 = 20;
/// An OCSP key serves for so long.
const OCSP_KEY_LIFE: Duration = Duration::from_secs(86_400);

/// What is published now.
#[derive(Clone, Debug)]
struct Published {
    number: u64,
    full: Arc<Vec<u8>>,
    delta: Arc<Vec<u8>>,
    /// The full CRL that deltas add to, and the store's revision that it shows.
    base: (u64, Revision),
    /// When the full CRLs for their time, and the last of all, were made.
    scheduled: Duration,
    made: Duration,
    took: Duration,
}

/// CRLs and the OCSP responder.
#[derive(Debug)]
pub(super) struct Publisher {
    published: Mutex<Option<Published>>,
    outdated: AtomicBool,
    responder: RwLock<(Arc<Responder>, OffsetDateTime)>,
}

impl Publisher {
    pub(super) fn new(ca: &Ca, now: OffsetDateTime) -> Result<Self, Fault> {
        Ok(Self {
            published: Mutex::new(None),
            outdated: AtomicBool::new(false),
            responder: RwLock::new((Arc::new(keyring::responder(ca, now)?), now)),
        })
    }

    /// Something was revoked.
    pub(super) fn outdated(&self) {
        self.outdated.store(true, Ordering::Release);
    }
}

impl Keeper {
    /// The newest full CRL, DER.
    pub(super) fn crl(&self) -> Result<Vec<u8>, Why> {
        if let Some(crl) = self.issuer.foreign_crl()? {
            return Ok(crl);
        }
        Ok(self.published()?.full.to_vec())
    }

    /// The newest delta CRL, DER.
    pub(super) fn delta_crl(&self) -> Result<Vec<u8>, Why> {
        Ok(self.published()?.delta.to_vec())
    }

    /// Number of the newest CRL of our own; 0 if we publish none.
    pub(super) fn crl_number(&self) -> Result<u64, Why> {
        if self.issuer.own().is_err() {
            return Ok(0);
        }
        Ok(self.published()?.number)
    }

    /// What is published, with an audit entry if a rule says no.
    pub(super) fn handed_out(
        &self,
        event: &str,
        made: Result<Vec<u8>, Why>,
    ) -> Result<KeyAnswer, Why> {
        if let Err(Why::Refused(refusal)) = &made {
            self.journal.refused("anyone", event, "trust", *refusal)?;
        }
        Ok(KeyAnswer::Published(Bytes(made?)))
    }

    /// Publishes what is due.
    pub(super) fn publish(&self) -> Result<(), Fault> {
        if self.issuer.own().is_err() {
            return Ok(());
        }
        self.published().map(drop).map_err(|why| match why {
            Why::Fault(fault) => fault,
            Why::Refused(refusal) => Fault::ca(refusal),
        })
    }

    fn published(&self) -> Result<Published, Why> {
        let publisher = &self.issuer.own()?.publisher;
        let now = self.clock.monotonic();
        let life = Duration::from_secs(self.settings.crl_life_s);
        let mut held = publisher.published.lock().unwrap_or_else(PoisonError::into_inner);
        let due = held.as_ref().is_none_or(|one| now.saturating_sub(one.scheduled) >= life / 2);
        let outdated = publisher.outdated.load(Ordering::Acquire);
        if let Some(one) = held.as_ref().filter(|_| !due && !outdated) {
            return Ok(one.clone());
        }
        // Before reading: what is revoked from here on makes it outdated again.
        publisher.outdated.store(false, Ordering::Release);
        let made = self.make(held.as_ref(), due);
        if made.is_err() {
            publisher.outdated();
        }
        let made = made?;
        *held = Some(made.clone());
        Ok(made)
    }

    fn make(&self, last: Option<&Published>, due: bool) -> Result<Published, Why> {
        let Own { ca, publisher, .. } = self.issuer.own()?;
        let number = self.next_number()?;
        let begun = self.clock.monotonic();
        let life = Duration::from_secs(self.settings.crl_life_s);
        let validity = Validity::backdated(self.clock.now(), Duration::from_secs(1), life);
        let (revoked, revision) = self.revoked()?;
        let pause = |one: &Published| one.took.saturating_mul(SHARE);
        let rested = |one: &&Published| begun.saturating_sub(one.made) < pause(one);
        let resting = last.filter(|one| !due && rested(one));
        let base = last.filter(|_| !due).map_or((number, revision), |one| one.base);
        let full = match resting {
            Some(one) => Arc::clone(&one.full),
            None => {
                let all: Vec<Revocation> = revoked.iter().map(|(_, one)| *one).collect();
                Arc::new(ca.ca().issue_crl(number, validity, &all).map_err(Fault::ca)?)
            }
        };
        let since = revoked.iter().filter(|(made, _)| *made > base.1);
        let entries: Vec<CrlEntry> =
            since.map(|(_, one)| CrlEntry { revocation: *one, issuer: None }).collect();
        let plan = CrlPlan::delta(number, base.0, validity);
        let delta = Arc::new(ca.ca().issue_crl_by(&plan, &entries).map_err(Fault::ca)?);
        if resting.is_some() {
            // The full one is still to come.
            publisher.outdated();
        }
        let now = self.clock.monotonic();
        Ok(Published {
            number,
            full,
            delta,
            base,
            scheduled: last.filter(|_| !due).map_or(now, |one| one.scheduled),
            made: resting.map_or(now, |one| one.made),
            took: resting.map_or(now.saturating_sub(begun), |one| one.took),
        })
    }

    fn next_number(&self) -> Result<u64, Why> {
        let place = record::crl_state()?;
        let held = self.library.get(&place)?;
        let version = held.as_ref().map_or(0, |held| held.version);
        let number = held.map_or(0, |held| held.value.number).saturating_add(1);
        let write = Write::new().put(place, &record::CrlState { number }, version)?;
        if self.library.commit(write)? { Ok(number) } else { Err(Fault::Contended.into()) }
    }

    /// What goes on a CRL, each with the revision of its revocation, and the revision of it all.
    fn revoked(&self) -> Result<(Vec<(Revision, Revocation)>, Revision), RecordError> {
        let now = i64::try_from(self.now()).unwrap_or(i64::MAX);
        let life = i64::try_from(self.settings.crl_life_s).unwrap_or(i64::MAX).saturating_mul(1000);
        let prefix = Prefix::new(record::REVOKED)?;
        let sealed = self.library.records().sealed();
        let mut range = Range::prefix(prefix.clone());
        let mut all = Vec::new();
        loop {
            let answer = wait(sealed.range(range))?;
            for entry in &answer.entries {
                let one: Revoked = store::typed::parse(&entry.key, entry.value.expose())?;
                let digits = entry.key.as_str().trim_start_matches(record::REVOKED);
                let Some(id) = EntryId::from_hex(digits) else { continue };
                // One that expired is named once more, and then no longer (RFC 5280, section 3.3).
                if one.not_on_or_after.saturating_add(life) > now {
                    all.push((entry.create_revision, revocation(id, &one)));
                }
            }
            let Some(last) = answer.entries.last().filter(|_| answer.more) else {
                return Ok((all, answer.revision));
            };
            range = Range::prefix(prefix.clone()).at(answer.revision).after(last.key.clone());
        }
    }

    /// Answers an OCSP request (DER).
    pub(super) fn ocsp(&self, request: &[u8]) -> Result<Vec<u8>, Why> {
        let life = Duration::from_secs(self.settings.ocsp_life_s);
        let responder = Arc::clone(
            &self
                .issuer
                .own()?
                .publisher
                .responder
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .0,
        );
        let fault = std::cell::RefCell::new(None);
        let reply = responder.respond(request, self.clock.now(), life, |serial| {
            self.ocsp_status(serial).unwrap_or_else(|error| {
                *fault.borrow_mut() = Some(error);
                OcspStatus::Unknown
            })
        });
        if let Some(error) = fault.into_inner() {
            return Err(error.into());
        }
        let reply = reply.map_err(Fault::ca)?;
        if let Some(refused) = reply.refused {
            self.journal.named("anyone", "ocsp-request", "message", (refused.code(), ""))?;
        }
        Ok(reply.der)
    }

    fn ocsp_status(&self, serial: &[u8]) -> Result<OcspStatus, RecordError> {
        if super::library::serial_of(&self.message.certificate.0) == Some(serial) {
            return Ok(OcspStatus::Good);
        }
        let Some(id) = EntryId::from_serial(serial) else { return Ok(OcspStatus::Unknown) };
        let Some(entry) = self.library.entry(id)? else { return Ok(OcspStatus::Unknown) };
        Ok(match entry.value.revoked_at {
            None => OcspStatus::Good,
            Some(at) => {
                let one = Revoked { at, not_on_or_after: entry.value.not_on_or_after };
                let Revocation { at, reason, .. } = revocation(id, &one);
                OcspStatus::Revoked { at, reason }
            }
        })
    }

    /// A new OCSP key, once a day.
    pub(super) fn renew_responder(&self) -> Result<(), Fault> {
        let Ok(Own { ca, publisher, .. }) = self.issuer.own() else { return Ok(()) };
        let now = self.clock.now();
        let since = publisher.responder.read().unwrap_or_else(PoisonError::into_inner).1;
        if now - since >= OCSP_KEY_LIFE {
            let new = keyring::responder(ca.ca(), now)?;
            let mut held = publisher.responder.write().unwrap_or_else(PoisonError::into_inner);
            *held = (Arc::new(new), now);
        }
        Ok(())
    }
}
