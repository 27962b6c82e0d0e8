//! A key-management centre in this process, with a CA of its own, that can be away, slow, forgetful
//! and wrong.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use model::{
    HostId, MigrationId, OrderId,
    api::Bytes,
    centre::{
        Bound, CentreOrder, CentreOutcome, CentreProgress, CentreQuestion, CentreWork, DomainInfo,
        Feed, FeedItem, FeedNews, MigrationOrder, MigrationReport, MigrationStage, ServiceEntry,
        Welcome,
    },
    keys::{Anchor, Found, Knowledge},
};
use pki::{Ca, CaSpec, CertFacts, Profile, Revocation, RevocationReason, Validity, binding};
use serve::{
    clock::{Clock as _, SystemClock},
    keys::SigningKey,
};
use trust::keeper::{Centre, CentreError};

const LIFE: Duration = Duration::from_secs(86_400);

/// The centre.
#[derive(Debug)]
pub(crate) struct Fake {
    ca: Ca,
    /// Above the CA, if that is not the anchor itself.
    root: Option<Ca>,
    away: AtomicBool,
    busy: AtomicBool,
    confused: AtomicBool,
    forgot: AtomicBool,
    wants_request: AtomicBool,
    refuses: Mutex<Option<String>>,
    lose: AtomicU32,
    slow_ms: AtomicU64,
    questions: AtomicU32,
    revoked: AtomicU32,
    orders: Mutex<BTreeMap<OrderId, CentreProgress>>,
    certificates: Mutex<Vec<(Option<String>, Vec<u8>)>>,
    feed: Mutex<Vec<FeedItem>>,
    reports: Mutex<Vec<(MigrationId, MigrationReport)>>,
}

fn spec(name: &str, path_length: u8) -> CaSpec {
    CaSpec { common_name: name.to_owned(), path_length, validity: validity(2 * LIFE) }
}

