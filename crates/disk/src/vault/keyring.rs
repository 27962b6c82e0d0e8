//! The keys of all sessions of an open volume, and the sequence numbers.
//!
//! **Invariant:** a nonce never repeats under one key. A sequence number is taken from one counter
//! and used once; the counter starts where the header's ends; what was sealed behind the header's
//! back, before a crash or on a copy, was sealed by another session and so under another key.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    header::{SessionRecord, Suite},
    kdf::VolumeKey,
    refs::Ref,
    seal::{Cipher, NotAuthentic, Unit},
};
use crate::{Rejection, VolumeError};

/// Units that one session may seal.
const SESSION_UNITS: u64 = 1 << 32;

/// One session: what the format stores of it, and its expanded key.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) record: SessionRecord,
    cipher: Cipher,
}

/// Volume keys by epoch: the header's, and while re-keying the one before.
#[derive(Clone, Debug)]
pub(crate) struct VolumeKeys {
    pub(crate) epoch: u32,
    pub(crate) current: VolumeKey,
    pub(crate) previous: Option<VolumeKey>,
}

impl VolumeKeys {
    fn of(&self, epoch: u32) -> Result<&VolumeKey, Rejection> {
        if epoch == self.epoch {
            return Ok(&self.current);
        }
        let previous = self.previous.as_ref().filter(|_| epoch.checked_add(1) == Some(self.epoch));
        previous.ok_or_else(|| Rejection::malformed("a session of an epoch whose key is gone"))
    }
}

/// All sessions of a volume.
#[derive(Debug)]
pub(crate) struct Keyring {
    uuid: [u8; 16],
    suite: Suite,
    /// Rising in their number; the current one, if any, is the last.
    sessions: Vec<Session>,
    next: AtomicU64,
    /// Where `next` stood when the current session began.
    began: u64,
}

impl Keyring {
    /// The sessions of `records`, which rise in their number.
    pub(crate) fn new(
        uuid: [u8; 16],
        suite: Suite,
        keys: &VolumeKeys,
        records: &[SessionRecord],
        next: u64,
    ) -> Result<Self, VolumeError> {
        let mut ring =
            Self { uuid, suite, sessions: Vec::new(), next: AtomicU64::new(next), began: next };
        for record in records {
            ring.push(keys, *record)?;
        }
        Ok(ring)
    }

    /// Adds a session behind all others; it is the current one from then on.
    pub(crate) fn push(
        &mut self,
        keys: &VolumeKeys,
        record: SessionRecord,
    ) -> Result<(), VolumeError> {
        if self.sessions.last().is_some_and(|last| last.record.id >= record.id) {
            return Err(Rejection::malformed("the order of the sessions").into());
        }
        let vk = keys.of(record.epoch)?;
        let key = vk.session_key(&self.uuid, record.id, &record.salt, self.suite)?;
        let cipher = Cipher::new(self.suite, &key)
            .map_err(|_| VolumeError::Crypto { what: "take a session key" })?;
        self.sessions.push(Session { record, cipher });
        self.began = self.next_sequence();
        Ok(())
    }

    /// Forgets the sessions that `keep` does not want. The current one stays.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&SessionRecord) -> bool) {
        let current = self.sessions.last().map(|last| last.record.id);
        self.sessions.retain(|s| Some(s.record.id) == current || keep(&s.record));
    }

    pub(crate) const fn uuid(&self) -> &[u8; 16] {
        &self.uuid
    }

    /// The records of all sessions, rising.
    pub(crate) fn records(&self) -> impl DoubleEndedIterator<Item = &SessionRecord> {
        self.sessions.iter().map(|s| &s.record)
    }

    /// The next sequence number, not taken.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// The current session has sealed so much that another should begin soon.
    pub(crate) fn tired(&self) -> bool {
        self.next_sequence().saturating_sub(self.began) > SESSION_UNITS / 2
    }

    /// The epoch of session `id`.
    pub(crate) fn epoch_of(&self, id: u32) -> Option<u32> {
        self.session(id).map(|s| s.record.epoch)
    }

    fn session(&self, id: u32) -> Option<&Session> {
        if let Some(last) = self.sessions.last().filter(|last| last.record.id == id) {
            return Some(last);
        }
        let at = self.sessions.binary_search_by_key(&id, |s| s.record.id).ok()?;
        self.sessions.get(at)
    }

    /// Takes `count` sequence numbers and returns the first.
    pub(crate) fn take(&self, count: u64) -> Result<u64, NotAuthentic> {
        let first = self.next.fetch_add(count, Ordering::SeqCst);
        let fits = first.saturating_sub(self.began).saturating_add(count) <= SESSION_UNITS;
        if fits { Ok(first) } else { Err(NotAuthentic) }
    }

    /// Seals `unit` in place under a sequence number that the caller took; the reference lacks its
    /// slot.
    pub(crate) fn seal(
        &self,
        sequence: u64,
        unit: Unit,
        data: &mut [u8],
    ) -> Result<Ref, NotAuthentic> {
        let session = self.sessions.last().ok_or(NotAuthentic)?;
        let tag = session.cipher.seal(sequence, &unit.place(&self.uuid), data)?;
        Ok(Ref::sealed(tag, sequence, session.record.id))
    }

    /// Opens in place what `name` names.
    pub(crate) fn open(&self, name: &Ref, unit: Unit, data: &mut [u8]) -> Result<(), NotAuthentic> {
        let session = self.session(name.session).ok_or(NotAuthentic)?;
        session.cipher.open(name.sequence, &unit.place(&self.uuid), data, &name.tag)
    }

    /// Decrypts in place what `name` names, whether it is authentic or not.
    pub(crate) fn release(&self, name: &Ref, data: &mut [u8]) -> Result<(), NotAuthentic> {
        let session = self.session(name.session).ok_or(NotAuthentic)?;
        session.cipher.release(name.sequence, data)
    }

    /// Seals a log record; `about` is all of its associated data.
    pub(crate) fn seal_record(
        &self,
        sequence: u64,
        about: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; 16], NotAuthentic> {
        let session = self.sessions.last().ok_or(NotAuthentic)?;
        session.cipher.seal(sequence, about, body)
    }

    /// Opens a log record of the current session.
    pub(crate) fn open_record(
        &self,
        session: u32,
        sequence: u64,
        about: &[u8],
        body: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), NotAuthentic> {
        let session = self.session(session).ok_or(NotAuthentic)?;
        session.cipher.open(sequence, about, body, tag)
    }

    /// Makes sure that no number below `least` is given out.
    pub(crate) fn skip_to(&self, least: u64) {
        self.next.fetch_max(least, Ordering::SeqCst);
    }
}
