//! What the keeper stores, and where.
//!
//! | key | what |
//! |---|---|
//! | `entry/<id>` | [`Entry`]: a certificate and its binding; the id is the serial number |
//! | `ix/k/<digest>/<id>`, `ix/n/…`, `ix/u/…` | where a key, a name, a use-with leads; no content |
//! | `revoked/<id>` | [`Revoked`]: what goes on the CRL |
//! | `auth/<name digest>/<id>` | [`Authorization`]: a pass phrase for one order |
//! | `ledger/<request>` | [`Issuing`]: a serial number that was reserved before signing |
//! | `centre/domain`, `centre/news` | the centre's PKI, and how far its news were taken |
//! | `order/<id>`, `receipt/<digest>` | [`OrderRecord`] that was put off, and its [`ReceiptRecord`] |
//! | `escrow/<id>`, `recovery/<id>` | [`Escrowed`] private key, [`Recovery`] under way |
//! | `made/<id>` | [`Escrowed`]: a private key that its owner may not have got yet |
//! | `owner/<digest>`, `owned/<digest>/<key>` | [`OwnerRecord`](super::owner::OwnerRecord): where an owner's keys are; and what records are the owner's |
//! | `resident/<owner digest>` | [`ResidentRecord`](super::resident::ResidentRecord): an owner's key in the host's TPM |
//! | `grade/<owner digest>` | [`Grades`](model::keys::Grades): the grades of an owner's identities |
//! | `moved/<id>`, `moved/<name digest>` | that a binding, a name, moved away with its owner |
//! | `secret/…`, `crl` | the keeper's own keys; [`CrlState`] |

mod places;

use std::fmt;

use model::{
    api::Bytes,
    keys::{
        KeyUse, UseWith,
        order::{KeyFailure, KeyOperation, Prototype},
    },
};
pub(crate) use pki::binding::digest as long_digest;
use serde::{Deserialize, Serialize};

pub(crate) use self::places::{
    ORDERS, REVOKED, authorization, authorizations, crl_state, entry, escrow, ledger, made, order,
    own_key, receipt, recovery, revoked,
};

/// What a binding is known by: the serial number of its certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct EntryId(#[serde(with = "hex")] pub(crate) [u8; 16]);

impl EntryId {
    /// As clients see it: an XML name.
    pub(crate) fn public(self) -> String {
        format!("k{self}")
    }

    /// From what clients see.
    pub(crate) fn from_public(text: &str) -> Option<Self> {
        Self::from_hex(text.strip_prefix('k')?)
    }

    /// From its hexadecimal digits.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok().map(|()| Self(id))
    }

    /// From a serial number of any length.
    pub(crate) fn from_serial(serial: &[u8]) -> Option<Self> {
        serial.try_into().ok().map(Self)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate of our own and the binding that it stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub(crate) struct Entry {
    /// The certificate, DER.
    pub(crate) certificate: Bytes,
    /// Its key (SubjectPublicKeyInfo, DER): read from the certificate, not stored beside it.
    #[serde(default, skip_serializing)]
    pub(crate) key: Bytes,
    /// The key's name.
    pub(crate) name: String,
    /// Uses as certified.
    pub(crate) uses: Vec<KeyUse>,
    /// Applications and names as certified.
    pub(crate) use_with: Vec<UseWith>,
    /// First moment, Unix milliseconds.
    pub(crate) not_before: i64,
    /// First moment after it.
    pub(crate) not_on_or_after: i64,
    /// Since when it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at: Option<u64>,
    /// The entry whose certificate took the place of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaced_by: Option<EntryId>,
    /// The entry whose place it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<EntryId>,
    /// Digest of the identifier of its revocation code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revocation_code: Option<Bytes>,
    /// Whether the private key is in escrow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) escrowed: bool,
    /// Whose it is: a VM's name. It moves with the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// The CAs above the certificate, nearest first, DER; none: our own CA.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) chain: Vec<Bytes>,
}

/// What goes on the CRL.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoked {
    /// Since when.
    pub(crate) at: u64,
    /// When the certificate would have ended.
    pub(crate) not_on_or_after: i64,
}

/// A pass phrase for one order about one name. The phrase itself is not in it, only keys that
/// derive from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authorization {
    /// The only name.
    pub(crate) name: String,
    /// The uses that may be asked for; none: any.
    pub(crate) uses: Vec<KeyUse>,
    /// The applications and names that may be asked for.
    pub(crate) use_with: Vec<UseWith>,
    /// When it stops working.
    pub(crate) expires_at: u64,
    /// Wrong tries so far.
    pub(crate) tries: u32,
    /// The key of the MAC.
    pub(crate) mac: Bytes,
    /// The key that private keys are delivered under.
    pub(crate) delivery: Bytes,
    /// Who made it.
    pub(crate) operator: String,
    /// Whose the binding will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// What it was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<Used>,
}

