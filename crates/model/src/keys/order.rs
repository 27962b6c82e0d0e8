//! Orders about bindings: register, reissue, revoke, recover; and what came of them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::{KeyBinding, KeyExample, KeyUse, UseWith};
use crate::{Secret, api::Bytes};

/// A secret on its way between the two processes of one server; base64 there. Nothing else puts a
/// secret into a message.
#[derive(Clone, Debug)]
pub struct SecretBytes(pub Secret<Vec<u8>>);

impl SecretBytes {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(secret: Secret<Vec<u8>>) -> Self {
        Self(secret)
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Bytes(self.0.expose().clone());
        let done = bytes.serialize(serializer);
        zeroize::Zeroize::zeroize(&mut bytes.0);
        done
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bytes::deserialize(deserializer).map(|bytes| Self(Secret::new(bytes.0)))
    }
}

/// What is done about keys.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum KeyOperation {
    /// Finds keys, vouching for nothing.
    Locate,
    /// Gives a private key back.
    Recover,
    /// Binds a key.
    Register,
    /// Gives new credentials.
    Reissue,
    /// Ends a binding.
    Revoke,
    /// Finds keys and says what is known of them.
    Validate,
}

impl KeyOperation {
    /// Kebab-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Locate => "locate",
            Self::Recover => "recover",
            Self::Register => "register",
            Self::Reissue => "reissue",
            Self::Revoke => "revoke",
            Self::Validate => "validate",
        }
    }
}

/// A key under which a request may be authenticated.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationKey {
    /// A key pair's public half (SubjectPublicKeyInfo, DER).
    Public(Bytes),
    /// A shared secret, as it goes into the MAC.
    Mac(SecretBytes),
}

/// Such a key with the name that the keeper knows its holder by.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedKey {
    /// The holder, to be repeated in [`Requester::Key`].
    pub holder: String,
    /// The key.
    pub key: AuthenticationKey,
}

/// Who asks, after it was verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requester {
    /// The holder of the key of this name, as the keeper named it.
    Key(String),
    /// The bearer of a value that says nothing of the binding; the keeper must judge it.
    NotBound {
        /// Its kind.
        protocol: String,
        /// Its value.
        value: SecretBytes,
    },
    /// The bearer of a revocation code; the keeper must compare it.
    RevocationCode(SecretBytes),
}

/// By what an order that was put off is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Unguessable; the client got it in the answer *Pending*.
    pub response_id: String,
    /// The Id of the request that was put off.
    pub request_id: String,
}

/// An order about a binding.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Who asks.
    pub requester: Requester,
    /// The public key (SubjectPublicKeyInfo, DER) whose possession was proven, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possessed: Option<Bytes>,
    /// Under what the order is remembered if it is not carried out at once.
    pub receipt: Receipt,
    /// Whether the client can wait. If not, the order must not be put off.
    pub may_wait: bool,
}

/// The binding that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Prototype {
    /// The public key (SubjectPublicKeyInfo, DER); none asks the service to make one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Bytes>,
    /// The key's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Uses; none asks for what the key can serve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<KeyUse>,
    /// Applications and names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub use_with: Vec<UseWith>,
    /// From when on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<i64>,
    /// Until before when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_on_or_after: Option<i64>,
    /// By what a revocation code will be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation_code_identifier: Option<Bytes>,
}

/// A private key on its way to its owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// The RSA key, PKCS#8 DER.
    pub key: SecretBytes,
    /// 32 octets that only the owner has: encrypt the key under them.
    pub under: SecretBytes,
    /// What those are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An order carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// Which kind of order it was.
    pub operation: KeyOperation,
    /// The bindings made, renewed, ended or given back, as they are now.
    pub bindings: Vec<KeyBinding>,
    /// The private key, for a register or recover order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Delivery>,
}

/// An order carried out, or put off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyOutcome {
    /// Carried out.
    Done(Done),
    /// Put off; the keeper remembers it under its receipt.
    Later,
}

/// How many orders under a receipt are at which point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Carried out.
    pub success: u32,
    /// Refused or failed.
    pub failure: u32,
    /// Neither yet.
    pub pending: u32,
}

/// Why the keeper does not do it: all that a client learns. The audit log has the rule's own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyFailure {
    /// Too much to do.
    Busy,
    /// It went wrong.
    Internal,
    /// Authentication is wrong.
    NoAuthentication,
    /// Somebody else answers for such bindings.
    NotAuthoritative,
    /// It takes longer, and the client cannot wait.
    NotSynchronous,
    /// The operation is not offered.
    NotSupported,
    /// Something optional in the request is not supported.
    OptionalElement,
    /// The key's possession must be proven.
    PossessionRequired,
    /// Not allowed.
    Refused,
    /// No answers about another time than now.
    TimeInstantNotSupported,
    /// No answers about that time.
    TimeInstantOutOfRange,
    /// Too many answers to give any.
    TooMany,
}

impl KeyFailure {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Busy => "service-busy",
            Self::Internal => "service-internal",
            Self::NoAuthentication => "service-no-authentication",
            Self::NotAuthoritative => "service-not-authoritative",
            Self::NotSynchronous => "service-not-synchronous",
            Self::NotSupported => "service-not-supported",
            Self::OptionalElement => "service-optional-element",
            Self::PossessionRequired => "service-possession-required",
            Self::Refused => "service-refused",
            Self::TimeInstantNotSupported => "service-time-instant-not-supported",
            Self::TimeInstantOutOfRange => "service-time-instant-out-of-range",
            Self::TooMany => "service-too-many",
        }
    }
}

/// What an order is about: the binding by example.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AboutBinding {
    /// The order.
    pub order: Order,
    /// Which binding: it must fit exactly one.
    pub binding: KeyExample,
}
