//! What ACME says, in JSON (RFC 8555, section 7.1; RFC 8738 for addresses). What is not named here
//! is passed over, as the standard asks.

use serde::{Deserialize, Serialize};

/// Where things are.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    pub(super) new_nonce: String,
    pub(super) new_account: String,
    pub(super) new_order: String,
    pub(super) revoke_cert: String,
}

/// A name that is to be certified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identifier {
    /// `dns` or `ip`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) value: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Order {
    pub(super) status: Status,
    #[serde(default)]
    pub(super) authorizations: Vec<String>,
    pub(super) finalize: String,
    pub(super) certificate: Option<String>,
    pub(super) error: Option<Problem>,
}

/// The standing of orders, authorizations and challenges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
    Deactivated,
    Expired,
    Revoked,
}

#[derive(Debug, Deserialize)]
pub(super) struct Authorization {
    pub(super) identifier: Identifier,
    pub(super) status: Status,
    #[serde(default)]
    pub(super) challenges: Vec<Offer>,
}

/// A challenge that the CA offers.
#[derive(Debug, Deserialize)]
pub(super) struct Offer {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) url: String,
    pub(super) status: Status,
    #[serde(default)]
    pub(super) token: String,
    pub(super) error: Option<Problem>,
}

/// Why something was refused (RFC 7807).
#[derive(Debug, Default, Deserialize)]
pub(super) struct Problem {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) detail: String,
}

impl Problem {
    /// Whether it is the ACME error of this name.
    pub(super) fn is(&self, name: &str) -> bool {
        self.kind.strip_prefix("urn:ietf:params:acme:error:") == Some(name)
    }

    /// What it says, for people.
    pub(super) fn words(&self) -> String {
        super::super::remote::words(&format!("{}: {}", self.kind, self.detail))
    }
}