fn validity(life: Duration) -> Validity {
    Validity::backdated(SystemClock.now(), Duration::from_secs(120), life)
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::of(Ca::create_root(&spec("Centre CA", 0)).unwrap().0, None)
    }

    /// One whose CA is below another.
    pub(crate) fn below_a_root() -> Self {
        let (root, _) = Ca::create_root(&spec("Root", 1)).unwrap();
        Self::of(root.create_sub(&spec("Centre CA", 0)).unwrap().0, Some(root))
    }

    fn of(ca: Ca, root: Option<Ca>) -> Self {
        Self {
            ca,
            root,
            away: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            confused: AtomicBool::new(false),
            forgot: AtomicBool::new(false),
            wants_request: AtomicBool::new(false),
            refuses: Mutex::default(),
            lose: AtomicU32::new(0),
            slow_ms: AtomicU64::new(0),
            questions: AtomicU32::new(0),
            revoked: AtomicU32::new(0),
            orders: Mutex::default(),
            certificates: Mutex::default(),
            feed: Mutex::default(),
            reports: Mutex::default(),
        }
    }

    pub(crate) fn anchor(&self) -> &[u8] {
        self.root.as_ref().unwrap_or(&self.ca).certificate()
    }

    /// The CAs between certificates and the anchor.
    pub(crate) fn between(&self) -> Vec<Bytes> {
        self.root.iter().map(|_| Bytes(self.ca.certificate().to_vec())).collect()
    }

    /// Its PKI certifies only by the subject's own request.
    pub(crate) fn want_requests(&self) {
        self.wants_request.store(true, Ordering::SeqCst);
    }

    /// It has too much to do.
    pub(crate) fn busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::SeqCst);
    }

    /// Who asks for news the next time has missed some.
    pub(crate) fn forget_news(&self) {
        self.forgot.store(true, Ordering::SeqCst);
    }

    /// Publishes a CRL that names these certificates.
    pub(crate) fn publish(&self, number: u64, revoked: &[&Bytes]) {
        let at = SystemClock.now() - Duration::from_secs(60);
        let one = |der: &&Bytes| Revocation {
            serial: CertFacts::read(&der.0).unwrap().serial.as_slice().try_into().unwrap(),
            at,
            reason: RevocationReason::Unspecified,
        };
        let revoked: Vec<Revocation> = revoked.iter().map(one).collect();
        let crl = Bytes(self.ca.issue_crl(number, validity(LIFE), &revoked).unwrap());
        self.tell(FeedNews::Crl { domain: "own".parse().unwrap(), crl });
    }

    pub(crate) fn away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    pub(crate) fn slow(&self, by: Duration) {
        self.slow_ms.store(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The answers to so many orders are lost, after they were carried out.
    pub(crate) fn lose_answers(&self, count: u32) {
        self.lose.store(count, Ordering::SeqCst);
    }

    /// Certificates are for another key than was ordered.
    pub(crate) fn confuse_keys(&self) {
        self.confused.store(true, Ordering::SeqCst);
    }

    pub(crate) fn refuse(&self, name: &str) {
        *self.refuses.lock().unwrap() = Some(name.to_owned());
    }

    pub(crate) fn questions(&self) -> u32 {
        self.questions.load(Ordering::SeqCst)
    }

    pub(crate) fn revoked(&self) -> u32 {
        self.revoked.load(Ordering::SeqCst)
    }

    pub(crate) fn certificates_of(&self, key: &SigningKey) -> usize {
        let all = self.certificates.lock().unwrap();
        all.iter().filter(|(_, der)| CertFacts::read(der).unwrap().spki == key.spki()).count()
    }

    /// A certificate that another trust service ordered.
    pub(crate) fn certify_elsewhere(&self, name: &str, key: &SigningKey) -> Bytes {
        Bytes(self.certify(Some(name), key.spki()))
    }

    /// The PKI revokes a certificate without having been asked.
    pub(crate) fn revoke_by_itself(&self, certificate: &Bytes) {
        let (domain, certificate) = ("own".parse().unwrap(), certificate.clone());
        self.tell(FeedNews::Revoked { domain, certificate, at: SystemClock.unix_ms() });
    }

    /// Orders that an owner's keys move; always the same migration.
    pub(crate) fn order_migration(&self, owner: &str, (from, to): (&str, &str)) -> MigrationId {
        let place = |host: &str| ServiceEntry {
            host: host.parse().unwrap(),
            peer_url: "https://127.0.0.1:1".to_owned(),
        };
        let id = MigrationId([7; 16]);
        let (owner, from, to) = (owner.to_owned(), place(from), place(to));
        self.tell(FeedNews::Migrate(MigrationOrder { id, owner, from, to }));
        id
    }

    /// What was reported of migrations.
    pub(crate) fn reports(&self) -> Vec<(MigrationId, MigrationStage)> {
        self.reports.lock().unwrap().iter().map(|(id, report)| (*id, report.stage)).collect()
    }

    fn certify(&self, name: Option<&str>, spki: &[u8]) -> Vec<u8> {
        let user = pki::names::user_cert(name.unwrap_or("nobody"), &[], &[]).unwrap();
        let other = SigningKey::generate().unwrap();
        let confused = self.confused.load(Ordering::SeqCst);
        let spki = if confused { other.spki() } else { spki };
        let der = self.ca.issue(&Profile::User(user), spki, validity(LIFE)).unwrap().der;
        self.certificates.lock().unwrap().push((name.map(str::to_owned), der.clone()));
        der
    }

    fn tell(&self, news: FeedNews) {
        let mut feed = self.feed.lock().unwrap();
        let seq = u64::try_from(feed.len()).unwrap() + 1;
        feed.push(FeedItem { seq, at: SystemClock.unix_ms(), news });
    }

    fn there(&self) -> Result<(), CentreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(CentreError::Away("the test says so".to_owned()));
        }
        if self.busy.load(Ordering::SeqCst) {
            return Err(CentreError::Busy);
        }
        Ok(())
    }

    fn carry_out(&self, order: &CentreOrder) -> CentreProgress {
        if let Some(name) = self.refuses.lock().unwrap().clone() {
            return CentreProgress::Refused { name, hint: None };
        }
        let (name, spki) = match &order.work {
            CentreWork::Enrol { subject, .. } => {
                (subject.name.clone(), subject.key.clone().unwrap().0)
            }
            CentreWork::Renew { certificate, subject, .. } => {
                (subject.name.clone(), CertFacts::read(&certificate.0).unwrap().spki)
            }
            CentreWork::Revoke { .. } => {
                self.revoked.fetch_add(1, Ordering::SeqCst);
                return CentreProgress::Done(CentreOutcome::Revoked { at: SystemClock.unix_ms() });
            }
        };
        let certificate = Bytes(self.certify(name.as_deref(), &spki));
        self.tell(FeedNews::Bound(Box::new(Bound {
            order: order.id,
            name,
            certificate: certificate.clone(),
            chain: self.between(),
        })));
        let chain = self.between();
        CentreProgress::Done(CentreOutcome::Certified { certificate, chain })
    }
}

