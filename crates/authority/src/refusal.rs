//! How a rule's "no" leaves the authority: every decision has an enum of its own that implements
//! [`Rejection`]; handlers turn it into a [`Refusal`], which is written to the audit log before the
//! answer leaves ([`crate::routes::gate`]).
//!
//! **Invariant:** callers without a certificate learn the name and nothing else.

use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serve::problem::Problem;

/// A decision's "no".
pub(crate) trait Rejection: fmt::Display {
    /// Kebab-case name, part of the interface.
    fn name(&self) -> &'static str;

    /// What an operator can do next.
    fn hint(&self) -> &'static str;

    /// Status of the answer.
    fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}

/// A "no" on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// Kebab-case name.
    pub(crate) name: String,
    /// What was found.
    pub(crate) detail: String,
    /// What an operator can do next.
    pub(crate) hint: String,
    /// HTTP status.
    pub(crate) status: u16,
}

impl Refusal {
    /// A refusal that is not one of an enum: the request itself is wrong.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self {
            name: "request-invalid".to_owned(),
            detail: detail.into(),
            hint: "GET /v1/openapi.json describes what is taken".to_owned(),
            status: StatusCode::BAD_REQUEST.as_u16(),
        }
    }

    /// The problem for a caller who may see everything.
    pub(crate) fn open_problem(&self) -> Problem {
        self.closed_problem().detail(self.detail.clone()).hint(self.hint.clone())
    }

    /// The problem for a caller who may see only the name.
    pub(crate) fn closed_problem(&self) -> Problem {
        Problem::refusal(self.name.clone(), "the request was refused")
            .status(StatusCode::from_u16(self.status).unwrap_or(StatusCode::FORBIDDEN))
    }

    /// The form in which it is kept with a verdict and sent to hosts.
    pub(crate) fn to_wire(&self) -> model::api::vm::Refusal {
        model::api::vm::Refusal {
            name: self.name.clone(),
            detail: self.detail.clone(),
            hint: self.hint.clone(),
        }
    }
}

impl<R: Rejection> From<R> for Refusal {
    fn from(rejection: R) -> Self {
        Self {
            name: rejection.name().to_owned(),
            detail: rejection.to_string(),
            hint: rejection.hint().to_owned(),
            status: rejection.status().as_u16(),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self {
            detail: problem.detail.unwrap_or(problem.title),
            hint: problem.hint.unwrap_or_default(),
            name: problem.name,
            status: problem.status,
        }
    }
}