/// What a pass phrase was used for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Used {
    /// Digest of the order: the same order again gets the same answer.
    pub(crate) order: Bytes,
    /// What came of it.
    pub(crate) outcome: UsedFor,
}

/// What came of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UsedFor {
    /// A binding made, renewed or ended.
    Entry(EntryId),
    /// It was put off.
    Order(EntryId),
}

/// A serial number that was reserved, and perhaps the certificate that has it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuing {
    /// Digest of what was asked.
    #[serde(with = "hex")]
    pub(crate) ask: [u8; 32],
    /// The serial number.
    pub(crate) serial: EntryId,
    /// Whether the certificate was made and is in the library.
    pub(crate) issued: bool,
}

/// An order that was put off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderRecord {
    /// What is to be done.
    pub(crate) wanted: Wanted,
    /// The key's name.
    pub(crate) name: String,
    /// The authorization it came with, by the digest of its name and its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authorization: Option<EntryId>,
    /// When it was put off.
    pub(crate) at: u64,
    /// What came of it.
    pub(crate) state: OrderState,
    /// Whose binding it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
}

impl OrderRecord {
    /// Whether the centre carries it out, wherever its owner's keys are.
    pub(crate) fn is_with_centre(&self) -> bool {
        self.state == OrderState::Ordered
    }
}

/// What is to be done once an operator agrees.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wanted {
    /// A binding.
    Register(Prototype),
    /// A new certificate for this entry.
    Reissue(EntryId),
    /// The end of this entry's certificate at the PKI; here it has ended already.
    Revoke(EntryId),
}

impl Wanted {
    pub(crate) const fn operation(&self) -> KeyOperation {
        match self {
            Self::Register(_) => KeyOperation::Register,
            Self::Reissue(_) => KeyOperation::Reissue,
            Self::Revoke(_) => KeyOperation::Revoke,
        }
    }
}

/// What came of an order that was put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OrderState {
    /// Nothing yet: an operator must decide.
    Waiting,
    /// It is for the centre to carry out.
    Ordered,
    /// It was carried out.
    Done(EntryId),
    /// It was refused.
    Failed(KeyFailure),
}

/// Which order a receipt is for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReceiptRecord {
    /// The order.
    pub(crate) order: EntryId,
    /// When it was given.
    pub(crate) at: u64,
}

/// A private key, sealed to the escrow key or to its owner's key in the host's TPM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Escrowed {
    /// The encapsulated key.
    pub(crate) enc: Bytes,
    /// The RSA key's PKCS#8, sealed.
    pub(crate) ciphertext: Bytes,
    /// When it is forgotten; 0: not at all.
    pub(crate) until: u64,
    /// Whether it is sealed to its owner's key in the host's TPM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) resident: bool,
}

/// A recovery under way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recovery {
    /// Who approved.
    pub(crate) operators: Vec<String>,
    /// When the approvals end.
    pub(crate) expires_at: u64,
    /// Wrong tries so far.
    pub(crate) tries: u32,
    /// The key of the MAC, once there are enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<Bytes>,
    /// The key that the private key is delivered under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delivery: Option<Bytes>,
    /// The Id of the request that it was carried out for: that one gets the answer again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<String>,
}

/// How far the series of CRLs is.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CrlState {
    /// The highest number that may have been published.
    pub(crate) number: u64,
}

/// A key pair of the keeper's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnKey {
    /// Its certificate, DER; empty if it has none.
    pub(crate) certificate: Bytes,
    /// PKCS#8, DER.
    pub(crate) key: Bytes,
}

/// The first 16 octets of a SHA-256 over the parts with their lengths.
pub(crate) fn short_digest(parts: &[&[u8]]) -> EntryId {
    EntryId(pki::binding::short_digest(parts))
}

/// An order's digest: what makes it the same order again. Neither its Id nor its nonce is in it.
pub(crate) fn order_digest(operation: KeyOperation, asked: &impl Serialize) -> [u8; 32] {
    let json = serde_json::to_vec(asked).unwrap_or_default();
    long_digest(&[operation.name().as_bytes(), &json])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An entry of which nothing is known but a name.
    pub(crate) fn entry(name: &str) -> Entry {
        Entry {
            certificate: Bytes::default(),
            key: Bytes::default(),
            name: name.to_owned(),
            uses: Vec::new(),
            use_with: Vec::new(),
            not_before: 0,
            not_on_or_after: 1,
            revoked_at: None,
            replaced_by: None,
            replaces: None,
            revocation_code: None,
            escrowed: false,
            owner: None,
            chain: Vec::new(),
        }
    }
}
