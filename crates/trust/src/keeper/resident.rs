//! Private keys that are kept under a key of their owner that lives in the host's TPM
//! (`keeper.keep = "tpm"`), and how that key moves with its owner.
//!
//! ```text
//! a key that was made here ─► HPKE, sealed to the owner's resident key     (no TPM is asked)
//! it is asked for          ─► the TPM agrees with `enc` ─► HPKE opens, here, for this answer
//! the owner moves          ─► what is sealed goes as it is; the resident key TPM to TPM
//! ```
//!
//! **Invariants:** the private half of a resident key is in the clear in no place but a TPM; what is
//! sealed to it is opened for nobody but who asks for it, and never to be moved; a target loads the
//! key and opens one thing with it before the source may let go.

mod agent;

use std::{fmt::Debug, sync::Arc};

use model::{
    HostId, MigrationId, Secret,
    agent::resident::{Departure, ResidentKey, Travelling},
    api::{Bytes, duplication::StorageParent},
    migration::{Rejection, Statement},
};
use serde::{Deserialize, Serialize};
use serve::hpke::{self, HpkePublic, Sealed};
use store::typed::{Place, RecordError, Versioned, Write};
use thiserror::Error;

pub use self::agent::AgentKeys;
use super::{
    Keeper,
    keyring::Escrow,
    owner::{OwnerRecord, refusal},
    record::{EntryId, Escrowed, short_digest},
    refusal::{Fault, Refusal, Why},
    settings::Keep,
};

/// Info of the HPKE messages to resident keys.
const INFO: &[u8] = b"vouchsafe:trust:resident:v1";

/// Why the host's TPM did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostKeyError {
    /// The agent, or the authority behind it, cannot be asked.
    #[error("the host's TPM cannot be asked: {0}")]
    Away(String),
    /// A rule said no, by this name.
    #[error("refused: {0}")]
    Refused(String),
}

/// Keys that live in the host's TPM. Calls block; any thread may call.
pub trait HostKeys: Debug + Send + Sync {
    /// Makes one.
    ///
    /// # Errors
    /// [`HostKeyError`].
    fn make(&self) -> Result<ResidentKey, HostKeyError>;

    /// The x coordinate that a key and a point agree on.
    ///
    /// # Errors
    /// [`HostKeyError`].
    fn agree(&self, blob: &Bytes, point: &Bytes) -> Result<Secret<Vec<u8>>, HostKeyError>;

    /// Where a key may come to in this migration, certified.
    ///
    /// # Errors
    /// [`HostKeyError`].
    fn parent(&self, id: MigrationId, source: &HostId) -> Result<StorageParent, HostKeyError>;

    /// Sends a key on its way.
    ///
    /// # Errors
    /// [`HostKeyError`].
    fn depart(&self, departure: &Departure) -> Result<Travelling, HostKeyError>;

    /// Takes one that came.
    ///
    /// # Errors
    /// [`HostKeyError`].
    fn arrive(&self, came: &Travelling) -> Result<ResidentKey, HostKeyError>;
}

impl From<HostKeyError> for Why {
    fn from(error: HostKeyError) -> Self {
        match error {
            HostKeyError::Away(why) => {
                tracing::warn!(why, "the host's TPM cannot be asked");
                Refusal::KeyTpmAway.into()
            }
            refused @ HostKeyError::Refused(_) => Fault::key(refused).into(),
        }
    }
}

/// The key of one owner, as it is stored: `resident/<owner digest>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResidentRecord {
    /// Whose.
    pub(super) owner: String,
    /// The key, wrapped by the TPM.
    pub(super) blob: Bytes,
    /// Its public half.
    pub(super) point: Bytes,
}

impl ResidentRecord {
    pub(super) fn of(owner: &str, key: ResidentKey) -> Self {
        Self { owner: owner.to_owned(), blob: key.blob, point: key.point }
    }

    fn public(&self) -> HpkePublic {
        HpkePublic(self.point.0.clone())
    }
}

/// Where it is.
pub(super) fn place(owner: &str) -> Result<Place<ResidentRecord>, RecordError> {
    Place::at(format!("resident/{}", short_digest(&[owner.as_bytes()])))
}

/// What private keys of an owner are sealed to.
#[derive(Debug)]
pub(super) enum Sealer {
    /// The escrow key.
    Escrow(Arc<Escrow>),
    /// The owner's key in the TPM.
    Resident(HpkePublic),
}

impl Sealer {
    /// Seals the private key of the binding `id`.
    pub(super) fn seal(&self, id: EntryId, key: &[u8], until: u64) -> Result<Escrowed, Fault> {
        let public = match self {
            Self::Escrow(escrow) => return escrow.seal(id, key, until),
            Self::Resident(public) => public,
        };
        let Sealed { enc, ciphertext } =
            hpke::seal(public, INFO, &id.0, key).map_err(Fault::key)?;
        Ok(Escrowed { enc: Bytes(enc), ciphertext: Bytes(ciphertext), until, resident: true })
    }
}

impl Keeper {
    /// Lets private keys be kept in the host's TPM: until this was called, there is none.
    pub fn lives_on(&self, keys: Arc<dyn HostKeys>) {
        // Told twice, the first stays.
        let _ = self.host_keys.set(keys);
    }

