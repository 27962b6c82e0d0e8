//! What a key service is asked and answers, in words that know neither XML nor SOAP: between the
//! two processes of `vouchsafe-trust` ([`rpc`]), over its JSON interface, and on its operators'
//! socket ([`admin`]).
//!
//! ```text
//! XKMS, JSON ─► reader ── rpc::KeyRequest ──► keeper (library, CA)
//!                      ◄── rpc::KeyAnswer ───
//! operator ── admin::AdminRequest ──────────► keeper
//! ```
//!
//! Keys are SubjectPublicKeyInfo (DER), certificates DER, instants Unix milliseconds. **Invariants:**
//! a verdict follows from its four findings ([`KeyStatus::judged`]) and is valid only if each was
//! checked and good; the time of an order is the keeper's own, so no request carries one.

pub mod admin;
mod grade;
pub mod order;
pub mod rpc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use grade::{Allowance, Grades};

use crate::api::Bytes;

/// What a key may be used for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum KeyUse {
    /// Encrypting.
    Encryption,
    /// Agreeing on keys.
    Exchange,
    /// Signing.
    Signature,
}

/// An application and the name that the key's owner has in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UseWith {
    /// The application's URI.
    pub application: String,
    /// The owner's name in it.
    pub identifier: String,
}

impl UseWith {
    /// Reads `APPLICATION=NAME`.
    ///
    /// # Errors
    /// In words, if there is no `=`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (application, identifier) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is not APPLICATION=NAME"))?;
        Ok(Self { application: application.to_owned(), identifier: identifier.to_owned() })
    }
}

/// A certificate by its issuer and serial number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerSerial {
    /// The issuer's name, RFC 4514.
    pub issuer: String,
    /// The serial number, big-endian without leading zeros.
    pub serial: Bytes,
}

/// A key by example: everything that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyExample {
    /// The public key (SubjectPublicKeyInfo, DER).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Certificates (DER): the first is the key's, the others may help to validate it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Bytes>,
    /// Revocation lists (DER) that came with it; none is believed for being here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub crls: Vec<Bytes>,
    /// Its certificate by issuer and serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_serial: Option<IssuerSerial>,
    /// Uses, all of which it must allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<KeyUse>,
    /// Applications and names, all of which it must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub use_with: Vec<UseWith>,
}

impl KeyExample {
    /// Whether it says nothing by which a key could be found.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.key.is_none()
            && self.name.is_none()
            && self.certificates.is_empty()
            && self.issuer_serial.is_none()
            && self.use_with.is_empty()
    }
}

/// A question about keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The example that answers must be like.
    pub binding: KeyExample,
    /// The instant asked about; none is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instant: Option<i64>,
    /// At most so many answers.
    pub limit: u32,
}

/// Answers to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// At most as many as were asked for.
    pub bindings: Vec<KeyBinding>,
    /// Whether there are more.
    pub more: bool,
    /// What the answer rests on. Every answer of a keeper says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knowledge: Option<Knowledge>,
}

/// What an answer rests on: whom it takes as its trust anchor, how old what it was answered from is,
/// and what it cost at the PKI.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Knowledge {
    /// Where trust begins.
    pub anchor: Anchor,
    /// The moment up to which the answerer knew what it answered from, Unix milliseconds. Of
    /// several sources the oldest counts.
    pub as_of: u64,
    /// How many questions to PKI providers the answer took; answers from a library or a cache take
    /// none.
    pub pki_calls: u32,
}

impl Knowledge {
    /// Known at first hand by the trust service itself.
    #[must_use]
    pub const fn own(as_of: u64) -> Self {
        Self { anchor: Anchor::TrustService, as_of, pki_calls: 0 }
    }
}

/// Where trust in an answer begins: the three working modes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// The trust service that answers: the binding is in its own library (same trust service).
    TrustService,
    /// A CA, by its name: the binding is another trust service's under the same PKI, or a
    /// configured anchor's.
    Ca(String),
    /// A CA reached over cross-certificates (different PKIs).
    Bridge {
        /// The names of the CAs on the path, from the leaf's issuer to the anchor.
        path: Vec<String>,
    },
}

