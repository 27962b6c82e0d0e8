//! What `init`, the server and the other commands stand on: TPM, root key, store, audit log.

use std::{path::Path, sync::Arc};

use anchor::{AnchorFault, Ground, Signing};
use attest::envelope::{checkpoints, checkpoints_of};
use model::Incarnation;
use serve::clock::SharedClock;
use store::{LocalStore, SealedStore, Store, StoreError, audit::AuditLog};
use thiserror::Error;

use crate::{
    audit::AuditError,
    config::{Config, ConfigError},
    keyring::{self, Keyring, KeyringError},
    paths::Paths,
    records::{self, RecordError, Records},
    restore::Restored,
    root::{RootError, RootKey},
    tpmlink::{LinkError, TpmLink},
};

/// Why the authority cannot stand up.
#[derive(Debug, Error)]
pub(crate) enum GroundError {
    /// The anchor.
    #[error("the store cannot be anchored")]
    Anchor(#[source] AnchorFault),
    /// The audit log.
    #[error("the audit log cannot be opened")]
    Audit(#[from] store::audit::AuditError),
    /// An entry of the audit log.
    #[error(transparent)]
    AuditEntry(AuditError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file.
    #[error(transparent)]
    File(#[from] serve::fsfile::FileError),
    /// The keys.
    #[error("the authority's keys cannot be used")]
    Keys(#[from] KeyringError),
    /// `init` has not been run to its end.
    #[error("{0} is not there: run `vouchsafe-authority init` first")]
    NotInitialised(String),
    /// The head is gone though the store is in use.
    #[error("the store is in use but its signed head is missing")]
    HeadMissing,
    /// Records.
    #[error("the store cannot be read")]
    Records(#[from] RecordError),
    /// The root key.
    #[error("the root key cannot be opened")]
    Root(#[from] RootError),
    /// The store.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] LinkError),
}

impl From<AnchorFault> for GroundError {
    fn from(fault: AnchorFault) -> Self {
        Self::Anchor(fault)
    }
}

impl GroundError {
    /// An entry could not be written.
    pub(crate) fn audit(error: AuditError) -> Self {
        Self::AuditEntry(error)
    }

    /// The refusal's name and hint, if a rule said no: exit status 3.
    pub(crate) fn refusal(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Anchor(fault) => fault.refusal(),
            Self::Audit(store::audit::AuditError::Rejected(rejection)) => {
                Some((rejection.name(), "`vouchsafe audit verify` names the first altered entry"))
            }
            Self::HeadMissing => {
                Some(("store-head-missing", "put the newest state directory back"))
            }
            Self::Root(RootError::Sealed(_))
            | Self::Keys(KeyringError::Root(RootError::Sealed(_))) => {
                Some(("key-file-altered", "put the newest state directory back"))
            }
            Self::Audit(_)
            | Self::AuditEntry(_)
            | Self::Config(_)
            | Self::File(_)
            | Self::Keys(_)
            | Self::NotInitialised(_)
            | Self::Records(_)
            | Self::Root(_)
            | Self::Store(_)
            | Self::Tpm(_) => None,
        }
    }
}

/// Everything that is opened before anything is decided.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Where things are.
    pub(crate) paths: Paths,
    /// The keys.
    pub(crate) keys: Keyring,
    /// The records.
    pub(crate) records: Records,
    /// The audit log.
    pub(crate) log: Arc<AuditLog>,
    /// The TPM.
    pub(crate) tpm: TpmLink,
}

impl Opened {
    /// Opens keys, store and audit log of an authority whose root key is open.
    ///
    /// # Errors
    /// [`GroundError`].
    pub(crate) fn new(
        paths: Paths,
        root: &RootKey,
        tpm: TpmLink,
        clock: &SharedClock,
    ) -> Result<Self, GroundError> {
        let keys = Keyring::open(&paths, root)?;
        let store: Arc<dyn Store> = Arc::new(LocalStore::open(&paths.store())?);
        let records = Records::new(SealedStore::new(store, keyring::seal_keys(root)?));
        let (log, recovery) = AuditLog::open(&paths.audit(), clock.unix_ms())?;
        if recovery.kept > 0 || recovery.dropped > 0 {
            tracing::warn!(kept = recovery.kept, dropped = recovery.dropped, "audit log repaired");
        }
        Ok(Self { paths, keys, records, log: Arc::new(log), tpm })
    }

    /// The store's incarnation, 1 if it was never restored.
    ///
    /// # Errors
    /// [`GroundError`].
    pub(crate) async fn incarnation(&self) -> Result<Incarnation, GroundError> {
        let held = self.records.get(&records::incarnation()?).await?;
        Ok(held.map_or(Incarnation(1), |held| held.value))
    }

    /// The newest incarnation that the store, its head or the witness knows of.
    ///
    /// # Errors
    /// [`GroundError`].
    pub(crate) async fn newest_incarnation(
        &self,
        config: &Config,
        clock: &SharedClock,
    ) -> Result<Incarnation, GroundError> {
        let held = self.incarnation().await?;
        let anchored = self.anchor_ground(config, clock, held).newest_incarnation()?;
        Ok(held.max(anchored))
    }

    /// What the last explicit restore left, if there was one.
    ///
    /// # Errors
    /// [`GroundError`].
    pub(crate) async fn restored(&self) -> Result<Restored, GroundError> {
        let held = self.records.get(&records::restored()?).await?;
        Ok(held.map(|held| held.value).unwrap_or_default())
    }

    /// Closes log and store: nothing is written after it.
    ///
    /// # Errors
    /// [`GroundError`].
    pub(crate) async fn close(self) -> Result<(), GroundError> {
        self.log.close().await;
        Ok(self.records.sealed().store().close().await?)
    }

    /// What the anchor stands on.
    pub(crate) fn anchor_ground(
        &self,
        config: &Config,
        clock: &SharedClock,
        incarnation: Incarnation,
    ) -> Ground {
        Ground {
            store: Arc::clone(self.records.sealed().store()),
            log: Arc::clone(&self.log),
            counter: Arc::new(self.tpm.counter()),
            signing: Signing::new(
                checkpoints(Arc::clone(&self.keys.signer)),
                checkpoints_of(self.keys.own.clone()),
            ),
            clock: clock.clone(),
            head: self.paths.head(),
            witness: config.witness.clone(),
            incarnation,
        }
    }
}

/// The root key of an authority that was initialised.
///
/// # Errors
/// [`GroundError::NotInitialised`], or what the TPM says.
pub(crate) async fn open_root(paths: &Paths, tpm: &TpmLink) -> Result<RootKey, GroundError> {
    must_exist(&paths.root())?;
    Ok(RootKey::open(&paths.root(), tpm).await?)
}

/// # Errors
/// [`GroundError::NotInitialised`] if the file is not there.
pub(crate) fn must_exist(path: &Path) -> Result<(), GroundError> {
    if path.exists() {
        Ok(())
    } else {
        Err(GroundError::NotInitialised(path.display().to_string()))
    }
}
