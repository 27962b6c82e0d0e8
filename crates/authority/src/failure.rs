//! What a handler answers instead of a result: a rule said no, or something failed.

use std::error::Error;

use axum::response::{IntoResponse, Response};
use serve::problem::Problem;

use crate::refusal::{Refusal, Rejection};

/// The other end of a handler.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A rule said no.
    Refused(Box<Refused>),
    /// It could not be decided; the cause goes to the log.
    Broken(Box<dyn Error + Send + Sync>),
}

/// A refusal, and what it was about if the path does not say it.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// The refusal.
    pub(crate) refusal: Refusal,
    /// `vm:v1`, `host:a`.
    pub(crate) subject: Option<String>,
    /// It is in the audit log already.
    pub(crate) noted: bool,
}

impl Failure {
    /// A refusal.
    pub(crate) fn refused(refusal: impl Into<Refusal>) -> Self {
        let refusal = refusal.into();
        Self::Refused(Box::new(Refused { refusal, subject: None, noted: false }))
    }

    /// Something that must not happen.
    pub(crate) fn broken(what: &'static str) -> Self {
        Self::Broken(what.into())
    }

    /// The same about this subject.
    pub(crate) fn about(self, name: impl Into<String>) -> Self {
        match self {
            Self::Refused(mut refused) => {
                refused.subject = Some(name.into());
                Self::Refused(refused)
            }
            Self::Broken(cause) => Self::Broken(cause),
        }
    }

    /// The same, audited before.
    pub(crate) fn noted(self) -> Self {
        match self {
            Self::Refused(mut refused) => {
                refused.noted = true;
                Self::Refused(refused)
            }
            Self::Broken(cause) => Self::Broken(cause),
        }
    }
}

impl<R: Rejection> From<R> for Failure {
    fn from(rejection: R) -> Self {
        Self::refused(rejection)
    }
}

macro_rules! broken {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Broken(Box::new(error))
            }
        })*
    };
}

broken!(
    anchor::AnchorFault,
    attest::envelope::EnvelopeRejection,
    attest::envelope::SigningError,
    crate::audit::AuditError,
    crate::grant::GrantError,
    crate::keyring::KeyringError,
    crate::records::RecordError,
    crate::reference::ReferenceError,
    crate::vmkey::KeyError,
    serde_json::Error,
    std::io::Error,
    serve::fsfile::FileError,
    serve::pem::PemError,
    serve::random::RandomError,
    store::StoreError,
    tokio::task::JoinError,
    tpm::TpmError,
);

/// Carries the failure to [`crate::routes::gate`], which audits it and writes the answer.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refused) => {
                let mut response = refused.refusal.closed_problem().into_response();
                response.extensions_mut().insert(*refused);
                response
            }
            Self::Broken(cause) => {
                let error = serve::exit::chain(&*cause);
                tracing::error!(error, "a request could not be served");
                Problem::internal().into_response()
            }
        }
    }
}