/// A key, what it is certified for, and what is known of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyBinding {
    /// What the service knows it by: letters, digits and hyphens, first a letter.
    pub id: String,
    /// The public key (SubjectPublicKeyInfo, DER).
    pub key: Bytes,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its certificate and those of the CAs above it (DER), the key's first.
    pub certificates: Vec<Bytes>,
    /// Uses as certified.
    pub uses: Vec<KeyUse>,
    /// Applications and names as certified.
    pub use_with: Vec<UseWith>,
    /// First moment of its interval.
    pub not_before: i64,
    /// End of its interval; this instant is outside of it.
    pub not_on_or_after: i64,
    /// What is known of it; none in answers to locate, which vouch for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<KeyStatus>,
}

/// The sum of what is known of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StatusValue {
    /// Every aspect was checked and is good.
    Valid,
    /// At least one is bad.
    Invalid,
    /// None is known to be bad, and at least one is open.
    Indeterminate,
}

/// What was found about one aspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyFinding {
    /// Checked and good.
    Good,
    /// Not checked, or without outcome.
    Open,
    /// Checked and bad.
    Bad,
}

/// The findings about the four aspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyAspects {
    /// A path leads to a trust anchor and allows the use.
    pub issuer_trust: KeyFinding,
    /// Nothing on it was revoked.
    pub revocation_status: KeyFinding,
    /// The instant asked about lies inside every interval on it.
    pub validity_interval: KeyFinding,
    /// Every signature on it verifies.
    pub signature: KeyFinding,
}

impl KeyAspects {
    /// The same finding about all four.
    #[must_use]
    pub const fn all(finding: KeyFinding) -> Self {
        Self {
            issuer_trust: finding,
            revocation_status: finding,
            validity_interval: finding,
            signature: finding,
        }
    }

    /// Whether a path leads from the certificate to an anchor, whatever is known of revocation.
    #[must_use]
    pub fn leads(&self) -> bool {
        let said = [self.issuer_trust, self.signature, self.validity_interval];
        said.iter().all(|one| *one == KeyFinding::Good)
    }

    const fn findings(&self) -> [KeyFinding; 4] {
        [self.issuer_trust, self.revocation_status, self.validity_interval, self.signature]
    }
}

/// What is known of a binding, aspect by aspect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyStatus {
    /// The sum of the findings.
    pub value: StatusValue,
    /// The findings.
    pub aspects: KeyAspects,
    /// Name of the rule because of which it is not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

impl KeyStatus {
    /// The verdict that follows from the findings.
    #[must_use]
    pub fn judged(aspects: KeyAspects, refusal: Option<&str>) -> Self {
        let findings = aspects.findings();
        let value = if findings.contains(&KeyFinding::Bad) {
            StatusValue::Invalid
        } else if findings.contains(&KeyFinding::Open) {
            StatusValue::Indeterminate
        } else {
            StatusValue::Valid
        };
        let refusal = refusal.filter(|_| value != StatusValue::Valid).map(str::to_owned);
        Self { value, aspects, refusal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_valid_only_if_all_four_were_found_good() {
        use KeyFinding::{Bad, Good, Open};
        let all = [Good, Open, Bad];
        let cases = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b)));
        for (issuer_trust, revocation_status) in cases {
            let aspects = KeyAspects { issuer_trust, revocation_status, ..KeyAspects::all(Good) };
            let expected = match (issuer_trust, revocation_status) {
                (Bad, _) | (_, Bad) => StatusValue::Invalid,
                (Good, Good) => StatusValue::Valid,
                _ => StatusValue::Indeterminate,
            };
            assert_eq!(KeyStatus::judged(aspects, None).value, expected);
        }
    }

    #[test]
    fn what_an_answer_rests_on_reads_as_documented() {
        let path = vec!["CA-B".to_owned(), "Bridge".to_owned(), "CA-A".to_owned()];
        let knowledge = Knowledge { anchor: Anchor::Bridge { path }, as_of: 7, pki_calls: 1 };
        let json = serde_json::to_string(&knowledge).unwrap();
        let expected =
            r#"{"anchor":{"bridge":{"path":["CA-B","Bridge","CA-A"]}},"as_of":7,"pki_calls":1}"#;
        assert_eq!(json, expected);
        let own = serde_json::to_string(&Knowledge::own(1)).unwrap();
        assert_eq!(own, r#"{"anchor":"trust-service","as_of":1,"pki_calls":0}"#);
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<KeyExample>(r#"{"name":"a"}"#).is_ok());
        assert!(serde_json::from_str::<KeyExample>(r#"{"nmae":"a"}"#).is_err());
    }
}
