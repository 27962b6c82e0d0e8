//! Why something the agent set out to do was not done: a rule said no, it could not be done, or the
//! authority is away and it may be tried again.

use serve::{client::CallError, exit::chain};

use crate::vm::step::Reason;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In words, with the refusal's name if it is one.
    pub(crate) reason: Reason,
    /// The authority cannot be reached, or has given us no session: try again later.
    pub(crate) away: bool,
    /// The agent itself refused, so the authority's audit log does not know of it yet.
    pub(crate) ours: bool,
}

impl Trouble {
    /// It could not be done.
    pub(crate) fn failed(detail: impl Into<String>) -> Self {
        Self { reason: Reason::failed(detail, ""), away: false, ours: false }
    }

    /// A rule of the agent said no.
    pub(crate) fn refused(
        name: impl Into<String>,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { reason: Reason::refused(name, detail, hint), away: false, ours: true }
    }

    /// The authority cannot be asked now.
    pub(crate) fn away(detail: impl Into<String>) -> Self {
        let hint = "the agent tries again by itself";
        Self { reason: Reason::failed(detail, hint), away: true, ours: false }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(name) = &self.reason.refused {
            write!(f, "{name}: ")?;
        }
        f.write_str(&self.reason.detail)
    }
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        if error.is_away() {
            return Self::away(chain(&error));
        }
        let Some(problem) = error.problem() else { return Self::failed(chain(&error)) };
        let detail = problem.detail.clone().unwrap_or_else(|| problem.title.clone());
        let hint = problem.hint.clone().unwrap_or_default();
        if problem.is_refusal() {
            let reason = Reason::refused(problem.name.clone(), detail, hint);
            return Self { reason, away: false, ours: false };
        }
        // Overloaded or restarting: nothing was decided.
        let later = problem.status == 429 || problem.status >= 500;
        Self {
            reason: Reason::failed(format!("{}: {detail}", problem.name), hint),
            away: later,
            ours: false,
        }
    }
}

macro_rules! failure {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for Trouble {
            fn from(error: $error) -> Self {
                Self::failed(chain(&error))
            }
        }
    )+};
}

failure!(
    crate::child::AskError,
    crate::plan::PlanError,
    crate::process::StartError,
    crate::qmp::QmpError,
    serve::fsfile::FileError,
    serve::hpke::HpkeError,
    serve::keys::KeyError,
    serve::pem::PemError,
    serve::process::ProcessError,
    serve::process::SpawnError,
    serve::random::RandomError,
    serve::client::ClientError,
    tpm::TpmError,
    serde_json::Error,
    std::io::Error,
);
