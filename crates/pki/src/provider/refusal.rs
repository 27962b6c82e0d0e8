//! Why a provider's request failed.

use std::error::Error;

use thiserror::Error;

use super::{LedgerError, TransportError};
use crate::{CertRejection, IssueError};

/// A provider said no, or could not say.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// What it answered must not be believed or used.
    #[error("the provider's answer is not accepted")]
    Answer(#[source] AnswerRejection),
    /// The id was used for another request before.
    #[error("the request's id was used for another request")]
    IdReused,
    /// The certificate cannot be issued as it was asked for.
    #[error("the certificate cannot be issued")]
    Issue(#[source] IssueError),
    /// The certificate that is to be renewed or revoked is not one of this provider.
    #[error("the certificate is not one of this provider")]
    NotOurs(#[source] CertRejection),
    /// The answer was lost, and asking again could lead to a second certificate. The provider's
    /// operator knows what became of it.
    #[error("what became of the request is not known, and it is not repeated")]
    OutcomeUnknown,
    /// The provider said no.
    #[error("the provider refused the request: {0}")]
    Refused(String),
    /// The certificate that is to be renewed was revoked.
    #[error("the certificate was revoked")]
    Revoked,
    /// It took longer than allowed; what became of it is not known.
    #[error("the provider did not answer in time")]
    TimedOut,
    /// The provider, its token or the record of its requests cannot be used now; the request may be
    /// repeated.
    #[error("the provider is not available")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The provider knows no request with this id.
    #[error("the provider knows no such request")]
    UnknownRequest,
    /// This provider cannot do what is asked.
    #[error("this provider cannot do that: {0}")]
    Unsupported(&'static str),
}

impl ProviderError {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Answer(rejection) => rejection.code(),
            Self::IdReused => "provider-id-reused",
            Self::Issue(_) => "provider-issue",
            Self::NotOurs(_) => "provider-not-ours",
            Self::OutcomeUnknown => "provider-outcome-unknown",
            Self::Refused(_) => "provider-refused",
            Self::Revoked => "provider-revoked",
            Self::TimedOut => "provider-timed-out",
            Self::Unavailable(_) => "provider-unavailable",
            Self::UnknownRequest => "provider-unknown-request",
            Self::Unsupported(_) => "provider-unsupported",
        }
    }
}

impl From<LedgerError> for ProviderError {
    fn from(error: LedgerError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

impl From<TransportError> for ProviderError {
    fn from(error: TransportError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

impl From<AnswerRejection> for ProviderError {
    fn from(rejection: AnswerRejection) -> Self {
        Self::Answer(rejection)
    }
}

/// The rule that a provider's answer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AnswerRejection {
    /// The certificate is for another key, or is a CA's.
    #[error("the certificate is not the one that was asked for")]
    Certificate,
    /// It cannot be read.
    #[error("the answer is malformed")]
    Malformed,
    /// It does not repeat the nonce of the message that it answers, or has none.
    #[error("the answer has another nonce")]
    Nonce,
    /// It is not protected, or its protection does not verify.
    #[error("the answer's protection does not verify")]
    Protection,
    /// Its signer is not proven by a path to an anchor of this provider.
    #[error("the answer's signer is not proven")]
    Signer,
    /// It is longer than is read.
    #[error("the answer is too large")]
    TooLarge,
    /// It belongs to another transaction.
    #[error("the answer belongs to another transaction")]
    Transaction,
    /// It is an answer to something else.
    #[error("the answer does not fit the request")]
    Unexpected,
}

impl AnswerRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Certificate => "provider-answer-certificate",
            Self::Malformed => "provider-answer-malformed",
            Self::Nonce => "provider-answer-nonce",
            Self::Protection => "provider-answer-protection",
            Self::Signer => "provider-answer-signer",
            Self::TooLarge => "provider-answer-too-large",
            Self::Transaction => "provider-answer-transaction",
            Self::Unexpected => "provider-answer-unexpected",
        }
    }
}
