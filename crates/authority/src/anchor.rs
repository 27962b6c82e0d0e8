//! The store's head: signed, written, and counted by the TPM, so that an older copy of the state
//! directory refuses to start. The protocol is [`store::head`]'s; this file gives it a TPM, a
//! signature and a task.
//!
//! One task owns the anchor. It writes a head every `limits.anchor_ms` if anything changed, and at
//! once for those who wait ([`AnchorHandle::now`]): revocations, fences, deletions and changes of
//! policy are anchored before they are answered, everything else within the interval. Waiting
//! requests share a head, so that the TPM's counter moves at most once for each round.
//!
//! **Invariant:** if the counter is not where only this store can have moved it, the process stops
//! granting and ends with `store-forked`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use attest::envelope::{Envelope, EnvelopeRejection, Kind, Sign, SoftwareKey, TrustedKeys};
use model::Incarnation;
use serve::{clock::SharedClock, fsfile, shutdown::Shutdown};
use store::{
    Store, StoreError,
    audit::AuditLog,
    head::{self, Anchor, AnchorError, Found, Head, HeadParseError, HeadRejection, Step},
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use crate::tpmlink::{LinkError, TpmLink};

/// Longest signed head.
const MAX_HEAD: usize = 64 << 10;

/// Why a store may not start, or go on.
#[derive(Debug, Error)]
pub(crate) enum AnchorFault {
    /// The counter moved without this store.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fsfile::FileError),
    /// The head is not the newest.
    #[error(transparent)]
    Head(#[from] HeadRejection),
    /// The head's signature does not hold.
    #[error("the store's head is not signed by this authority")]
    Signature(#[from] EnvelopeRejection),
    /// The head could not be read or made.
    #[error("the store's head is malformed")]
    Parse(#[from] HeadParseError),
    /// The head could not be signed.
    #[error("the store's head cannot be signed")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task has ended.
    #[error("the store's anchor has stopped")]
    Stopped,
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] LinkError),
}

impl AnchorFault {
    /// The name of the refusal, if a rule said no: the process ends with exit status 3.
    pub(crate) const fn refusal(&self) -> Option<(&'static str, &'static str)> {
        const RESTORE: &str = "was the TPM replaced, or is another copy of this authority running? \
            `vouchsafe authority restore` begins a new incarnation";
        match self {
            Self::Head(rejection) => Some((rejection.name(), rejection.hint())),
            Self::Anchor(error) => Some((error.name(), RESTORE)),
            Self::Signature(_) | Self::Parse(_) => Some(("store-head-invalid", RESTORE)),
            Self::Tpm(LinkError::NoCounter) => Some(("store-anchor-missing", RESTORE)),
            Self::File(_) | Self::Sign(_) | Self::Store(_) | Self::Stopped | Self::Tpm(_) => None,
        }
    }
}

/// What the anchor covers and where it is kept.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The store.
    pub(crate) store: Arc<dyn Store>,
    /// The audit log.
    pub(crate) log: Arc<AuditLog>,
    /// The TPM that counts.
    pub(crate) tpm: TpmLink,
    /// Signs heads.
    pub(crate) signer: Arc<SoftwareKey>,
    /// Stamps them.
    pub(crate) clock: SharedClock,
    /// Where the head is.
    pub(crate) head: PathBuf,
    /// Where a copy of it is.
    pub(crate) witness: Option<PathBuf>,
    /// The store's incarnation.
    pub(crate) incarnation: Incarnation,
}

/// The anchor with its ground.
#[derive(Debug)]
pub(crate) struct Anchored {
    ground: Ground,
    anchor: Anchor,
    covered: (u64, u64),
    /// An increment was tried and its answer lost: the counter may have moved by our own hand.
    unsure: bool,
}

impl Anchored {
    /// The anchor of a new store. Only `init` calls this.
    ///
    /// # Errors
    /// [`AnchorFault`].
    pub(crate) async fn first(ground: Ground) -> Result<Self, AnchorFault> {
        let counter = ground.tpm.define_counter().await?;
        Self::open(ground, Anchor::first(counter)).await
    }

    /// The anchor of a store that exists, if it is the newest there is.
    ///
    /// # Errors
    /// [`AnchorFault`]; if [`AnchorFault::refusal`] has a name, the store may not start.
    pub(crate) async fn resume(ground: Ground) -> Result<Self, AnchorFault> {
        let anchored = ground.tpm.counter().await?;
        let head = ground.load(&ground.head)?;
        let witness = match &ground.witness {
            Some(path) => ground.load(path)?,
            None => None,
        };
        let state = ground.store.state().await?;
        let at = |head: Option<&Head>| head.map(|head| head.revision);
        let commit_at_head = ground.commit_at(at(head.as_ref())).await?;
        let commit_at_witness = ground.commit_at(at(witness.as_ref())).await?;
        let found = Found {
            state: &state,
            commit_at_head,
            commit_at_witness,
            audit_size: ground.log.tree_head().size,
            audit_root_at_head: head.as_ref().and_then(|h| ground.log.root_at(h.audit.size)),
        };
        let fresh = head::check(head.as_ref(), anchored, witness.as_ref(), &found)?;
        Self::open(ground, Anchor::resume(&fresh)).await
    }

    async fn open(ground: Ground, anchor: Anchor) -> Result<Self, AnchorFault> {
        let mut anchored = Self { ground, anchor, covered: (0, 0), unsure: false };
        anchored.finish().await?;
        Ok(anchored)
    }

    /// Writes a head of the present state and moves the counter, if anything has changed.
    ///
    /// # Errors
    /// [`AnchorFault`].
    pub(crate) async fn advance(&mut self) -> Result<(), AnchorFault> {
        // What an earlier round left open covers an earlier state.
        self.finish().await?;
        if self.covered == self.ground.now_at().await? {
            return Ok(());
        }
        self.anchor.begin();
        self.finish().await
    }

    async fn finish(&mut self) -> Result<(), AnchorFault> {
        while let Some(step) = self.anchor.pending() {
            match step {
                Step::WriteHead { counter } => {
                    // A value that someone else has taken must not be in a head of ours.
                    self.expect(counter).await?;
                    self.covered = self.ground.write(counter).await?;
                    self.anchor.wrote_head()?;
                }
                Step::Increment { expect } => self.increment(expect).await?,
            }
        }
        Ok(())
    }

    /// That `next` is the counter's next value.
    async fn expect(&self, next: u64) -> Result<(), AnchorFault> {
        let (found, expected) = (self.ground.tpm.counter().await?, next.saturating_sub(1));
        if found == expected { Ok(()) } else { Err(AnchorError::Forked { expected, found }.into()) }
    }

    async fn increment(&mut self, next: u64) -> Result<(), AnchorFault> {
        if self.unsure && self.ground.tpm.counter().await? == next {
            self.unsure = false;
            return Ok(self.anchor.incremented(next)?);
        }
        self.expect(next).await?;
        self.unsure = true;
        let found = self.ground.tpm.increment().await?;
        self.unsure = false;
        Ok(self.anchor.incremented(found)?)
    }

    /// Starts the task that owns the anchor from now on. A refusal ends the process.
    pub(crate) fn spawn(
        self,
        every: Duration,
        shutdown: Shutdown,
    ) -> (AnchorHandle, tokio::task::JoinHandle<Result<(), AnchorFault>>) {
        let (requests, queue) = mpsc::channel(256);
        let (tell, counter) = watch::channel(self.anchor.counter());
        let task = tokio::spawn(self.run(every, queue, tell, shutdown));
        (AnchorHandle { requests, counter }, task)
    }

    async fn run(
        mut self,
        every: Duration,
        mut queue: mpsc::Receiver<oneshot::Sender<()>>,
        tell: watch::Sender<u64>,
        shutdown: Shutdown,
    ) -> Result<(), AnchorFault> {
        loop {
            let mut waiting = Vec::new();
            let go_on = tokio::select! {
                request = queue.recv() => { waiting.extend(request); !waiting.is_empty() }
                () = tokio::time::sleep(every) => true,
            };
            while let Ok(request) = queue.try_recv() {
                waiting.push(request);
            }
            match self.advance().await {
                Ok(()) => {
                    tell.send_replace(self.anchor.counter());
                    for request in waiting {
                        // The one who asked may have stopped waiting.
                        let _ = request.send(());
                    }
                }
                Err(fault) if fault.refusal().is_some() => {
                    shutdown.trigger();
                    if matches!(fault, AnchorFault::Anchor(_)) {
                        self.ground.disown();
                    }
                    return Err(fault);
                }
                Err(fault) => {
                    tracing::error!(error = serve::exit::chain(&fault), "cannot anchor the store");
                }
            }
            if !go_on {
                return Ok(());
            }
        }
    }
}

impl Ground {
    /// Puts the head out of use: if another copy of the store has the counter, this one must not
    /// start again by itself.
    fn disown(&self) {
        let aside = self.head.with_extension("forked.json");
        if let Err(error) = std::fs::rename(&self.head, &aside) {
            tracing::error!(%error, "the head of a forked store could not be put aside");
        }
    }

    /// Revision and audit size of the present state.
    async fn now_at(&self) -> Result<(u64, u64), AnchorFault> {
        Ok((self.store.state().await?.revision, self.log.tree_head().size))
    }

    async fn commit_at(&self, revision: Option<u64>) -> Result<Option<model::Digest>, AnchorFault> {
        match revision {
            Some(revision) => Ok(self.store.commit_at(revision).await?),
            None => Ok(None),
        }
    }

    async fn write(&self, counter: u64) -> Result<(u64, u64), AnchorFault> {
        let state = self.store.state().await?;
        let tree = self.log.tree_head();
        let covered = (state.revision, tree.size);
        let at = self.clock.unix_ms();
        let head = Head::new(&state, tree, counter, self.incarnation, at);
        let payload = head.to_payload().map_err(|e| AnchorFault::Sign(Box::new(e)))?;
        let signer: &dyn Sign = &*self.signer;
        let envelope = Envelope::sign_bytes(Kind::Checkpoint, payload, &[signer])
            .map_err(|e| AnchorFault::Sign(Box::new(e)))?;
        let json = envelope.to_json();
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
    pub(crate) fn newest_incarnation(&self) -> Result<Incarnation, AnchorFault> {
        let head = self.load(&self.head)?;
        let witness = match &self.witness {
            Some(path) => self.load(path)?,
            None => None,
        };
        let known = head.iter().chain(&witness).map(|head| head.incarnation);
        Ok(known.max().unwrap_or(Incarnation(0)))
    }

    fn load(&self, path: &std::path::Path) -> Result<Option<Head>, AnchorFault> {
        let json = match fsfile::read_limited(path, MAX_HEAD) {
            Ok(json) => json,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let keys =
            TrustedKeys::new([self.signer.spki()]).map_err(|e| AnchorFault::Sign(Box::new(e)))?;
        let signed = Envelope::parse(&json)?.verify_bytes(&keys, Kind::Checkpoint, 1)?;
        Ok(Some(Head::from_payload(&signed)?))
    }
}

/// Asks the anchor's task.
#[derive(Clone, Debug)]
pub(crate) struct AnchorHandle {
    requests: mpsc::Sender<oneshot::Sender<()>>,
    counter: watch::Receiver<u64>,
}

impl AnchorHandle {
    /// Waits until everything that is committed now is anchored.
    ///
    /// # Errors
    /// [`AnchorFault::Stopped`] if it cannot be.
    pub(crate) async fn now(&self) -> Result<(), AnchorFault> {
        let (done, answer) = oneshot::channel();
        self.requests.send(done).await.map_err(|_| AnchorFault::Stopped)?;
        answer.await.map_err(|_| AnchorFault::Stopped)
    }

    /// The TPM counter's value.
    pub(crate) fn counter(&self) -> u64 {
        *self.counter.borrow()
    }
}
