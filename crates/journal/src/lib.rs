//! What happened, in the audit log before the answer leaves, and the form of refusals
//! ([`refusals`]): for services that keep a log of their own (trust service, key-management centre).
//! Refusals are bounded by kind, so that a flood fills
//! neither log nor disk: what is over is counted and said with the next one.

#![forbid(unsafe_code)]

mod refusal;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use model::AuditEvent;
use serve::{clock::SharedClock, flood::Noise, fsfile, pem};
use store::{
    audit::{AuditLog, Checkpoint},
    wait,
};

use thiserror::Error;

/// The log cannot be written: nothing may be answered.
#[derive(Debug, Error)]
#[error("the audit log cannot be written")]
pub struct JournalError(#[source] Box<dyn std::error::Error + Send + Sync>);

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> JournalError {
    JournalError(Box::new(error))
}

/// Signs checkpoints.
pub struct Signer {
    spki: Vec<u8>,
    sign: Box<Sign>,
}

type Sign =
    dyn Fn(Vec<u8>) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> + Send + Sync;

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs with the key whose public half (SubjectPublicKeyInfo, DER) is `spki`: `sign` makes a
    /// DSSE envelope, JSON, of kind `checkpoint` from a payload.
    pub fn new<E: std::error::Error + Send + Sync + 'static>(
        spki: Vec<u8>,
        sign: impl Fn(Vec<u8>) -> Result<Vec<u8>, E> + Send + Sync + 'static,
    ) -> Self {
        Self { spki, sign: Box::new(move |payload| Ok(sign(payload)?)) }
    }
}

/// Why certificates are not valid without anybody having done anything wrong.
const ORDINARY: [&str; 5] = [
    "certificate-expired",
    "certificate-not-yet-valid",
    "certificate-revoked",
    "instant-in-the-future",
    "knowledge-too-old",
];
/// What an operator can do about any other.
const JUDGED: &str = "the answer said Invalid or Indeterminate; docs/protocols/pki.md has the name";

/// The audit log with the clock that stamps it and the key that signs its checkpoints.
#[derive(Debug)]
pub struct Journal {
    name: &'static str,
    log: Arc<AuditLog>,
    clock: SharedClock,
    signer: Signer,
    noise: Mutex<Noise>,
    /// Entries under the last checkpoint.
    signed: Mutex<u64>,
}

