//! Lists of who is revoked: made by our own CAs, fetched from others, or put there as files; and
//! what they prove to questions.
//!
//! **Invariants:** a number of our own is durable before the CRL that has it is seen, none is used
//! twice; a list that came from elsewhere is believed for its signature alone, by whoever validates
//! with it; a series of CRLs never goes back.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{Domain, api::Bytes};
use pki::{CrlMark, CrlMarks, Evidence, HttpRequest, Method, Transport as _, Validity};
use serve::fsfile;
use store::{
    typed::{RecordError, Records, Write},
    wait,
};

use super::{
    Centre,
    domain::{Pki, PkiDomain},
    record::{self, CrlState, MarksRecord, StoredNews, digest},
    refusal::Fault,
    settings::ProviderSettings,
};

/// Longest CRL.
pub(crate) const MAX_CRL: usize = 8 << 20;

/// The newest lists of one PKI.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    /// DER.
    pub(crate) ders: Vec<Arc<Vec<u8>>>,
    /// When they were made or fetched, Unix milliseconds.
    pub(crate) at: u64,
    /// When it was last tried to fetch them.
    looked: u64,
}

/// The newest lists of all.
#[derive(Debug)]
pub(crate) struct Lists {
    dir: PathBuf,
    held: Mutex<BTreeMap<Domain, List>>,
    evidence: Mutex<Option<Arc<Evidence>>>,
    /// How far series of CRLs have come, and the version of the record that says so.
    marks: Mutex<(CrlMarks, u64)>,
    /// One writer of that record at a time; questions do not wait for it.
    keeping: Mutex<()>,
}

