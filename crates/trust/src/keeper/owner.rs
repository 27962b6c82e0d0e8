//! Owners: whose a record is, and whether it may be read and changed here.
//!
//! Each record of an owner has a row under `owned/<digest>/` that names it; where the owner's keys
//! are is in one [`OwnerRecord`]. **Invariant:** every transaction that changes a record of an owner
//! stands on the version of that record, so that nothing changes once keys are on their way.

use model::{
    Digest,
    agent::resident::Travelling,
    api::{Bytes, duplication::StorageParent},
    keys::order::SecretBytes,
    migration,
};
use serde::{Deserialize, Serialize};
use store::{
    Key, Prefix, Range,
    typed::{Place, RecordError, Versioned, Write},
    wait,
};

use super::{
    Keeper,
    record::{EntryId, short_digest},
    refusal::{Fault, Refusal, Why},
};

/// Where an owner's keys are, and what a migration of them needs to go on after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnerRecord {
    /// Whose.
    pub(crate) owner: String,
    /// Where.
    pub(crate) place: migration::Place,
    /// Source: where the target listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// The target's verdict, as it said when it was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target_verdict: Option<Digest>,
    /// The target's HPKE key, public half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Bytes>,
    /// Target: its private half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) private: Option<SecretBytes>,
    /// Source: where the owner's key in the TPM may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<StorageParent>,
    /// Source: that key as it travels: made once in a migration, so that the parcel is the same again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) travelling: Option<Travelling>,
    /// Digest of what was sent, or is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Digest>,
    /// Why the last migration was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<migration::Rejection>,
}

impl OwnerRecord {
    /// Of an owner that nothing was ever written down about.
    pub(crate) fn new(owner: &str, place: migration::Place) -> Self {
        Self {
            owner: owner.to_owned(),
            place,
            url: None,
            target_verdict: None,
            key: None,
            private: None,
            parent: None,
            travelling: None,
            content: None,
            refused: None,
        }
    }

    /// Forgets what only a migration needs.
    pub(crate) fn at_rest(&mut self) {
        (self.url, self.target_verdict, self.key) = (None, None, None);
        (self.private, self.content) = (None, None);
        (self.parent, self.travelling) = (None, None);
    }
}

/// Beginning of the keys of owners.
pub(crate) const OWNERS: &str = "owner/";

/// Where it says where an owner's keys are.
pub(crate) fn place(owner: &str) -> Result<Place<OwnerRecord>, RecordError> {
    Place::at(format!("{OWNERS}{}", short_digest(&[owner.as_bytes()])))
}

/// Beginning of the rows that name owners' records.
pub(crate) const OWNED: &str = "owned/";

/// Beginning of the rows that name an owner's records.
pub(crate) fn owned(owner: &str) -> String {
    format!("{OWNED}{}/", short_digest(&[owner.as_bytes()]))
}

/// The record that a row names.
pub(crate) fn named_by(row: &Key) -> Option<&str> {
    row.as_str().strip_prefix(OWNED)?.split_once('/').map(|(_, key)| key)
}

/// A binding that moved away. Its certificate is still of our CA, if it ever was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gone {
    /// When its certificate ends.
    pub(crate) not_on_or_after: i64,
    /// Whether our CA issued it.
    pub(crate) ours: bool,
}

/// Where it says that a key was revoked: it is never bound again. It is written with the revocation,
/// and a new binding stands on its absence, so that neither slips past the other.
pub(crate) fn revoked_key(spki: &[u8]) -> Result<Place<()>, RecordError> {
    Place::at(format!("moved/k/{}", short_digest(&[spki])))
}

/// Where it says that a binding moved away.
pub(crate) fn moved(id: EntryId) -> Result<Place<Gone>, RecordError> {
    Place::at(format!("moved/{id}"))
}

/// Where it says that a key name moved away.
pub(crate) fn moved_name(name: &str) -> Result<Place<()>, RecordError> {
    Place::at(format!("moved/n/{}", short_digest(&[name.as_bytes()])))
}

/// Leave to change records of one owner, or of nobody.
#[derive(Clone, Debug)]
pub(super) struct Guard(Option<(String, u64)>);

impl Guard {
    /// Only as long as the owner's keys do not move.
    pub(super) fn on(&self, write: Write) -> Write {
        match &self.0 {
            Some((owner, version)) => match place(owner) {
                Ok(place) => write.only_if(place, *version),
                Err(_) => write,
            },
            None => write,
        }
    }

