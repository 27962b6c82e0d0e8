//! What goes over HTTPS between the trust services of a cloud centre and its key-management centre
//! (`vouchsafe-centre`). Both sides present the service certificate that their host's agent got for
//! them, and demand one of the other. Every structure refuses unknown fields; binary values are
//! standard base64, instants Unix milliseconds.
//!
//! | route | asks | answers |
//! |---|---|---|
//! | `POST /v1/services/hello` | [`Hello`] | [`Welcome`] |
//! | `POST /v1/orders` | [`CentreOrder`] | [`CentreProgress`], or 429 `queue-full` with `Retry-After` |
//! | `GET /v1/orders/{id}?wait_s=N` | | [`CentreProgress`], as soon as it is at its end |
//! | `POST /v1/questions` | [`CentreQuestion`] | [`Found`](crate::keys::Found), always with its `knowledge` |
//! | `GET /v1/feed?after=SEQ&wait_s=N` | | [`Feed`], as soon as there is something in it |
//! | `POST /v1/migrations/{id}/report` | [`MigrationReport`] | nothing |
//!
//! **Invariants:** an order is known by its id, which the trust service stores before the first
//! try: however often it is sent, it leads to one certificate. The centre answers no order before
//! it is durable. Feed items come at least once and in order. No private key is in any of these.

mod admin;

use serde::{Deserialize, Serialize};

pub use admin::{
    CentreCommand, CentreReply, CentreStatus, DomainStatus, ListedOrder, SOCKET, TenantStatus,
};

use crate::{
    HostId,
    api::Bytes,
    id::{Domain, MigrationId, OrderId, Tenant},
    keys::{Query, order::Prototype},
};

/// The longest that a long poll may ask the centre to wait, seconds; more is taken as this.
pub const MAX_WAIT_S: u64 = 60;

/// An order about a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CentreOrder {
    /// Random, chosen and stored by the trust service before the first try, never used for another.
    pub id: OrderId,
    /// Whose order it is: each tenant has a fair share of the centre.
    pub tenant: Tenant,
    /// Which PKI is to carry it out.
    pub domain: Domain,
    /// What is to be done.
    pub work: CentreWork,
}

/// What is to be done. The trust service has authenticated who asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CentreWork {
    /// Certify a key.
    Enrol {
        /// The binding asked for; its key must be there, and its possession be proven.
        subject: Prototype,
        /// The subject's own request (PKCS #10, DER), for a PKI that wants one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Bytes>,
    },
    /// Certify the key of an old certificate anew.
    Renew {
        /// The old certificate, DER.
        certificate: Bytes,
        /// The binding asked for; without a key.
        subject: Prototype,
        /// The subject's own request (PKCS #10, DER), for a PKI that wants one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Bytes>,
    },
    /// End a certificate.
    Revoke {
        /// The certificate, DER.
        certificate: Bytes,
        /// Why.
        #[serde(default)]
        reason: EndReason,
    },
}

impl CentreWork {
    /// Kebab-case name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Enrol { .. } => "enrol",
            Self::Renew { .. } => "renew",
            Self::Revoke { .. } => "revoke",
        }
    }
}

/// Why a certificate ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// Not said.
    #[default]
    Unspecified,
    /// The private key may be known to others.
    KeyCompromise,
    /// The subject changed its name or its organisation.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// It is needed no more.
    CessationOfOperation,
}

/// How far an order is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CentreProgress {
    /// It is durable, and waits for its turn or for its next try.
    Queued {
        /// Orders of the same tenant and PKI before it.
        ahead: u32,
    },
    /// The PKI has it.
    Working,
    /// It is carried out. This is final.
    Done(CentreOutcome),
    /// It will not be carried out. This is final.
    Refused {
        /// Name of the rule that said no, kebab-case.
        name: String,
        /// What the operator can do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

impl CentreProgress {
    /// Whether nothing will change it any more.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Refused { .. })
    }
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CentreOutcome {
    /// A certificate for the very key that was asked for.
    Certified {
        /// The certificate, DER.
        certificate: Bytes,
        /// The CAs above it, nearest first, DER; the root may be missing.
        chain: Vec<Bytes>,
    },
    /// The certificate is revoked.
    Revoked {
        /// Since when.
        at: u64,
    },
}

/// A question about keys that the trust service cannot answer from its library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CentreQuestion {
    /// Who asks.
    pub tenant: Tenant,
    /// The tenant's PKI: its CA is the anchor of the answer.
    pub domain: Domain,
    /// What is asked.
    pub query: Query,
    /// Whether the answer is to say what is known of each binding.
    pub validate: bool,
}