impl Lists {
    /// What is in files of ours from before.
    ///
    /// # Errors
    /// [`Fault::File`].
    pub(crate) fn open<'a>(
        domains: impl Iterator<Item = &'a PkiDomain>,
        (records, dir): (&Records, &Path),
    ) -> Result<Self, Fault> {
        let known = wait(records.get(&record::crl_marks()?))?;
        let marks = known.map(|known| (known.value.marks(), known.version)).unwrap_or_default();
        let mut held = BTreeMap::new();
        for domain in domains {
            let file = dir.join(file_name(domain.name()));
            if file.exists() {
                let der = fsfile::read_limited(&file, MAX_CRL)?;
                // How old it is, is in the store: until then it counts as very old.
                held.insert(
                    domain.name().clone(),
                    List { ders: vec![Arc::new(der)], ..List::default() },
                );
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            held: Mutex::new(held),
            evidence: Mutex::default(),
            marks: Mutex::new(marks),
            keeping: Mutex::default(),
        })
    }

    fn lists(&self) -> MutexGuard<'_, BTreeMap<Domain, List>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest of one PKI.
    pub(crate) fn of(&self, domain: &Domain) -> List {
        self.lists().get(domain).cloned().unwrap_or_default()
    }

    fn put(&self, domain: &Domain, list: List) {
        self.lists().insert(domain.clone(), list);
        *self.evidence.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// All of them, to validate with.
    pub(crate) fn evidence(&self) -> Arc<Evidence> {
        let mut known = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(evidence) = &*known {
            return Arc::clone(evidence);
        }
        let evidence = Arc::new(self.build(&[]));
        *known = Some(Arc::clone(&evidence));
        evidence
    }

    /// All of them and those that `came` with a question, none older than what was seen before.
    pub(crate) fn build(&self, came: &[Bytes]) -> Evidence {
        let mut evidence = Evidence::new();
        for (domain, list) in &*self.lists() {
            for der in &list.ders {
                if let Err(error) = evidence.add_crl(der) {
                    tracing::warn!(%domain, %error, "a CRL cannot be used");
                }
            }
        }
        for der in came {
            // One that cannot be read says nothing, and so leaves the status open.
            let _ = evidence.add_crl(&der.0);
        }
        evidence.remember(self.marks().0.all().to_vec());
        evidence
    }

    /// Remembers how far series of CRLs have come; durably, because a list that was told as old must
    /// not become new by a restart.
    ///
    /// # Errors
    /// [`Fault`] if the store cannot be written.
    pub(crate) fn keep(&self, records: &Records, marks: &[CrlMark]) -> Result<(), Fault> {
        if self.with(marks).is_none() {
            return Ok(());
        }
        let _one_at_a_time = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((next, version)) = self.with(marks) else { return Ok(()) };
        let write = Write::new().put(record::crl_marks()?, &MarksRecord::of(&next), version)?;
        if !wait(records.commit(write))? {
            return Err(Fault::Contended);
        }
        *self.marks() = (next, version.saturating_add(1));
        Ok(())
    }

    /// What is remembered and `marks`, and the version of the record that it goes in the place of;
    /// none if they say nothing new.
    fn with(&self, marks: &[CrlMark]) -> Option<(CrlMarks, u64)> {
        let held = self.marks();
        let mut next = held.0.clone();
        next.keep(marks);
        (next.all() != held.0.all()).then_some((next, held.1))
    }

    fn marks(&self) -> MutexGuard<'_, (CrlMarks, u64)> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of a PKI's CRL in the state directory.
fn file_name(domain: &Domain) -> String {
    format!("crl-{domain}.der")
}

impl Centre {
    /// Makes, reads again and, if it `may_fetch`, fetches what is due: a PKI that does not answer may
    /// take its time, which the start of the centre does not wait for.
    ///
    /// # Errors
    /// [`Fault`] of our own CAs; a foreign PKI that is away is said in the log only.
    pub(super) fn publish_due(&self, may_fetch: bool) -> Result<(), Fault> {
        for pki in &self.pkis {
            let domain = &*pki.domain;
            let known = wait(self.records.get(&record::crl(domain.name())?))?;
            let made = known.as_ref().map_or(0, |known| known.value.at);
            let age = self.now().saturating_sub(made);
            match &domain.settings.provider {
                ProviderSettings::Own(own) => {
                    let held = self.lists.of(domain.name());
                    // One that was put there by us is known by its time.
                    let is_of = |state: &CrlState| held.at == made || state.is_of(&held.ders);
                    let same = known.as_ref().is_some_and(|known| is_of(&known.value));
                    if !same || age >= own.crl_life_s.saturating_mul(500) {
                        self.publish(domain)?;
                    } else if held.at != made {
                        self.lists.put(domain.name(), List { at: made, ..held });
                    }
                }
                ProviderSettings::Cmp(_) | ProviderSettings::Acme(_) => {
                    let every = domain.settings.crl_every_s.saturating_mul(1000);
                    let held = self.lists.of(domain.name());
                    let fetched = domain.settings.crl_url.is_some();
                    let due = self.now().saturating_sub(held.looked) >= every;
                    if due && (may_fetch || !fetched) {
                        self.look(domain, held)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the next CRL of our own CA, and says so.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) fn publish(&self, domain: &PkiDomain) -> Result<(), Fault> {
        let (Pki::Own(own), ProviderSettings::Own(settings)) =
            (&domain.pki, &domain.settings.provider)
        else {
            return Ok(());
        };
        let fault = Fault::pki(domain.name());
        let place = || record::crl(domain.name());
        let known = wait(self.records.get(&place()?))?;
        let (last, version) = known.map_or((0, 0), |known| (known.value.number, known.version));
        let number = last.saturating_add(1);
        let at = self.now();
        let life = Duration::from_secs(settings.crl_life_s);
        let validity = Validity::backdated(self.clock.now(), Duration::from_secs(1), life);
        let revoked = domain.asks.revocations()?;
        let der = own.ca().issue_crl(number, validity, &revoked);
        let der = vec![Arc::new(der.map_err(|error| fault(Box::new(error)))?)];
        let write = Write::new().put(place()?, &CrlState::new(number, at, &der), version)?;
        if !self.feed.commit(write, vec![StoredNews::Crl(domain.name().clone())], at)? {
            return Err(Fault::Contended);
        }
        self.keep_file(domain, &der)?;
        self.lists.put(domain.name(), List { ders: der, at, looked: at });
        Ok(())
    }

    /// Fetches and reads the CRLs of a foreign PKI, and says so if they are new.
    fn look(&self, domain: &PkiDomain, held: List) -> Result<(), Fault> {
        let (mut ders, looked) = (Vec::new(), self.now());
        if let Some(url) = &domain.settings.crl_url {
            let request = HttpRequest {
                method: Method::Get,
                url,
                content_type: None,
                body: &[],
                most: MAX_CRL,
                timeout: Duration::from_secs(domain.settings.exchange_s),
            };
            match domain.wire.exchange(&request) {
                Ok(answer) if answer.status == 200 => ders.push(Arc::new(answer.body)),
                Ok(answer) => tracing::warn!(url, answer.status, "no CRL came"),
                Err(error) => {
                    tracing::warn!(url, error = serve::exit::chain(&error), "no CRL came")
                }
            }
            if ders.is_empty() {
                // What there is gets older; it is said how old.
                self.lists.put(domain.name(), List { looked, ..held });
                return Ok(());
            }
        }
        for file in &domain.settings.crls {
            match fsfile::read_limited(file, MAX_CRL) {
                Ok(der) => ders.push(Arc::new(der)),
                Err(error) => tracing::warn!(path = %file.display(), %error, "no CRL there"),
            }
        }
        let place = || record::crl(domain.name());
        let known = wait(self.records.get(&place()?))?;
        let at = self.now();
        let new = !ders.is_empty() && !known.as_ref().is_some_and(|one| one.value.is_of(&ders));
        if new {
            let (last, version) = known.map_or((0, 0), |one| (one.value.number, one.version));
            let state = CrlState::new(last.saturating_add(1), at, &ders);
            let write = Write::new().put(place()?, &state, version)?;
            self.feed.commit(write, vec![StoredNews::Crl(domain.name().clone())], at)?;
        }
        self.lists.put(domain.name(), List { ders, at, looked });
        Ok(())
    }

    fn keep_file(&self, domain: &PkiDomain, ders: &[Arc<Vec<u8>>]) -> Result<(), Fault> {
        let file = self.lists.dir.join(file_name(domain.name()));
        for der in ders {
            fsfile::write_atomic(&file, der, 0o644)?;
        }
        Ok(())
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(super) fn healthy(&self) -> Result<u64, RecordError> {
        Ok(wait(self.records.sealed().store().state())?.revision)
    }
}

impl CrlState {
    fn new(number: u64, at: u64, ders: &[Arc<Vec<u8>>]) -> Self {
        Self { number, at, digest: digest_of(ders) }
    }

    fn is_of(&self, ders: &[Arc<Vec<u8>>]) -> bool {
        !ders.is_empty() && self.digest == digest_of(ders)
    }
}

fn digest_of(ders: &[Arc<Vec<u8>>]) -> [u8; 16] {
    let parts: Vec<&[u8]> = ders.iter().map(|der| der.as_slice()).collect();
    digest(&parts)
}
