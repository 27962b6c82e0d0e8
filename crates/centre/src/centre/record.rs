//! What the centre stores, and where.
//!
//! | key | what |
//! |---|---|
//! | `order/<id>` | [`OrderRecord`]: an order and what came of it |
//! | `open/<id>` | [`OpenMark`]: it is not at its end |
//! | `ask/<domain>/<id>` | how far the PKI is with it: the ledger or journal of its provider |
//! | `revoked/<domain>/<serial>` | [`RevokedRecord`]: what goes on our own CA's CRL |
//! | `bound/<id>` | [`BoundRecord`]: a certificate and its binding |
//! | `ix/<digest>/<id>` | where a key, a name, a use-with, a certificate leads; no content |
//! | `feed/<number>`, `feed-state` | [`StoredItem`], [`FeedState`] |
//! | `crl/<domain>` | [`CrlState`]; the CRL itself is a file |
//! | `crl-marks` | [`MarksRecord`]: how far series of CRLs have come |
//! | `service/<host>` | [`ServiceRecord`]: a trust service that said hello |
//! | `migration/<id>`, `moving/<owner>` | [`MigrationRecord`], and which one of an owner is under way |
//! | `secret/…` | the centre's own keys |

use std::{collections::BTreeMap, fmt};

use model::{
    Domain, HostId, MigrationId, OrderId, Tenant,
    api::Bytes,
    centre::{CentreOrder, CentreOutcome, EndReason, MigrationOrder, MigrationStage},
    keys::UseWith,
};
pub(crate) use pki::binding::short_digest as digest;
use pki::{CrlMark, CrlMarks};
use serde::{Deserialize, Serialize};
use store::typed::{Place, RecordError};

/// What a binding is known by: the beginning of its certificate's digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct BoundId(#[serde(with = "hex")] pub(crate) [u8; 16]);

impl BoundId {
    /// Of a certificate, DER.
    pub(crate) fn of(certificate: &[u8]) -> Self {
        Self(digest(&[b"certificate", certificate]))
    }

    /// From its hexadecimal digits.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok().map(|()| Self(id))
    }
}

impl fmt::Display for BoundId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BoundId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderRecord {
    /// As it came.
    pub(crate) order: CentreOrder,
    /// The server whose trust service gave it.
    pub(crate) host: HostId,
    /// When it came, Unix milliseconds.
    pub(crate) at: u64,
    /// First and last moment to certify, Unix seconds: every try asks for the same.
    pub(crate) interval: (i64, i64),
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<End>,
}

/// What came of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// It was carried out.
    Done(CentreOutcome),
    /// A rule of the centre or of the PKI said no.
    Refused {
        /// The rule's name.
        name: String,
    },
}

/// That an order is not at its end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenMark {
    /// When it came: orders go on in this order after a restart.
    pub(crate) at: u64,
}

/// How far our own CA is with an order, as [`pki::LedgerEntry`] says it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LedgerRecord {
    /// Digest of what was asked.
    #[serde(with = "hex")]
    pub(crate) ask: [u8; 32],
    /// The certificate's serial number.
    #[serde(with = "hex")]
    pub(crate) serial: [u8; 16],
    /// The certificate, once it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<Bytes>,
    /// Its revocation, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<RevokedRecord>,
}

/// What goes on a CRL.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokedRecord {
    /// Since when, Unix seconds.
    pub(crate) at: i64,
    /// Why.
    pub(crate) reason: EndReason,
}

/// A certificate and its binding. State made before had `host` and `replaces` here: they are not read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BoundRecord {
    /// The order it came from.
    pub(crate) order: OrderId,
    /// Whose it was.
    pub(crate) tenant: Tenant,
    /// The PKI.
    pub(crate) domain: Domain,
    /// The key's name, if the order had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Applications and names as they were asked for.
    pub(crate) use_with: Vec<UseWith>,
    /// The certificate, DER.
    pub(crate) certificate: Bytes,
    /// The CAs above it, nearest first.
    pub(crate) chain: Vec<Bytes>,
    /// Since when it is revoked, Unix milliseconds, as far as the centre ordered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at: Option<u64>,
}

/// A piece of news, told by where it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredItem {
    /// When it happened.
    pub(crate) at: u64,
    /// What.
    pub(crate) news: StoredNews,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoredNews {
    /// A key was certified.
    Bound(BoundId),
    /// A certificate was revoked.
    Revoked {
        /// Whose it was.
        tenant: Tenant,
        /// Its PKI.
        domain: Domain,
        /// The certificate, DER.
        certificate: Bytes,
        /// Since when.
        at: u64,
    },
    /// A PKI has a new CRL: whoever reads this is given the newest.
    Crl(Domain),
    /// Keys are to move.
    Migrate(MigrationId),
}

/// Which items there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedState {
    /// Number of the newest; 0: none yet.
    pub(crate) newest: u64,
    /// All up to this one were forgotten.
    pub(crate) forgotten: u64,
}

