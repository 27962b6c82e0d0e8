//! The key-management centre: takes orders of trust services, has each carried out by the PKI of its
//! domain, and tells all trust services what is new. It never sees XML nor a private key of others.
//!
//! ```text
//! trust service ─► order ─► rules ─► durable ─► fair queue per tenant ─► PKI ─► durable ─► answer
//!                                               (lane)                          │
//!               ◄─ feed ◄─ certificates, revocations, CRLs, directory ◄─────────┘
//!               ─► question ─► library, CRLs, path over bridges ─► answer
//! administrator ─► admin socket ─► status, queue, migrations
//! ```
//!
//! **Invariants:** an order is answered only after it is durable, and carried out at most once: its
//! id is the PKI's request id, stored before the first try; what came of it is in the audit log
//! before it can be seen. Tenants that are not configured may nothing. Key material of users never
//! passes through here: trust services move keys between themselves.

mod admin;
mod anchoring;
mod crl;
mod dispatch;
mod domain;
mod feed;
mod house;
mod keys;
mod lane;
mod ledger;
mod library;
mod order;
mod question;
pub mod queue;
mod record;
mod refusal;
mod services;
mod settings;
mod wire;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU32},
    thread::JoinHandle,
};

use anchor::{Anchoring, Following};
use journal::Journal;
use model::{Domain, HostId, Tenant};
use serve::{clock::SharedClock, fsfile, shutdown::Shutdown};
use store::{
    typed::{RecordError, Records},
    wait,
};
use tokio::runtime::Handle;

use self::{
    crl::Lists,
    domain::{Ground, PkiDomain, SharedDomain},
    feed::Sequence,
    lane::Lane,
};
pub use self::{
    refusal::{Fault, Refusal, Why},
    settings::{
        AcmeSettings, CmpSettings, DomainSettings, Limits, OwnSettings, ProviderSettings, Settings,
        TenantSettings,
    },
};

/// The log's name in its checkpoints.
const LOG: &str = "vouchsafe-centre";

/// A PKI and its open orders.
#[derive(Debug)]
struct Served {
    domain: SharedDomain,
    lane: Lane,
}

/// The centre. All calls but those that say so block their thread; any thread may call.
#[derive(Debug)]
pub struct Centre {
    settings: Settings,
    dir: PathBuf,
    clock: SharedClock,
    records: Records,
    journal: Journal,
    anchor: Following,
    feed: Sequence,
    pkis: Vec<Served>,
    lists: Lists,
    /// Questions that are being answered.
    questions: AtomicU32,
    stop: Shutdown,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Centre {
    /// Opens the centre whose state is in `dir`; at the first start makes everything it is. Foreign
    /// PKIs are reached over `runtime`; `stop` ends the web server of ACME's challenges. Its store is
    /// anchored as `anchoring` says.
    ///
    /// # Errors
    /// [`Fault`], for example if another process has the state open.
    pub fn open(
        settings: Settings,
        dir: &Path,
        clock: SharedClock,
        (runtime, stop): (Handle, Shutdown),
        anchoring: Anchoring,
    ) -> Result<Arc<Self>, Fault> {
        let records = anchor::records(settings.root_key.as_ref(), dir)?;
        let signer = keys::checkpoint(&records, dir)?;
        let journal = anchoring::journal(&settings, dir, &clock, &signer)?;
        let stand = anchoring::stand((&records, &journal), &signer, (dir, &clock), anchoring)?;
        let anchor = wait(stand.open())?;
        let feed = Sequence::open(records.clone())?;
        let ground = Ground {
            records: records.clone(),
            dir,
            clock: clock.clone(),
            runtime,
            stop: stop.clone(),
        };
        let mut pkis = Vec::new();
        for domain in &settings.domains {
            let domain = Arc::new(PkiDomain::open(domain.clone(), &ground)?);
            let workers = domain.settings.workers(&settings.limits);
            let lane = Lane::new(settings.limits.bounds(), workers);
            pkis.push(Served { domain, lane });
        }
        let lists = Lists::open(pkis.iter().map(|pki| &*pki.domain), (&records, dir))?;
        let (dir, threads) = (dir.to_owned(), Mutex::default());
        let questions = AtomicU32::new(0);
        let centre = Self {
            settings,
            dir,
            clock,
            records,
            journal,
            anchor,
            feed,
            pkis,
            lists,
            questions,
            stop,
            threads,
        };
        centre.take_up()?;
        centre.publish_due(false)?;
        centre.journal.done("centre", "centre-started", "centre", "")?;
        Ok(Arc::new(centre))
    }

    /// Starts to work: on orders, for administrators, in the house.
    ///
    /// # Errors
    /// If the socket cannot be made or no thread be started.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let mut threads = self.start_workers()?;
        threads.push(self.keep_house()?);
        *self.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        self.listen()
    }