    /// The same, and one new record becomes the owner's.
    pub(super) fn owning<T>(&self, write: Write, record: &Place<T>) -> Result<Write, RecordError> {
        self.also(self.on(write), record)
    }

    /// One more new record becomes the owner's.
    pub(super) fn also<T>(&self, write: Write, record: &Place<T>) -> Result<Write, RecordError> {
        let Some((owner, _)) = &self.0 else { return Ok(write) };
        let row: Place<()> = Place::at(format!("{}{}", owned(owner), record.key()))?;
        write.put(row, &(), 0)
    }
}

impl Keeper {
    /// Leave to change records of this owner.
    pub(super) fn guard(&self, owner: Option<&str>) -> Result<Guard, Why> {
        let Some(owner) = owner else { return Ok(Guard(None)) };
        let known = self.library.get(&place(owner)?)?;
        let Some(known) = known else { return Ok(Guard(Some((owner.to_owned(), 0)))) };
        known.value.place.takes_orders().map_err(refusal)?;
        Ok(Guard(Some((owner.to_owned(), known.version))))
    }

    /// The same; none while the owner's keys are on their way or elsewhere.
    pub(super) fn guard_now(&self, owner: Option<&str>) -> Result<Option<Guard>, Fault> {
        match self.guard(owner) {
            Ok(guard) => Ok(Some(guard)),
            Err(Why::Refused(_)) => Ok(None),
            Err(Why::Fault(fault)) => Err(fault),
        }
    }

    /// Where the owner's keys are.
    pub(super) fn owner_record(&self, owner: &str) -> Result<Versioned<OwnerRecord>, Why> {
        if let Some(known) = self.library.get(&place(owner)?)? {
            return Ok(known);
        }
        let some = !self.owned_keys(owner, 1)?.is_empty();
        let place = if some {
            migration::Place::Here { epoch: 0 }
        } else {
            migration::Place::Absent { epoch: 0 }
        };
        Ok(Versioned { value: OwnerRecord::new(owner, place), version: 0 })
    }

    /// Keys of the owner's records, in order, at most `limit`.
    pub(super) fn owned_keys(&self, owner: &str, limit: usize) -> Result<Vec<String>, Why> {
        let prefix = owned(owner);
        let range = Range::prefix(Prefix::new(&prefix).map_err(RecordError::from)?).limit(limit);
        let store = self.library.records().sealed().store();
        let reply = wait(store.range(range)).map_err(RecordError::from)?;
        let key = |row: &store::KeyValue| row.key.as_str().get(prefix.len()..).map(str::to_owned);
        Ok(reply.entries.iter().filter_map(key).collect())
    }

    /// Whether what an example names was moved away: then that is the answer to an order about it.
    pub(super) fn moved_away(&self, example: &model::keys::KeyExample) -> Result<(), Why> {
        let by_name = match &example.name {
            Some(name) => self.library.holds(&moved_name(name)?)?,
            None => false,
        };
        let certificate = example.certificates.first();
        let by_id = match certificate.and_then(|der| self.library.id_of(&der.0)) {
            Some(id) => self.library.holds(&moved(id)?)?,
            None => false,
        };
        if by_name || by_id { Err(Refusal::OwnerMoved.into()) } else { Ok(()) }
    }
}

/// The keeper's word for what the protocol's rule says.
pub(super) const fn refusal(rejection: migration::Rejection) -> Refusal {
    use migration::Rejection;
    match rejection {
        Rejection::IssuerUnknown => Refusal::IssuerUnknown,
        Rejection::KeyParentForeign => Refusal::KeyParentForeign,
        Rejection::KeyParentMissing => Refusal::KeyParentMissing,
        Rejection::MigrationCancelled => Refusal::MigrationCancelled,
        Rejection::MigrationStale => Refusal::MigrationStale,
        Rejection::MigrationUnexpected => Refusal::MigrationUnexpected,
        Rejection::MigrationUnknown => Refusal::MigrationUnknown,
        Rejection::OwnerMigrating => Refusal::OwnerMigrating,
        Rejection::OwnerMoved => Refusal::OwnerMoved,
        Rejection::OwnerPresent => Refusal::OwnerPresent,
        Rejection::OwnerUnknown => Refusal::OwnerUnknown,
        Rejection::ParcelUnfit => Refusal::ParcelUnfit,
        Rejection::PeerUntrusted => Refusal::PeerUntrusted,
        Rejection::PeerWrong => Refusal::PeerWrong,
    }
}
