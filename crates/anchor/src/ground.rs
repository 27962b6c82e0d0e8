//! What an anchor covers, and where its heads are.

use std::{fmt, path::PathBuf, sync::Arc};

use model::Incarnation;
use serve::{clock::SharedClock, fsfile};
use store::{Store, audit::AuditLog, head::Head};

use crate::{counter::Counter, fault::AnchorFault};

/// Longest signed head.
const MAX_HEAD: usize = 64 << 10;

type Failed = Box<dyn std::error::Error + Send + Sync>;
type Turn = dyn Fn(Vec<u8>) -> Result<Vec<u8>, Failed> + Send + Sync;

/// Signs heads, and verifies what it signed: a payload becomes a DSSE envelope of kind
/// `checkpoint`, JSON, and the other way round.
#[derive(Clone)]
pub struct Signing {
    sign: Arc<Turn>,
    open: Arc<Turn>,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").finish_non_exhaustive()
    }
}

impl Signing {
    /// `sign` makes an envelope; `open` gives the payload of one whose signature holds.
    pub fn new<S, O>(
        sign: impl Fn(Vec<u8>) -> Result<Vec<u8>, S> + Send + Sync + 'static,
        open: impl Fn(Vec<u8>) -> Result<Vec<u8>, O> + Send + Sync + 'static,
    ) -> Self
    where
        S: std::error::Error + Send + Sync + 'static,
        O: std::error::Error + Send + Sync + 'static,
    {
        Self {
            sign: Arc::new(move |payload| Ok(sign(payload)?)),
            open: Arc::new(move |json| Ok(open(json)?)),
        }
    }
}

/// What the anchor covers and where it is kept.
#[derive(Debug)]
pub struct Ground {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The audit log.
    pub log: Arc<AuditLog>,
    /// What counts.
    pub counter: Arc<dyn Counter>,
    /// Signs heads.
    pub signing: Signing,
    /// Stamps them.
    pub clock: SharedClock,
    /// Where the head is.
    pub head: PathBuf,
    /// Where a copy of it is.
    pub witness: Option<PathBuf>,
    /// The store's incarnation.
    pub incarnation: Incarnation,
}

impl Ground {
    /// Puts the head out of use: if another copy of the store has the counter, this one must not
    /// start again by itself.
    pub(crate) fn disown(&self) {
        let aside = self.head.with_extension("forked.json");
        if let Err(error) = std::fs::rename(&self.head, &aside) {
            tracing::error!(%error, "the head of a forked store could not be put aside");
        }
    }

    /// Revision and audit size of the present state.
    pub(crate) async fn now_at(&self) -> Result<(u64, u64), AnchorFault> {
        Ok((self.store.state().await?.revision, self.log.tree_head().size))
    }

    pub(crate) async fn commit_at(
        &self,
        revision: Option<u64>,
    ) -> Result<Option<model::Digest>, AnchorFault> {
        match revision {
            Some(revision) => Ok(self.store.commit_at(revision).await?),
            None => Ok(None),
        }
    }

    pub(crate) async fn write(&self, counter: u64) -> Result<(u64, u64), AnchorFault> {
        let state = self.store.state().await?;
        let tree = self.log.tree_head();
        let covered = (state.revision, tree.size);
        let at = self.clock.unix_ms();
        let head = Head::new(&state, tree, counter, self.incarnation, at);
        let payload = head.to_payload().map_err(|e| AnchorFault::Sign(Box::new(e)))?;
        let json = (self.signing.sign)(payload).map_err(AnchorFault::Sign)?;
        fsfile::write_atomic(&self.head, &json, 0o644)?;
        if let Some(witness) = &self.witness {
            fsfile::write_atomic(witness, &json, 0o644)?;
        }
        Ok(covered)
    }

    /// The newest incarnation that the head or the witness speaks of.
    ///
    /// # Errors
    /// [`AnchorFault`].
    pub fn newest_incarnation(&self) -> Result<Incarnation, AnchorFault> {
        let (head, witness) = (self.load(&self.head)?, self.witnessed()?);
        let known = head.iter().chain(&witness).map(|head| head.incarnation);
        Ok(known.max().unwrap_or(Incarnation(0)))
    }

    /// The newest head that was left elsewhere.
    pub(crate) fn witnessed(&self) -> Result<Option<Head>, AnchorFault> {
        self.witness.as_ref().map_or(Ok(None), |path| self.load(path))
    }

    pub(crate) fn load(&self, path: &std::path::Path) -> Result<Option<Head>, AnchorFault> {
        let json = match fsfile::read_limited(path, MAX_HEAD) {
            Ok(json) => json,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let signed = (self.signing.open)(json).map_err(AnchorFault::Signature)?;
        Ok(Some(Head::from_payload(&signed)?))
    }
}