    /// The certificate of the centre's own CA in a PKI, DER; none if that is foreign.
    #[must_use]
    pub fn ca_certificate(&self, domain: &Domain) -> Option<&[u8]> {
        let served = self.pkis.iter().find(|pki| pki.domain.name() == domain)?;
        match &served.domain.pki {
            domain::Pki::Own(own) => Some(own.ca().certificate()),
            domain::Pki::Cmp(_) | domain::Pki::Acme(_) => None,
        }
    }

    fn now(&self) -> u64 {
        self.clock.unix_ms()
    }

    fn served(&self, domain: &Domain) -> Result<&Served, Refusal> {
        let served = self.pkis.iter().find(|pki| pki.domain.name() == domain);
        served.ok_or(Refusal::DomainUnknown)
    }

    /// The PKI, if this tenant on this server may use it.
    fn allowed(&self, tenant: &Tenant, host: &HostId, domain: &Domain) -> Result<&Served, Refusal> {
        let known = self.settings.tenants.iter().find(|one| one.name == *tenant);
        let known = known.ok_or(Refusal::TenantUnknown)?;
        if !self.is_on(tenant, host) {
            return Err(Refusal::HostNotAllowed);
        }
        let served = self.served(domain)?;
        if known.domains.contains(domain) { Ok(served) } else { Err(Refusal::DomainNotAllowed) }
    }

    /// Whether a tenant is on this server.
    fn is_on(&self, tenant: &Tenant, host: &HostId) -> bool {
        let known = self.settings.tenants.iter().find(|one| one.name == *tenant);
        known.is_some_and(|known| known.hosts.is_empty() || known.hosts.contains(host))
    }

    /// Writes down why somebody was not served, if a rule said no.
    ///
    /// # Errors
    /// [`Fault`]: the answer must not leave.
    pub fn note(&self, actor: &str, event: &str, subject: &str, why: &Why) -> Result<(), Fault> {
        match why.refusal() {
            Some(refusal) => {
                Ok(self.journal.refused(actor, event, subject, (refusal.name(), refusal.hint()))?)
            }
            None => Ok(()),
        }
    }

    /// Writes down that a caller's passport will not do.
    ///
    /// # Errors
    /// [`Fault`]: the answer must not leave.
    pub fn stranger(&self, event: &str, (name, hint): (&str, &str)) -> Result<(), Fault> {
        Ok(self.journal.refused("anyone", event, "centre", (name, hint))?)
    }

    /// Writes down why the centre refuses the passport that was issued to it: name and hint.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub fn no_passport(&self, (name, hint): (&str, &str)) -> Result<(), Fault> {
        Ok(self.journal.refused("centre", "own-passport", "centre", (name, hint))?)
    }

    /// Ends the workers, then closes store and log; nothing is answered after it.
    ///
    /// # Errors
    /// [`Fault`] if the last checkpoint could not be signed or the store not be closed.
    pub fn close(&self) -> Result<(), Fault> {
        self.stop.trigger();
        self.pkis.iter().for_each(|pki| pki.lane.stop());
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // One that panicked has ended as well.
            let _ = thread.join();
        }
        if let Err(error) = fsfile::remove(&self.socket()) {
            tracing::warn!(%error, "the administrators' socket is left over");
        }
        self.journal.done("centre", "centre-stopped", "centre", "")?;
        self.journal.checkpoint()?;
        self.journal.close();
        Ok(wait(self.records.sealed().store().close()).map_err(RecordError::from)?)
    }
}
