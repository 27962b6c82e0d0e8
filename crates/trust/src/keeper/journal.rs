//! The keeper's audit log: [`journal::Journal`], in the keeper's words.

use std::{path::Path, sync::Arc};

use attest::envelope::{SoftwareKey, checkpoints};
use journal::Signer;
use serve::clock::SharedClock;
use store::audit::AuditLog;

use super::refusal::{Fault, Refusal};

/// The log's name in its checkpoints.
const LOG: &str = "vouchsafe-trust";

/// The audit log with the clock that stamps it and the key that signs its checkpoints.
#[derive(Debug)]
pub(crate) struct Journal(journal::Journal);

impl Journal {
    /// Opens the log in `dir`.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub(crate) fn open(
        dir: &Path,
        clock: SharedClock,
        signer: Arc<SoftwareKey>,
        refusals_per_minute: u32,
    ) -> Result<Self, Fault> {
        let signer = Signer::new(signer.spki().to_vec(), checkpoints(signer));
        let log = journal::Journal::open(LOG, dir, clock, (signer, refusals_per_minute));
        log.map(Self).map_err(Fault::audit)
    }

    /// The log, for what covers it.
    pub(crate) fn log(&self) -> Arc<AuditLog> {
        self.0.log()
    }

    /// How many entries there are.
    pub(crate) fn size(&self) -> u64 {
        self.0.size()
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
        self.0.done(actor, event, subject, detail).map_err(Fault::audit)
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

    /// Writes down what a certificate was judged for, if it is worth it.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub(crate) fn judged(
        &self,
        actor: &str,
        event: &str,
        subject: &str,
        found: &str,
    ) -> Result<(), Fault> {
        self.0.judged(actor, event, subject, found).map_err(Fault::audit)
    }

    /// As [`Journal::refused`], for a name that another crate or process gave.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub(crate) fn named(
        &self,
        actor: &str,
        event: &str,
        subject: &str,
        rule: (&str, &str),
    ) -> Result<(), Fault> {
        self.0.refused(actor, event, subject, rule).map_err(Fault::audit)
    }

    /// Signs the log's present head if it has grown, and keeps the envelope with the log.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub(crate) fn checkpoint(&self) -> Result<(), Fault> {
        self.0.checkpoint().map(drop).map_err(Fault::audit)
    }

    /// Writes out what there is, with a fresh checkpoint and the key that signs it, into `dir`; how
    /// many entries.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub(crate) fn export(&self, dir: &Path) -> Result<u64, Fault> {
        self.0.export(dir).map_err(Fault::audit)
    }

    /// Closes the log: nothing is written after it.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}
