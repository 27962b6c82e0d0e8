//! Providers: PKIs that certify for us, behind one trait, and the job that drives a request to its
//! end.
//!
//! ```text
//! new --submit--> accepted --poll--> done
//!  |  unavailable    |  unavailable or pending: again later, twice as late each time
//!  +-----------------+--> refused (for good) | timed out
//! ```
//! **Invariant:** a request is known by its [`RequestId`], which the caller stores before the first
//! try. Whatever was lost on the way, asking again under the same id leads to the same certificate
//! and never to a second one.

mod own;

use std::time::Duration;

use thiserror::Error;
use time::OffsetDateTime;

pub use own::{Ledger, LedgerEntry, LedgerError, OwnCa};

use crate::{CertRejection, IssueError, Profile, RevocationReason, Validity};

/// What a request is known by: random, chosen by the caller, never used for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub [u8; 16]);

/// Asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// What is to be in it. The caller knows that the subject may have it.
    pub profile: Profile,
    /// The key (SubjectPublicKeyInfo, DER). The caller knows that the subject holds it.
    pub spki: Vec<u8>,
    /// When it is to be valid.
    pub validity: Validity,
}

/// Asks for a new certificate for the key of an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The old certificate, DER.
    pub certificate: Vec<u8>,
    /// What is to be in the new one.
    pub profile: Profile,
    /// When it is to be valid.
    pub validity: Validity,
}

/// Asks that a certificate be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationAsk {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Why.
    pub reason: RevocationReason,
}

/// Any of the three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A certificate.
    Enrol(Enrolment),
    /// A new certificate for the same key.
    Renew(Renewal),
    /// A revocation.
    Revoke(RevocationAsk),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A certificate and those of the CAs above it but the root, each DER.
    Issued {
        /// The certificate.
        certificate: Vec<u8>,
        /// The CAs, nearest first.
        chain: Vec<Vec<u8>>,
    },
    /// It was revoked at this moment.
    Revoked(OffsetDateTime),
}

/// How far a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// At its end.
    Done(Outcome),
    /// The provider has it and is not done.
    Pending,
}

/// A provider said no, or could not say.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// The id was used for another request before.
    #[error("the request's id was used for another request")]
    IdReused,
    /// The certificate cannot be issued as it was asked for.
    #[error("the certificate cannot be issued")]
    Issue(#[source] IssueError),
    /// The certificate that is to be renewed or revoked is not one of this provider.
    #[error("the certificate is not one of this provider")]
    NotOurs(#[source] CertRejection),
    /// The certificate that is to be renewed was revoked.
    #[error("the certificate was revoked")]
    Revoked,
    /// It took longer than allowed; what became of it is not known.
    #[error("the provider did not answer in time")]
    TimedOut,
    /// The provider cannot be asked now; the request may be repeated.
    #[error("the provider is not available")]
    Unavailable(#[source] LedgerError),
    /// The provider knows no request with this id.
    #[error("the provider knows no such request")]
    UnknownRequest,
}

impl ProviderError {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::IdReused => "provider-id-reused",
            Self::Issue(_) => "provider-issue",
            Self::NotOurs(_) => "provider-not-ours",
            Self::Revoked => "provider-revoked",
            Self::TimedOut => "provider-timed-out",
            Self::Unavailable(_) => "provider-unavailable",
            Self::UnknownRequest => "provider-unknown-request",
        }
    }
}

/// A PKI that certifies for us. Each call may be repeated: the id makes it one request.
pub trait Provider {
    /// Asks for a certificate.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn enrol(
        &self,
        id: RequestId,
        ask: &Enrolment,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError>;

    /// Asks for a new certificate for the key of an old one.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn renew(
        &self,
        id: RequestId,
        ask: &Renewal,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError>;

    /// Asks that a certificate be revoked. One that is revoked stays so, with its first date.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn revoke(
        &self,
        id: RequestId,
        ask: &RevocationAsk,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError>;

    /// How far a request is.
    ///
    /// # Errors
    /// [`ProviderError::UnknownRequest`] if it never arrived.
    fn poll(&self, id: RequestId, now: OffsetDateTime) -> Result<Progress, ProviderError>;
}

/// How long to wait for a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// In all.
    pub total: Duration,
    /// Before the second try; each further wait is twice as long.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

/// What to do next about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is done.
    Done(Outcome),
    /// Call again then.
    Wait(OffsetDateTime),
}

/// A request on its way: bookkeeping without a clock or a socket. After a restart a new job with
/// the same id and request takes it up where it was.
#[derive(Clone, Debug)]
pub struct Job {
    id: RequestId,
    patience: Patience,
    deadline: OffsetDateTime,
    wait: Duration,
    accepted: bool,
}

impl Job {
    /// A job that begins at `now`.
    #[must_use]
    pub fn new(id: RequestId, patience: Patience, now: OffsetDateTime) -> Self {
        let deadline = later(now, patience.total);
        Self { id, patience, deadline, wait: patience.first, accepted: false }
    }

    /// Submits the request, or asks what became of it.
    ///
    /// # Errors
    /// [`ProviderError`] ends the job, [`ProviderError::TimedOut`] if the time is over.
    pub fn advance(
        &mut self,
        provider: &dyn Provider,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Step, ProviderError> {
        if now > self.deadline {
            return Err(ProviderError::TimedOut);
        }
        let progress = if self.accepted {
            provider.poll(self.id, now)
        } else {
            submit(provider, self.id, ask, now)
        };
        match progress {
            Ok(Progress::Done(outcome)) => return Ok(Step::Done(outcome)),
            Ok(Progress::Pending) => self.accepted = true,
            Err(ProviderError::Unavailable(_)) => {}
            // It lost what it had accepted: the same id makes it the same request.
            Err(ProviderError::UnknownRequest) if self.accepted => self.accepted = false,
            Err(error) => return Err(error),
        }
        let at = later(now, self.wait).min(self.deadline);
        self.wait = self.wait.saturating_mul(2).min(self.patience.most);
        Ok(Step::Wait(at))
    }
}

fn submit(
    provider: &dyn Provider,
    id: RequestId,
    ask: &Ask,
    now: OffsetDateTime,
) -> Result<Progress, ProviderError> {
    match ask {
        Ask::Enrol(ask) => provider.enrol(id, ask, now),
        Ask::Renew(ask) => provider.renew(id, ask, now),
        Ask::Revoke(ask) => provider.revoke(id, ask, now),
    }
}

fn later(now: OffsetDateTime, wait: Duration) -> OffsetDateTime {
    now.saturating_add(time::Duration::try_from(wait).unwrap_or(time::Duration::MAX))
}
