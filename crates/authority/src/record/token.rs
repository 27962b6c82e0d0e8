//! One-time enrolment tokens and enrolments under way.
//!
//! ```text
//! token: issued ─► claimed by an enrolment ─► used (with the host's record, in one transaction)
//!          └── life ends ─► unknown
//! ```

use model::{HostId, api::Bytes};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::refusal::Rejection;

/// A token as it is stored, under the digest of its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRecord {
    /// The only name it admits.
    pub(crate) host: HostId,
    /// When it stops working.
    pub(crate) expires_at: u64,
    /// The AK Name (hexadecimal) that was enrolled with it.
    pub(crate) used_by: Option<String>,
    /// Whether it admits another TPM in the place of the one that has the name.
    #[serde(default)]
    pub(crate) replaces: bool,
}

/// Why a token does not admit a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum TokenRejection {
    /// Never issued, expired, or for another name.
    #[error("the token is not known for this name, or has expired")]
    Unknown,
    /// Another TPM was enrolled with it.
    #[error("the token was used before")]
    Used,
}

impl Rejection for TokenRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "token-unknown",
            Self::Used => "token-used",
        }
    }

    fn hint(&self) -> &'static str {
        "`vouchsafe host token NAME` makes a new one"
    }
}

impl TokenRecord {
    /// Whether the token admits this AK under this name. One that was used admits only the TPM it
    /// was used by, so that a host that did not hear the answer can repeat its request.
    ///
    /// # Errors
    /// [`TokenRejection`].
    pub(crate) fn admits(
        &self,
        host: &HostId,
        ak_name: &str,
        now: u64,
    ) -> Result<(), TokenRejection> {
        if self.host != *host {
            return Err(TokenRejection::Unknown);
        }
        match &self.used_by {
            Some(used_by) if used_by == ak_name => Ok(()),
            Some(_) => Err(TokenRejection::Used),
            None if now >= self.expires_at => Err(TokenRejection::Unknown),
            None => Ok(()),
        }
    }

    /// The token after it served.
    pub(crate) fn used(mut self, ak_name: &str) -> Self {
        self.used_by = Some(ak_name.to_owned());
        self
    }
}

/// An enrolment that waits for the activated credential. Kept in memory only.
#[derive(Debug)]
pub(crate) struct PendingEnrolment {
    /// The name it is for.
    pub(crate) host: HostId,
    /// Digest of the token's text: the token's key.
    pub(crate) token: String,
    /// What the credential holds.
    pub(crate) secret: model::Secret<[u8; 32]>,
    /// EK certificate, DER.
    pub(crate) ek_certificate: Bytes,
    /// Subject of its issuer.
    pub(crate) ek_issuer: String,
    /// EK public area.
    pub(crate) ek_public: Bytes,
    /// AK public area.
    pub(crate) ak_public: Bytes,
    /// The AK's Name, hexadecimal.
    pub(crate) ak_name: String,
    /// When it is forgotten.
    pub(crate) expires_at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_admits_one_tpm_under_one_name_within_its_life() {
        let host: HostId = "a".parse().unwrap();
        let token =
            TokenRecord { host: host.clone(), expires_at: 10, used_by: None, replaces: false };
        assert_eq!(token.admits(&host, "ak", 9), Ok(()));
        assert_eq!(token.admits(&host, "ak", 10), Err(TokenRejection::Unknown));
        assert_eq!(token.admits(&"b".parse().unwrap(), "ak", 9), Err(TokenRejection::Unknown));
        let used = token.used("ak");
        assert_eq!(used.admits(&host, "ak", 99), Ok(()));
        assert_eq!(used.admits(&host, "other", 9), Err(TokenRejection::Used));
    }
}
