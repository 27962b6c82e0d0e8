//! What happened, in the audit log before the answer leaves. Refusals are bounded by kind, so that
//! a flood fills neither log nor disk: what is over is counted and said with the next one.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use attest::envelope::{Envelope, Kind, SoftwareKey};
use model::AuditEvent;
use serve::{clock::SharedClock, flood::Noise, fsfile, pem};
use store::{
    audit::{AuditLog, Checkpoint},
    wait,
};

use super::refusal::{Fault, Refusal};

/// The log's name in its checkpoints.
const LOG: &str = "vouchsafe-trust";

/// The audit log with the clock that stamps it and the key that signs its checkpoints.
#[derive(Debug)]
pub(crate) struct Journal {
    log: Arc<AuditLog>,
    clock: SharedClock,
    signer: SoftwareKey,
    noise: Mutex<Noise>,
    signed: Mutex<Option<u64>>,
}

impl Journal {
    /// Opens the log in `dir`.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub(crate) fn open(
        dir: &Path,
        clock: SharedClock,
        signer: SoftwareKey,
        refusals_per_minute: u32,
    ) -> Result<Self, Fault> {
        let (log, recovery) = AuditLog::open(dir, clock.unix_ms()).map_err(Fault::audit)?;
        if recovery.kept > 0 || recovery.dropped > 0 {
            tracing::warn!(kept = recovery.kept, dropped = recovery.dropped, "audit log repaired");
        }
        Ok(Self {
            log: Arc::new(log),
            clock,
            signer,
            noise: Mutex::new(Noise::new(refusals_per_minute)),
            signed: Mutex::new(None),
        })
    }

    /// How many entries there are.
    pub(crate) fn size(&self) -> u64 {
        self.log.tree_head().size
    }

    /// Writes down something that was done; durable when it returns.
    ///
    /// # Errors
    /// [`Fault::Audit`]: the answer must not leave.
    pub(crate) fn done(
        &self,
        actor: &str,
        event: &str,
        subject: &str,
        detail: &str,
    ) -> Result<(), Fault> {
        let event = AuditEvent::done(self.clock.unix_ms(), actor, event, subject).detail(detail);
        self.append(event)
    }

    /// Writes down a rule's no, or counts it if there are too many; durable when it returns.
    ///
    /// # Errors
    /// [`Fault::Audit`]: the answer must not leave.
    pub(crate) fn refused(
        &self,
        actor: &str,
        event: &str,
        subject: &str,
        refusal: Refusal,
    ) -> Result<(), Fault> {
        self.named(actor, event, subject, (refusal.name(), refusal.hint()))
    }

    /// As [`Journal::refused`], for a name that another process gave.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub(crate) fn named(
        &self,
        actor: &str,
        event: &str,
        subject: &str,
        (name, hint): (&str, &str),
    ) -> Result<(), Fault> {
        let now = self.clock.unix_ms();
        let heard = self.noise.lock().unwrap_or_else(PoisonError::into_inner).heard(name, now);
        let Some(detail) = heard else { return Ok(()) };
        let event = AuditEvent::refused(now, actor, event, subject, name);
        self.append(event.detail(detail).hint(hint))
    }

    fn append(&self, event: AuditEvent) -> Result<(), Fault> {
        wait(self.log.append(event)).map(drop).map_err(Fault::audit)
    }

    /// Signs the log's present head if it has grown, and keeps the envelope with the log.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub(crate) fn checkpoint(&self) -> Result<(), Fault> {
        let tree = self.log.tree_head();
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if *signed == Some(tree.size) {
            return Ok(());
        }
        let size = tree.size;
        let checkpoint = Checkpoint { log: LOG.to_owned(), tree, at: self.clock.unix_ms() };
        let payload = checkpoint.to_payload().map_err(Fault::audit)?;
        let envelope = Envelope::sign_bytes(Kind::Checkpoint, payload, &[&self.signer])
            .map_err(Fault::audit)?;
        let json = String::from_utf8(envelope.to_json()).map_err(Fault::audit)?;
        wait(self.log.record_checkpoint(&json)).map_err(Fault::audit)?;
        *signed = Some(size);
        Ok(())
    }

    /// Writes out what there is, with a fresh checkpoint and the key that signs it, into `dir`; how
    /// many entries.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub(crate) fn export(&self, dir: &Path) -> Result<u64, Fault> {
        fsfile::create_private_dir(dir).map_err(Fault::audit)?;
        self.checkpoint()?;
        let size = self.signed.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(0);
        let (entries, checkpoint) = (dir.join("audit.jsonl"), dir.join("audit.checkpoint"));
        self.log.export(size, &entries, &checkpoint).map_err(Fault::audit)?;
        let key = pem::encode("PUBLIC KEY", self.signer.spki()).map_err(Fault::audit)?;
        fsfile::write_atomic(&dir.join("audit-key.pem"), key.as_bytes(), 0o600)
            .map_err(Fault::audit)?;
        Ok(size)
    }

    /// Closes the log: nothing is written after it.
    pub(crate) fn close(&self) {
        wait(self.log.close());
    }
}