/// The newest CRL of a PKI.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrlState {
    /// Our own CA's numbers, none used twice; else how many there were.
    pub(crate) number: u64,
    /// When it was made or fetched, Unix milliseconds.
    pub(crate) at: u64,
    /// Digest of the CRL.
    #[serde(with = "hex")]
    pub(crate) digest: [u8; 16],
}

/// How far series of CRLs have come, as [`CrlMark`] says it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct MarksRecord(BTreeMap<String, Bytes>);

impl MarksRecord {
    pub(crate) fn of(marks: &CrlMarks) -> Self {
        let one = |mark: &CrlMark| (hex::encode(mark.series), Bytes(mark.number.clone()));
        Self(marks.all().iter().map(one).collect())
    }

    pub(crate) fn marks(&self) -> CrlMarks {
        let mut marks = CrlMarks::default();
        for (series, number) in &self.0 {
            let mut mark = CrlMark { series: [0; 32], number: number.0.clone() };
            if hex::decode_to_slice(series, &mut mark.series).is_ok() {
                marks.keep(&[mark]);
            }
        }
        marks
    }
}

/// A trust service that said hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceRecord {
    /// Where the others reach it.
    pub(crate) peer_url: String,
}

/// A migration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MigrationRecord {
    /// What was ordered.
    pub(crate) order: MigrationOrder,
    /// When it was ordered or reported on last, Unix milliseconds.
    pub(crate) at: u64,
    /// Where it is.
    pub(crate) stage: MigrationStage,
    /// Name of the rule that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refusal: Option<String>,
}

/// A key of the centre's own, and its certificate if it has one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnKey {
    /// DER; empty without.
    pub(crate) certificate: Bytes,
    /// PKCS#8.
    pub(crate) key: Bytes,
}

/// An order's place.
pub(crate) fn order(id: OrderId) -> Result<Place<OrderRecord>, RecordError> {
    Place::at(format!("order/{id}"))
}

/// Its mark's place.
pub(crate) fn open(id: OrderId) -> Result<Place<OpenMark>, RecordError> {
    Place::at(format!("open/{id}"))
}

/// The place of what a provider records about an order.
pub(crate) fn ask<T>(domain: &Domain, id: OrderId) -> Result<Place<T>, RecordError> {
    Place::at(format!("ask/{domain}/{id}"))
}

/// Where the revocations of a PKI begin.
pub(crate) fn all_revoked(domain: &Domain) -> String {
    format!("revoked/{domain}/")
}

/// A revocation's place.
pub(crate) fn revoked(
    domain: &Domain,
    serial: &[u8; 16],
) -> Result<Place<RevokedRecord>, RecordError> {
    Place::at(format!("{}{}", all_revoked(domain), hex::encode(serial)))
}

/// A binding's place.
pub(crate) fn bound(id: BoundId) -> Result<Place<BoundRecord>, RecordError> {
    Place::at(format!("bound/{id}"))
}

/// Where the rows begin that lead from this digest.
pub(crate) fn rows(digest: [u8; 16]) -> String {
    format!("ix/{}/", hex::encode(digest))
}

/// A row's place.
pub(crate) fn row(digest: [u8; 16], id: BoundId) -> Result<Place<()>, RecordError> {
    Place::at(format!("{}{id}", rows(digest)))
}

/// A feed item's place.
pub(crate) fn item(number: u64) -> Result<Place<StoredItem>, RecordError> {
    Place::at(format!("feed/{number:020}"))
}

/// The feed's state.
pub(crate) fn feed_state() -> Result<Place<FeedState>, RecordError> {
    Place::at("feed-state")
}

/// The place of what is known of a PKI's newest CRL.
pub(crate) fn crl(domain: &Domain) -> Result<Place<CrlState>, RecordError> {
    Place::at(format!("crl/{domain}"))
}

/// The place of how far series of CRLs have come.
pub(crate) fn crl_marks() -> Result<Place<MarksRecord>, RecordError> {
    Place::at("crl-marks")
}

/// A trust service's place.
pub(crate) fn service(host: &HostId) -> Result<Place<ServiceRecord>, RecordError> {
    Place::at(format!("service/{host}"))
}

/// A migration's place.
pub(crate) fn migration(id: MigrationId) -> Result<Place<MigrationRecord>, RecordError> {
    Place::at(format!("migration/{id}"))
}

/// Where it says which migration of an owner is under way.
pub(crate) fn moving(owner: &str) -> Result<Place<MigrationId>, RecordError> {
    Place::at(format!("moving/{}", hex::encode(digest(&[b"owner", owner.as_bytes()]))))
}

/// The place of a key of our own.
pub(crate) fn own_key(name: &str) -> Result<Place<OwnKey>, RecordError> {
    Place::at(format!("secret/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_of_state_made_before_are_read() {
        let before = r#"{"order":"ORDER","tenant":"t","domain":"d","host":"h","use_with":[],
            "certificate":"MAA=","chain":[],"replaces":"MAA="}"#;
        let text = before.replace("ORDER", &"00".repeat(16));
        let read: BoundRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(read.certificate.0, [0x30, 0]);
    }
}