    fn host_keys(&self) -> Result<&Arc<dyn HostKeys>, Why> {
        self.host_keys.get().ok_or_else(|| Refusal::KeyTpmAway.into())
    }

    fn resident(&self, owner: &str) -> Result<Option<Versioned<ResidentRecord>>, Why> {
        Ok(self.library.get(&place(owner)?)?)
    }

    /// What a private key is sealed to; an owner's first one makes the owner's key.
    pub(super) fn sealer(&self, owner: Option<&str>) -> Result<Sealer, Why> {
        let in_tpm = self.settings.keep == Keep::Tpm;
        let Some(owner) = owner.filter(|_| in_tpm) else {
            return Ok(Sealer::Escrow(Arc::clone(&self.escrow)));
        };
        if let Some(known) = self.resident(owner)? {
            return Ok(Sealer::Resident(known.value.public()));
        }
        let guard = self.guard(Some(owner))?;
        let record = ResidentRecord::of(owner, self.host_keys()?.make()?);
        let at = place(owner)?;
        let write = guard.owning(Write::new(), &at)?.put(at, &record, 0)?;
        if !self.library.commit(write)? {
            return Err(Fault::Contended.into());
        }
        self.journal.done("trust", "key-resident-made", &format!("owner:{owner}"), "")?;
        Ok(Sealer::Resident(record.public()))
    }

    /// Opens the private key of the binding `id`.
    pub(super) fn open_key(
        &self,
        owner: Option<&str>,
        id: EntryId,
        sealed: &Escrowed,
    ) -> Result<Secret<Vec<u8>>, Why> {
        if !sealed.resident {
            return Ok(self.escrow.open_key(id, sealed)?);
        }
        let known = owner.map(|owner| self.resident(owner)).transpose()?.flatten();
        let known = known.ok_or_else(|| Fault::key(hpke::HpkeError::Open))?;
        self.opened_by(&known.value, id, sealed)
    }

    fn opened_by(
        &self,
        key: &ResidentRecord,
        id: EntryId,
        sealed: &Escrowed,
    ) -> Result<Secret<Vec<u8>>, Why> {
        let agreed = self.host_keys()?.agree(&key.blob, &sealed.enc)?;
        let sealed = Sealed { enc: sealed.enc.0.clone(), ciphertext: sealed.ciphertext.0.clone() };
        let opened = hpke::open_agreed(&agreed, &key.public(), &sealed, INFO, &id.0);
        Ok(opened.map_err(Fault::key)?)
    }

    /// Target: where a key may come to, if this host has a TPM that takes one.
    pub(super) fn parent_for(
        &self,
        id: MigrationId,
        source: &HostId,
    ) -> Result<Option<StorageParent>, Why> {
        let Some(keys) = self.host_keys.get() else { return Ok(None) };
        match keys.parent(id, source) {
            Ok(parent) => Ok(Some(parent)),
            Err(HostKeyError::Refused(_)) => Ok(None),
            Err(away) => Err(away.into()),
        }
    }

    /// Source: the owner's key as it travels, if there is one; the same each time in one migration.
    pub(super) fn departing(
        &self,
        record: &OwnerRecord,
        statement: &Statement,
    ) -> Result<Option<Travelling>, Why> {
        if record.travelling.is_some() {
            return Ok(record.travelling.clone());
        }
        let Some(key) = self.resident(&record.owner)? else { return Ok(None) };
        let Some(parent) = record.parent.clone() else {
            return Err(refusal(Rejection::KeyParentMissing).into());
        };
        let departure = Departure {
            blob: key.value.blob,
            migration: statement.id,
            target: statement.target.clone(),
            parent,
        };
        match self.host_keys()?.depart(&departure) {
            Ok(travelling) => Ok(Some(travelling)),
            Err(HostKeyError::Refused(name)) => Err(refusal(reason(&name)).into()),
            Err(away) => Err(away.into()),
        }
    }

    /// Target: takes the owner's key, and opens the first thing that is sealed to it.
    pub(super) fn arriving(
        &self,
        owner: &str,
        came: &Travelling,
        first: Option<(EntryId, &Escrowed)>,
    ) -> Result<ResidentRecord, Why> {
        let unfit = || Why::from(refusal(Rejection::ParcelUnfit));
        let key = match self.host_keys()?.arrive(came) {
            Ok(key) => ResidentRecord::of(owner, key),
            Err(HostKeyError::Refused(_)) => return Err(unfit()),
            Err(away) => return Err(away.into()),
        };
        if let Some((id, sealed)) = first {
            self.opened_by(&key, id, sealed).map_err(|why| match why {
                Why::Refused(Refusal::KeyTpmAway) => why,
                Why::Refused(_) | Why::Fault(_) => unfit(),
            })?;
        }
        Ok(key)
    }
}

/// What a migration is given up for.
fn reason(name: &str) -> Rejection {
    match name {
        "key-parent-foreign" => Rejection::KeyParentForeign,
        // One of the two hosts may not hold keys now.
        "ak-not-enrolled" => Rejection::PeerUntrusted,
        name if name.starts_with("host-") => Rejection::PeerUntrusted,
        _ => Rejection::ParcelUnfit,
    }
}
