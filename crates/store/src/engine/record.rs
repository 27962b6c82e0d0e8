//! The rows' contents: meta, record, commit; and the hash chain over commits.

use aws_lc_rs::digest::{Context, SHA256};
use model::Digest;

use crate::{
    backend::{State, StoreId},
    codec::{Reader, Writer},
    engine::rows::{Rows, RowsMut, Table},
    error::StoreError,
    key::{Key, MAX_KEY},
    types::{Event, KeyValue, LeaseId, MAX_VALUE, Revision},
};

/// Version of the tables' format.
pub(crate) const FORMAT: u8 = 2;

/// The version before: its [`Table::Versions`] also had a copy of each present record. That is read
/// the same way, and compaction takes the copies out.
const BEFORE: u8 = 1;

const META_KEY: &[u8] = b"meta";

/// The one row of [`Table::Meta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) id: StoreId,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) commit: [u8; 32],
    pub(crate) next_lease: u64,
}

impl Meta {
    /// The meta row of a new store.
    pub(crate) fn genesis(id: StoreId) -> Self {
        let commit = hash(&[b"vouchsafe:store-genesis:v1", &id.0]);
        Self { id, revision: 0, compacted: 0, commit, next_lease: 1 }
    }

    /// Reads it; `None` in an empty database.
    pub(crate) fn find(rows: &dyn Rows) -> Result<Option<Self>, StoreError> {
        let Some(row) = rows.get(Table::Meta, META_KEY)? else { return Ok(None) };
        let mut reader = Reader::new(&row, "meta");
        let format = reader.u8()?;
        if format != FORMAT && format != BEFORE {
            return Err(StoreError::Format { found: format.into() });
        }
        let meta = Self {
            id: StoreId(reader.array()?),
            revision: reader.u64()?,
            compacted: reader.u64()?,
            commit: reader.array()?,
            next_lease: reader.u64()?,
        };
        reader.end()?;
        Ok(Some(meta))
    }

    /// Reads it.
    pub(crate) fn load(rows: &dyn Rows) -> Result<Self, StoreError> {
        Self::find(rows)?.ok_or_else(|| StoreError::corrupt("the meta row is missing"))
    }

    /// Writes it.
    pub(crate) fn save(&self, rows: &mut dyn RowsMut) -> Result<(), StoreError> {
        let row = Writer::new()
            .u8(FORMAT)
            .raw(&self.id.0)
            .u64(self.revision)
            .u64(self.compacted)
            .raw(&self.commit)
            .u64(self.next_lease)
            .done();
        rows.put(Table::Meta, META_KEY, &row)
    }

    /// Appends a commit: its row, its place in the hash chain, the new revision.
    pub(crate) fn append(
        &mut self,
        rows: &mut dyn RowsMut,
        commit: &Commit,
    ) -> Result<(), StoreError> {
        let revision = self.revision.checked_add(1).ok_or_else(exhausted)?;
        let row = commit.encode();
        self.commit = link(&self.commit, revision, &row);
        self.revision = revision;
        rows.put(Table::Changes, &revision.to_be_bytes(), &row)?;
        rows.put(Table::Commits, &revision.to_be_bytes(), &self.commit)?;
        self.save(rows)
    }

    /// What callers see of it.
    pub(crate) fn state(&self) -> State {
        State {
            id: self.id,
            revision: self.revision,
            compacted: self.compacted,
            commit: Digest::sha256(self.commit),
        }
    }
}

fn exhausted() -> StoreError {
    StoreError::corrupt("the revision has reached its end")
}

/// The chain's next head.
pub(crate) fn link(before: &[u8; 32], revision: Revision, row: &[u8]) -> [u8; 32] {
    let row = hash(&[row]);
    hash(&[b"vouchsafe:store-commit:v1", before, &revision.to_be_bytes(), &row])
}

/// SHA-256 of the concatenation.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}

/// A key's record as stored in [`Table::Current`].
pub(crate) fn encode_record(entry: &KeyValue) -> Vec<u8> {
    Writer::new()
        .u64(entry.create_revision)
        .u64(entry.mod_revision)
        .u64(entry.version)
        .u64(entry.lease.map_or(0, |lease| lease.0))
        .bytes(&entry.value)
        .done()
}

fn read_record(reader: &mut Reader<'_>, key: Key) -> Result<KeyValue, StoreError> {
    let (create_revision, mod_revision) = (reader.u64()?, reader.u64()?);
    let (version, lease) = (reader.u64()?, reader.u64()?);
    let value = reader.bytes(MAX_VALUE)?.to_vec();
    let lease = (lease != 0).then_some(LeaseId(lease));
    Ok(KeyValue { key, value, create_revision, mod_revision, version, lease })
}

