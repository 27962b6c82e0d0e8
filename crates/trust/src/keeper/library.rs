//! The certificate library: entries found by certificate, issuer and serial number, key, name, or
//! use-with. A question reads one stretch of an index and the entries it leads to, never the whole.
//!
//! **Invariant:** an index row only leads somewhere: what is answered was checked against the
//! sealed entry itself.

mod memo;
mod stored;

use model::keys::{KeyExample, KeyUse, UseWith};
use pki::{CertFacts, names};
use store::{
    Key, Prefix, Range,
    typed::{Place, RecordError, Records, Versioned, Write, parse},
    wait,
};

use self::memo::Memo;
pub(crate) use self::stored::serial_of;
use super::{
    centre::foreign_id,
    owner,
    record::{self, Entry, EntryId, short_digest},
    refusal::{Refusal, Why},
};

/// Index rows that one question looks at.
const MAX_ROWS: usize = 512;

/// The library.
#[derive(Debug)]
pub(crate) struct Library {
    records: Records,
    /// The name of our own CA, comparable; without one, entries are known by issuer and serial
    /// number, and not by the latter alone.
    issuer: Option<String>,
    opened: Memo,
}

/// Entries that are like an example.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    /// The entries, newest certificate first.
    pub(crate) entries: Vec<(EntryId, Versioned<Entry>)>,
    /// Whether there may be more.
    pub(crate) more: bool,
}

impl Library {
    /// The library in `records`, of our own CA of this name (RFC 4514) if we have one.
    pub(crate) fn new(records: Records, issuer: Option<&str>) -> Self {
        Self { records, issuer: issuer.map(names::canonical_dn), opened: Memo::default() }
    }

    /// The records below.
    pub(crate) const fn records(&self) -> &Records {
        &self.records
    }

