//! Bounds what callers without a certificate can make the authority do, and how many refusals of one
//! host fill the audit log, with the gates of [`serve::flood`].

use http::StatusCode;
pub(crate) use serve::flood::{FloodGate, Passage};
use thiserror::Error;

use crate::refusal::Rejection;

/// Too many requests without a certificate from one address, or refusals of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many requests of this kind from this source")]
pub(crate) struct Flooding;

impl Rejection for Flooding {
    fn name(&self) -> &'static str {
        "rate-limited"
    }

    fn hint(&self) -> &'static str {
        "limits.anonymous_per_minute and limits.refusals_per_minute bound them; wait a moment"
    }

    fn status(&self) -> StatusCode {
        StatusCode::TOO_MANY_REQUESTS
    }
}