impl Journal {
    /// Opens the log in `dir`. Its checkpoints call it `name`; of each refusal so many are written
    /// down in a minute.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(
        name: &'static str,
        dir: &Path,
        clock: SharedClock,
        (signer, refusals_per_minute): (Signer, u32),
    ) -> Result<Self, JournalError> {
        let (log, recovery) = AuditLog::open(dir, clock.unix_ms()).map_err(failed)?;
        if recovery.kept > 0 || recovery.dropped > 0 {
            tracing::warn!(kept = recovery.kept, dropped = recovery.dropped, "audit log repaired");
        }
        let noise = Mutex::new(Noise::new(refusals_per_minute));
        let log = Arc::new(log);
        Ok(Self { name, log, clock, signer, noise, signed: Mutex::new(0) })
    }

    /// The log, for what covers it.
    #[must_use]
    pub fn log(&self) -> Arc<AuditLog> {
        Arc::clone(&self.log)
    }

    /// How many entries there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.log.tree_head().size
    }

    /// Writes down something that was done; durable when it returns.
    ///
    /// # Errors
    /// [`JournalError`]: it must not be seen.
    pub fn done(
        &self,
        actor: &str,
        event: &str,
        subject: &str,
        detail: &str,
    ) -> Result<(), JournalError> {
        let event = AuditEvent::done(self.clock.unix_ms(), actor, event, subject);
        wait(self.log.append(event.detail(detail))).map(drop).map_err(failed)
    }

    /// Writes down a rule's no, by its name and hint, or counts it if there are too many.
    ///
    /// # Errors
    /// [`JournalError`]: the answer must not leave.
    pub fn refused(
        &self,
        actor: &str,
        event: &str,
        subject: &str,
        (name, hint): (&str, &str),
    ) -> Result<(), JournalError> {
        let now = self.clock.unix_ms();
        let heard = self.noise.lock().unwrap_or_else(PoisonError::into_inner).heard(name, now);
        let Some(detail) = heard else { return Ok(()) };
        let event = AuditEvent::refused(now, actor, event, subject, name).detail(detail).hint(hint);
        wait(self.log.append(event)).map(drop).map_err(failed)
    }

    /// Writes down that a certificate that was asked about was not found valid, by the name of what
    /// was wrong, bounded like refusals: an attempt on whoever asked is seen then. What befalls every
    /// certificate in its time is left out.
    ///
    /// # Errors
    /// [`JournalError`]: the answer must not leave.
    pub fn judged(
        &self,
        actor: &str,
        event: &str,
        subject: &str,
        found: &str,
    ) -> Result<(), JournalError> {
        if ORDINARY.contains(&found) {
            return Ok(());
        }
        self.refused(actor, event, subject, (found, JUDGED))
    }

    /// Signs the log's present head if it has grown, and keeps the envelope with the log; how many
    /// entries are under it.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn checkpoint(&self) -> Result<u64, JournalError> {
        let tree = self.log.tree_head();
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if *signed < tree.size {
            let at = self.clock.unix_ms();
            let payload = Checkpoint { log: self.name.to_owned(), tree, at }.to_payload();
            let envelope = (self.signer.sign)(payload.map_err(failed)?).map_err(JournalError)?;
            let json = String::from_utf8(envelope).map_err(failed)?;
            wait(self.log.record_checkpoint(&json)).map_err(failed)?;
            *signed = tree.size;
        }
        Ok(*signed)
    }

    /// Writes out what there is, with a fresh checkpoint and the key that signs it, into `dir`; how
    /// many entries.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn export(&self, dir: &Path) -> Result<u64, JournalError> {
        fsfile::create_private_dir(dir).map_err(failed)?;
        let size = self.checkpoint()?;
        let (entries, checkpoint) = (dir.join("audit.jsonl"), dir.join("audit.checkpoint"));
        self.log.export(size, &entries, &checkpoint).map_err(failed)?;
        let key = pem::encode("PUBLIC KEY", &self.signer.spki).map_err(failed)?;
        fsfile::write_atomic(&dir.join("audit-key.pem"), key.as_bytes(), 0o600).map_err(failed)?;
        Ok(size)
    }

    /// Closes the log: nothing is written after it.
    pub fn close(&self) {
        wait(self.log.close());
    }
}

#[cfg(test)]
mod tests {
    use serve::{clock::SystemClock, keys::SigningKey};

    use super::*;

    #[test]
    fn what_was_judged_is_written_down_unless_it_is_ordinary() {
        let dir = tempfile::tempdir().unwrap();
        let spki = SigningKey::generate().unwrap().spki().to_vec();
        let signer = Signer::new(spki, |_| Ok::<_, std::fmt::Error>(b"{}".to_vec()));
        let journal =
            Journal::open("test", dir.path(), SystemClock::shared(), (signer, 2)).unwrap();
        for ordinary in ORDINARY {
            journal.judged("a", "asked", "b", ordinary).unwrap();
        }
        assert_eq!(journal.size(), 0);
        for _ in 0..10 {
            journal.judged("a", "asked", "b", "crl-rolled-back").unwrap();
        }
        assert_eq!(journal.size(), 3, "two, and that there are too many");
        journal.close();
    }

    #[test]
    fn what_is_exported_is_under_a_checkpoint_and_repeats_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let spki = SigningKey::generate().unwrap().spki().to_vec();
        let signer = Signer::new(spki, |_| Ok::<_, std::fmt::Error>(b"{}".to_vec()));
        let log = dir.path().join("log");
        let journal = Journal::open("test", &log, SystemClock::shared(), (signer, 2)).unwrap();
        journal.done("a", "began", "b", "").unwrap();
        for _ in 0..10 {
            journal.refused("a", "tried", "b", ("no-such-thing", "look")).unwrap();
        }
        let out = dir.path().join("out");
        let size = journal.export(&out).unwrap();
        assert_eq!(size, journal.size());
        assert_eq!(size, 4, "one that was done, two refusals, and that there are too many");
        for name in ["audit.jsonl", "audit.checkpoint", "audit-key.pem"] {
            assert!(out.join(name).metadata().unwrap().len() > 0);
        }
        journal.close();
    }
}