    /// A record.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn get<T: serde::de::DeserializeOwned>(
        &self,
        place: &Place<T>,
    ) -> Result<Option<Versioned<T>>, RecordError> {
        wait(self.records.get(place))
    }

    /// Whether a record is there; it is not opened.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn holds<T>(&self, place: &Place<T>) -> Result<bool, RecordError> {
        wait(self.records.holds(place))
    }

    /// Writes all, durably, or nothing: `false`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn commit(&self, write: Write) -> Result<bool, RecordError> {
        wait(self.records.commit(write))
    }

    /// An entry by its id.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn entry(&self, id: EntryId) -> Result<Option<Versioned<Entry>>, RecordError> {
        let Some(mut entry) = self.open(id)? else { return Ok(None) };
        if self.issuer.is_none() && entry.value.revoked_at.is_none() {
            // The PKI may have revoked it while its owner's keys were on their way and nothing of
            // theirs could be changed.
            let mark = self.get(&record::revoked(id)?)?;
            entry.value.revoked_at = mark.map(|mark| mark.value.at);
        }
        Ok(if self.shows(&entry.value)? { Some(entry) } else { None })
    }

    /// By what the entry of a certificate (DER) is known here.
    pub(crate) fn id_of(&self, certificate: &[u8]) -> Option<EntryId> {
        if self.issuer.is_some() {
            return serial_of(certificate).and_then(EntryId::from_serial);
        }
        let facts = CertFacts::read(certificate).ok()?;
        Some(foreign_id(&facts.issuer, &facts.serial))
    }

    /// An entry as it stands in the store.
    fn open(&self, id: EntryId) -> Result<Option<Versioned<Entry>>, RecordError> {
        let place = record::entry(id)?;
        let sealed = self.records.sealed();
        let Some(row) = wait(sealed.store().get(place.key()))? else { return Ok(None) };
        if let Some(known) = self.opened.recall(id, &row) {
            return Ok(Some(known));
        }
        let octets = row.value.clone();
        let opened = sealed.open(row)?;
        let value = parse(place.key(), opened.value.expose())?;
        let entry = Versioned { value, version: opened.version };
        self.opened.remember(id, octets, &entry);
        Ok(Some(entry))
    }

    /// Whether an entry is answered for: not if it is on its way, or was moved away.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn shows(&self, entry: &Entry) -> Result<bool, RecordError> {
        let Some(owner) = &entry.owner else { return Ok(true) };
        let place = self.get(&owner::place(owner)?)?;
        Ok(place.is_none_or(|known| known.value.place.answers()))
    }

    /// Entries that are like `example`, at most `limit`.
    ///
    /// # Errors
    /// [`Refusal::ExampleEmpty`], or the store's.
    pub(crate) fn find(&self, example: &KeyExample, limit: usize) -> Result<Hits, Why> {
        if let Some(id) = self.by_certificate(example) {
            let found = id.map(|id| Ok::<_, RecordError>((id, self.entry(id)?))).transpose()?;
            let fitting = |(id, entry): (_, Option<Versioned<Entry>>)| {
                entry.filter(|entry| fits(&entry.value, example)).map(|entry| (id, entry))
            };
            let entries = found.and_then(fitting).into_iter().collect();
            return Ok(Hits { entries, more: false });
        }
        let prefix = index_of(example).ok_or(Refusal::ExampleEmpty)?;
        let (rows, mut more) = self.rows(&prefix)?;
        let mut entries = Vec::new();
        for id in rows {
            let Some(entry) = self.entry(id)? else { continue };
            if fits(&entry.value, example) {
                entries.push((id, entry));
            }
        }
        entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.value.not_before));
        // Those in force first, so that a limit does not hide them behind what is over.
        entries.sort_by_key(|(_, entry)| entry.value.revoked_at.is_some());
        more |= entries.len() > limit;
        entries.truncate(limit);
        Ok(Hits { entries, more })
    }

    /// Where a certificate, or issuer and serial number, leads: `None` if the example has neither;
    /// nothing inside if it is not one of ours.
    fn by_certificate(&self, example: &KeyExample) -> Option<Option<EntryId>> {
        let certificate = example.certificates.first();
        let given = certificate.map(|der| self.id_of(&der.0));
        let named = example.issuer_serial.as_ref().map(|named| match &self.issuer {
            Some(own) => {
                let ours = names::canonical_dn(&named.issuer) == *own;
                EntryId::from_serial(&named.serial.0).filter(|_| ours)
            }
            None => Some(foreign_id(&named.issuer, &named.serial.0)),
        });
        match (given, named) {
            (Some(given), Some(named)) => Some(given.filter(|_| given == named)),
            (given, named) => given.or(named),
        }
    }

    /// Whether a binding of this name that is not revoked is like this.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(super) fn names(
        &self,
        name: &str,
        like: impl Fn(&Entry) -> bool,
    ) -> Result<bool, RecordError> {
        for id in self.rows(&by_name(name))?.0 {
            let entry = self.entry(id)?.map(|entry| entry.value);
            if entry.is_some_and(|entry| entry.revoked_at.is_none() && like(&entry)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn rows(&self, prefix: &str) -> Result<(Vec<EntryId>, bool), RecordError> {
        let range = Range::prefix(Prefix::new(prefix)?).limit(MAX_ROWS);
        let reply = wait(self.records.sealed().store().range(range))?;
        let id = |key: &Key| EntryId::from_hex(key.as_str().get(prefix.len()..)?);
        Ok((reply.entries.iter().filter_map(|row| id(&row.key)).collect(), reply.more))
    }

    /// Adds a new entry and what leads to it.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn add(write: Write, id: EntryId, entry: &Entry) -> Result<Write, RecordError> {
        let mut write = write.put(record::entry(id)?, entry, 0)?;
        for row in rows_of(id, entry)? {
            write = write.put(row, &(), 0)?;
        }
        Ok(write)
    }

    /// Changes an entry so that only its certificate leads to it.
    ///
    /// # Errors
    /// [`RecordError`].
    pub(crate) fn retire(
        write: Write,
        id: EntryId,
        entry: &Versioned<Entry>,
    ) -> Result<Write, RecordError> {
        let mut write = write.put(record::entry(id)?, &entry.value, entry.version)?;
        for row in rows_of(id, &entry.value)? {
            write = write.delete(row, 1);
        }
        Ok(write)
    }
}

/// The index rows of an entry: key, name, and each application's name.
pub(super) fn rows_of(id: EntryId, entry: &Entry) -> Result<Vec<Place<()>>, RecordError> {
    let mut prefixes = vec![by_key(&entry.key.0), by_name(&entry.name)];
    prefixes.extend(entry.use_with.iter().map(by_use_with));
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.into_iter().map(|prefix| Place::at(format!("{prefix}{id}"))).collect()
}

fn by_key(spki: &[u8]) -> String {
    format!("ix/k/{}/", short_digest(&[spki]))
}

fn by_name(name: &str) -> String {
    format!("ix/n/{}/", short_digest(&[name.as_bytes()]))
}

fn by_use_with(one: &UseWith) -> String {
    let digest = short_digest(&[one.application.as_bytes(), names::canonical(one).as_bytes()]);
    format!("ix/u/{digest}/")
}

/// The index that says most.
fn index_of(example: &KeyExample) -> Option<String> {
    let key = example.key.as_ref().map(|key| by_key(&key.0));
    key.or_else(|| example.name.as_deref().map(by_name))
        .or_else(|| example.use_with.first().map(by_use_with))
}

/// Whether an entry is like an example, in everything that the example says.
fn fits(entry: &Entry, example: &KeyExample) -> bool {
    let has = |wanted: &UseWith| entry.use_with.iter().any(|one| names::same(one, wanted));
    let serves = |wanted: &KeyUse| entry.uses.contains(wanted);
    example.certificates.first().is_none_or(|der| *der == entry.certificate)
        && example.key.as_ref().is_none_or(|key| *key == entry.key)
        && example.name.as_ref().is_none_or(|name| *name == entry.name)
        && example.uses.iter().all(serves)
        && example.use_with.iter().all(has)
}