/// Parses a record; `key` is the row's key.
pub(crate) fn decode_record(key: &[u8], row: &[u8]) -> Result<KeyValue, StoreError> {
    let mut reader = Reader::new(row, "current");
    let entry = read_record(&mut reader, parse_key(key)?)?;
    reader.end()?;
    Ok(entry)
}

/// Parses the bytes of a key.
pub(crate) fn parse_key(bytes: &[u8]) -> Result<Key, StoreError> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| Key::new(text).ok())
        .ok_or_else(|| StoreError::corrupt("a row has a malformed key"))
}

/// Key of a row of [`Table::Versions`].
pub(crate) fn version_key(key: &Key, revision: Revision) -> Vec<u8> {
    Writer::new().raw(key.as_bytes()).u8(0).u64(revision).done()
}

/// Parses the key of a row of [`Table::Versions`].
pub(crate) fn parse_version_key(bytes: &[u8]) -> Result<(&[u8], Revision), StoreError> {
    let malformed = || StoreError::corrupt("a row of versions has a malformed key");
    let (rest, revision) = bytes.split_last_chunk::<8>().ok_or_else(malformed)?;
    let (zero, key) = rest.split_last().ok_or_else(malformed)?;
    if *zero == 0 { Ok((key, u64::from_be_bytes(*revision))) } else { Err(malformed()) }
}

const DELETE: u8 = 0;
const PUT: u8 = 1;

/// A row of [`Table::Versions`]: a record that is not the present one any more, or the tombstone
/// that a delete leaves.
pub(crate) fn encode_version(record: Option<&KeyValue>) -> Vec<u8> {
    match record {
        Some(entry) => Writer::new().u8(PUT).raw(&encode_record(entry)).done(),
        None => Writer::new().u8(DELETE).done(),
    }
}

/// Parses a row of [`Table::Versions`].
pub(crate) fn decode_version(key: &[u8], row: &[u8]) -> Result<Option<KeyValue>, StoreError> {
    let mut reader = Reader::new(row, "versions");
    let entry = match reader.u8()? {
        DELETE => None,
        PUT => Some(read_record(&mut reader, parse_key(key)?)?),
        other => return Err(StoreError::corrupt(format!("a version has kind {other}"))),
    };
    reader.end()?;
    Ok(entry)
}

/// A row of [`Table::Changes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// Puts and deletes.
    Changes(Vec<Event>),
    /// A compaction: the oldest revision that can be read, and the digest of the state at it.
    Compaction { compacted: Revision, state: [u8; 32] },
}

const CHANGES: u8 = 1;
const COMPACTION: u8 = 2;

impl Commit {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Changes(events) => events
                .iter()
                .fold(Writer::new().u8(CHANGES), |row, event| match event {
                    Event::Put(entry) => {
                        row.u8(PUT).bytes(entry.key.as_bytes()).raw(&encode_record(entry))
                    }
                    Event::Delete(key) => row.u8(DELETE).bytes(key.as_bytes()),
                })
                .done(),
            Self::Compaction { compacted, state } => {
                Writer::new().u8(COMPACTION).u64(*compacted).raw(state).done()
            }
        }
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row, "changes");
        match reader.u8()? {
            CHANGES => {
                let mut events = Vec::new();
                while !reader.is_empty() {
                    events.push(read_event(&mut reader)?);
                }
                Ok(Self::Changes(events))
            }
            COMPACTION => {
                let (compacted, state) = (reader.u64()?, reader.array()?);
                reader.end()?;
                Ok(Self::Compaction { compacted, state })
            }
            other => Err(StoreError::corrupt(format!("a commit has kind {other}"))),
        }
    }
}

fn read_event(reader: &mut Reader<'_>) -> Result<Event, StoreError> {
    let kind = reader.u8()?;
    let key = parse_key(reader.bytes(MAX_KEY)?)?;
    match kind {
        DELETE => Ok(Event::Delete(key)),
        PUT => Ok(Event::Put(read_record(reader, key)?)),
        other => Err(StoreError::corrupt(format!("a change has kind {other}"))),
    }
}

/// The revision that is the key of a row of [`Table::Changes`] or [`Table::Commits`].
pub(crate) fn parse_revision(key: &[u8]) -> Result<Revision, StoreError> {
    let bytes = key.try_into().map_err(|_| StoreError::corrupt("a revision has eight bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}
