//! What happened, written down before the answer leaves: typed events into the Merkle log.

use std::sync::Arc;

use attest::envelope::{Envelope, Kind, SoftwareKey};
use model::{AuditEntry, AuditEvent};
use serve::clock::SharedClock;
use store::audit::{AuditLog, Checkpoint};
use thiserror::Error;

use crate::refusal::Refusal;

/// The log's name in its checkpoints.
const LOG: &str = "vouchsafe-authority";

/// The audit log cannot be written: nothing may be answered.
#[derive(Debug, Error)]
pub(crate) enum AuditError {
    /// The log.
    #[error("the audit log cannot be written")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its checkpoint cannot be signed.
    #[error("the audit log's checkpoint cannot be signed")]
    Sign(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl AuditError {
    pub(crate) fn log(error: store::audit::AuditError) -> Self {
        Self::Log(Box::new(error))
    }
}

/// Who asked, as the log names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actor(pub(crate) String);

impl Actor {
    /// The authority itself.
    pub(crate) fn authority() -> Self {
        Self("authority".to_owned())
    }

    /// A caller without a certificate.
    pub(crate) fn anyone() -> Self {
        Self("anyone".to_owned())
    }

    /// A host, known by its session.
    pub(crate) fn host(host: &model::HostId) -> Self {
        Self(format!("host:{host}"))
    }

    /// Whether it is a host.
    pub(crate) fn is_host(&self) -> bool {
        self.0.starts_with("host:")
    }

    /// An operator.
    pub(crate) fn operator(name: &str) -> Self {
        Self(format!("operator:{name}"))
    }
}

/// Something that was done.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    /// What: the name of an event.
    pub(crate) event: &'static str,
    /// What it was about: `vm:v1`, `host:a`.
    pub(crate) subject: String,
    /// Facts for the reader.
    pub(crate) detail: String,
}

impl Done {
    /// An event about a subject.
    pub(crate) fn new(event: &'static str, subject: impl Into<String>) -> Self {
        Self { event, subject: subject.into(), detail: String::new() }
    }

    /// The same with facts for the reader.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// The audit log with the clock that stamps it.
#[derive(Clone, Debug)]
pub(crate) struct Auditor {
    log: Arc<AuditLog>,
    clock: SharedClock,
}

impl Auditor {
    /// Writes to `log`.
    pub(crate) const fn new(log: Arc<AuditLog>, clock: SharedClock) -> Self {
        Self { log, clock }
    }

    /// The log below.
    pub(crate) fn log(&self) -> &AuditLog {
        &self.log
    }

    /// Writes down something that was done; durable when it returns.
    ///
    /// # Errors
    /// [`AuditError`]: the answer must not leave.
    pub(crate) async fn done(&self, actor: &Actor, done: Done) -> Result<AuditEntry, AuditError> {
        let Done { event, subject, detail } = done;
        let at = self.clock.unix_ms();
        self.append(AuditEvent::done(at, actor.0.clone(), event, subject).detail(detail)).await
    }

    /// Writes down a refusal; durable when it returns.
    ///
    /// # Errors
    /// [`AuditError`]: the answer must not leave.
    pub(crate) async fn refused(
        &self,
        actor: &Actor,
        event: &str,
        subject: &str,
        refusal: &Refusal,
    ) -> Result<AuditEntry, AuditError> {
        let at = self.clock.unix_ms();
        let event = AuditEvent::refused(at, actor.0.clone(), event, subject, refusal.name.clone());
        self.append(event.detail(refusal.detail.clone()).hint(refusal.hint.clone())).await
    }

    /// Writes down an event as it is: for what hosts spooled.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(crate) async fn append(&self, event: AuditEvent) -> Result<AuditEntry, AuditError> {
        self.log.append(event).await.map_err(AuditError::log)
    }

    /// Signs the log's present head and keeps the envelope with the log.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(crate) async fn checkpoint(&self, signer: &SoftwareKey) -> Result<Envelope, AuditError> {
        let checkpoint = Checkpoint {
            log: LOG.to_owned(),
            tree: self.log.tree_head(),
            at: self.clock.unix_ms(),
        };
        let payload = checkpoint.to_payload().map_err(|e| AuditError::Sign(Box::new(e)))?;
        let envelope = Envelope::sign_bytes(Kind::Checkpoint, payload, &[signer])
            .map_err(|e| AuditError::Sign(Box::new(e)))?;
        let json = String::from_utf8(envelope.to_json());
        let json = json.map_err(|e| AuditError::Sign(Box::new(e)))?;
        self.log.record_checkpoint(&json).await.map_err(AuditError::log)?;
        Ok(envelope)
    }
}