impl Centre for Fake {
    fn host(&self) -> Option<HostId> {
        Some("a".parse().unwrap())
    }

    fn hello(&self) -> Result<Welcome, CentreError> {
        self.there()?;
        let domain = DomainInfo {
            domain: "own".parse().unwrap(),
            anchors: vec![Bytes(self.anchor().to_vec())],
            intermediates: self.between(),
            wants_request: self.wants_request.load(Ordering::SeqCst),
        };
        Ok(Welcome { domains: vec![domain] })
    }

    fn submit(&self, order: &CentreOrder) -> Result<CentreProgress, CentreError> {
        self.there()?;
        let known = self.orders.lock().unwrap().get(&order.id).cloned();
        let progress = known.unwrap_or_else(|| self.carry_out(order));
        self.orders.lock().unwrap().insert(order.id, progress.clone());
        let lost = self.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if lost.is_ok() {
            return Err(CentreError::Away("the answer was lost".to_owned()));
        }
        Ok(progress)
    }

    fn progress(&self, id: OrderId, _: Duration) -> Result<CentreProgress, CentreError> {
        self.there()?;
        let known = self.orders.lock().unwrap().get(&id).cloned();
        known.ok_or_else(|| CentreError::Refused("order-unknown".to_owned()))
    }

    fn ask(&self, question: &CentreQuestion) -> Result<Found, CentreError> {
        self.there()?;
        self.questions.fetch_add(1, Ordering::SeqCst);
        if let Some(name) = self.refuses.lock().unwrap().clone() {
            return Err(CentreError::Refused(name));
        }
        thread::sleep(Duration::from_millis(self.slow_ms.load(Ordering::SeqCst)));
        let example = &question.query.binding;
        let all = self.certificates.lock().unwrap();
        let like = |(name, der): &&(Option<String>, Vec<u8>)| {
            let facts = CertFacts::read(der).unwrap();
            example.certificates.first().is_none_or(|wanted| wanted.0 == *der)
                && (example.name.is_none() || example.name == *name)
                && example.key.as_ref().is_none_or(|key| key.0 == facts.spki)
        };
        let bindings = all
            .iter()
            .filter(like)
            .map(|(_, der)| binding::said(&CertFacts::read(der).unwrap(), &Bytes(der.clone())));
        let anchor = Anchor::Ca("CN=Centre CA".to_owned());
        let knowledge = Knowledge { anchor, as_of: SystemClock.unix_ms(), pki_calls: 1 };
        Ok(Found { bindings: bindings.collect(), more: false, knowledge: Some(knowledge) })
    }

    fn report(&self, id: MigrationId, report: &MigrationReport) -> Result<(), CentreError> {
        self.there()?;
        self.reports.lock().unwrap().push((id, report.clone()));
        Ok(())
    }

    fn feed(&self, after: u64, wait: Duration) -> Result<Feed, CentreError> {
        let until = SystemClock.monotonic() + wait.min(Duration::from_millis(100));
        loop {
            self.there()?;
            let all = self.feed.lock().unwrap();
            let items: Vec<FeedItem> =
                all.iter().filter(|item| item.seq > after).cloned().collect();
            let next = all.last().map_or(after, |item| item.seq);
            drop(all);
            if !items.is_empty() || SystemClock.monotonic() >= until {
                let resync = self.forgot.swap(false, Ordering::SeqCst);
                return Ok(Feed { next, resync, items });
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