/// A trust service says that it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Where other trust services reach it for key migration: `https://HOST:PORT`; empty if they
    /// do not.
    pub peer_url: String,
}

/// What a trust service is told when it says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The PKIs, by name.
    pub domains: Vec<DomainInfo>,
}

/// A PKI that the centre orders from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainInfo {
    /// Its name.
    pub domain: Domain,
    /// Its trust anchors, DER.
    pub anchors: Vec<Bytes>,
    /// CAs on the way to its anchors and, over bridges, to those of others, DER.
    pub intermediates: Vec<Bytes>,
    /// Whether it certifies only by the subject's own request (PKCS #10): a trust service that has
    /// none to send cannot use it.
    pub wants_request: bool,
}

/// A trust service that the others can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceEntry {
    /// Its server.
    pub host: HostId,
    /// Where it is reached: `https://HOST:PORT`.
    pub peer_url: String,
}

/// News for trust services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// The number to ask after next time.
    pub next: u64,
    /// Whether items were missed because they were forgotten. Then `items` are the newest CRLs and
    /// the migrations that are open; what else the trust service knows from the feed it must take as
    /// older than these, and may ask about anew.
    pub resync: bool,
    /// In the order of their numbers.
    pub items: Vec<FeedItem>,
}

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedItem {
    /// Its number: greater than the one before; in a resync all have that of the newest.
    pub seq: u64,
    /// When it happened.
    pub at: u64,
    /// What happened.
    pub news: FeedNews,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FeedNews {
    /// A key was certified.
    Bound(Box<Bound>),
    /// A certificate was revoked; the CRL that says so follows.
    Revoked {
        /// Its PKI.
        domain: Domain,
        /// The certificate, DER.
        certificate: Bytes,
        /// Since when.
        at: u64,
    },
    /// A PKI has a new CRL.
    Crl {
        /// The PKI.
        domain: Domain,
        /// The CRL, DER. It is signed; believe it for that alone.
        crl: Bytes,
    },
    /// Keys are to move. It concerns the trust services of the two hosts.
    Migrate(MigrationOrder),
}

/// A key that was certified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The order.
    pub order: OrderId,
    /// The key's name, if the order had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The certificate, DER.
    pub certificate: Bytes,
    /// The CAs above it, nearest first, DER.
    pub chain: Vec<Bytes>,
}

/// Everything of one owner is to move from one trust service to another. The centre names the two
/// to each other and takes note of what they report; no key passes through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationOrder {
    /// Random.
    pub id: MigrationId,
    /// Whose keys: a VM's name.
    pub owner: String,
    /// The trust service that has them.
    pub from: ServiceEntry,
    /// The trust service that is to have them.
    pub to: ServiceEntry,
}

/// What a trust service reports about a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationReport {
    /// Where it is, as the reporting service sees it.
    pub stage: MigrationStage,
    /// Name of the rule that ended it, if one did, kebab-case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// Where a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationStage {
    /// Ordered, nothing reported yet.
    Ordered,
    /// The source has let go of them.
    Gone,
    /// The target answers for them. This is final.
    Active,
    /// The source keeps them. This is final.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_reads_as_documented_and_unknown_fields_are_refused() {
        let order = CentreOrder {
            id: OrderId([0xab; 16]),
            tenant: "acme".parse().unwrap(),
            domain: "own".parse().unwrap(),
            work: CentreWork::Revoke {
                certificate: Bytes(vec![1, 2, 3]),
                reason: EndReason::KeyCompromise,
            },
        };
        let text = r#"{"id":"abababababababababababababababab","tenant":"acme","domain":"own","work":{"revoke":{"certificate":"AQID","reason":"key-compromise"}}}"#;
        assert_eq!(serde_json::to_string(&order).unwrap(), text);
        assert_eq!(serde_json::from_str::<CentreOrder>(text).unwrap(), order);
        let more = text.replace("\"tenant\"", "\"tenants\":1,\"tenant\"");
        assert!(serde_json::from_str::<CentreOrder>(&more).is_err());
    }

    #[test]
    fn progress_says_whether_it_is_final() {
        let refused = CentreProgress::Refused { name: "provider-refused".to_owned(), hint: None };
        let text = r#"{"refused":{"name":"provider-refused"}}"#;
        assert_eq!(serde_json::to_string(&refused).unwrap(), text);
        assert!(refused.is_final());
        assert!(!CentreProgress::Working.is_final());
        assert_eq!(serde_json::to_string(&CentreProgress::Working).unwrap(), "\"working\"");
    }
}
