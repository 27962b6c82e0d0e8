//! What a key service does, in words that know no XML: the responder puts XKMS in front of it, and
//! another front can be put there as well.

use model::Secret;
/// Why a service does not do it.
pub use model::keys::{Knowledge, order::KeyFailure as Failure};
use time::OffsetDateTime;

use crate::{
    dsig::{PublicKey, VerifyingKey},
    message::{
        Binding, Counts, KeyBinding, KeyInfo, Major, Minor, Operation, PrototypeKeyBinding,
        RespondWith, UnverifiedKeyBinding,
    },
    xenc::RsaKeyPair,
};

/// A question about keys.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The example that answers must be like: key, all uses, all applications.
    pub binding: &'a Binding,
    /// The instant asked about; `None` is now.
    pub instant: Option<OffsetDateTime>,
    /// Now.
    pub now: OffsetDateTime,
    /// What answers shall carry; empty leaves it to the service.
    pub respond_with: &'a [RespondWith],
    /// At most so many answers.
    pub limit: usize,
}

/// Answers to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// At most as many as were asked for.
    pub bindings: Vec<T>,
    /// Whether there are more.
    pub more: bool,
    /// What the answer rests on.
    pub knowledge: Option<Knowledge>,
}

/// A key under which a request may be authenticated.
#[derive(Clone, Debug)]
pub enum AuthenticationKey {
    /// A key pair's public half.
    Public(PublicKey),
    /// A shared secret, as it goes into the MAC.
    Mac(Secret<Vec<u8>>),
}

impl AuthenticationKey {
    /// As signatures are verified with it.
    pub(crate) const fn verifying(&self) -> VerifyingKey<'_> {
        match self {
            Self::Public(key) => VerifyingKey::Public(key),
            Self::Mac(secret) => VerifyingKey::Mac(secret),
        }
    }
}

/// Who asks, after it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester<'a> {
    /// The holder of the key of this name, as the service named it.
    Key(&'a str),
    /// The bearer of a value that says nothing of the binding; the service must judge it.
    NotBound {
        /// Its kind.
        protocol: &'a str,
        /// Its value.
        value: &'a [u8],
    },
    /// The bearer of a revocation code; the service must compare it.
    RevocationCode(&'a [u8]),
}

/// An order about a binding.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Who asks.
    pub requester: Requester<'a>,
    /// The public key whose possession was proven, if it was.
    pub possessed: Option<&'a PublicKey>,
    /// What the answer shall carry.
    pub respond_with: &'a [RespondWith],
    /// Now.
    pub now: OffsetDateTime,
    /// Under what the service must remember an order that it does not carry out at once.
    pub receipt: Receipt<'a>,
    /// Whether the client can wait. If not, the service must not put the order off.
    pub may_wait: bool,
}

/// By what an order that was put off is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt<'a> {
    /// Unguessable; the client got it in the answer *Pending*.
    pub response_id: &'a str,
    /// The Id of the request that was put off.
    pub request_id: &'a str,
}

/// A private key on its way to its owner.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The key.
    pub key: RsaKeyPair,
    /// 32 octets that only the owner has.
    pub under: Secret<Vec<u8>>,
    /// What those are called.
    pub name: Option<String>,
}

/// An order carried out.
#[derive(Clone, Debug)]
pub struct Done {
    /// Which kind of order it was.
    pub operation: Operation,
    /// The bindings made, renewed, ended or given back, as they are now.
    pub bindings: Vec<KeyBinding>,
    /// The private key, for a register or recover order.
    pub private_key: Option<Delivery>,
}

/// An order carried out, or put off.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Carried out.
    Done(Done),
    /// Put off; the service remembers it under its receipt.
    Later,
}

/// The result that tells a client so.
pub(crate) const fn result_of(failure: Failure) -> (Major, Minor) {
    match failure {
        Failure::Busy => (Major::Receiver, Minor::Refused),
        Failure::Internal => (Major::Receiver, Minor::Failure),
        Failure::NoAuthentication => (Major::Sender, Minor::NoAuthentication),
        Failure::NotAuthoritative => (Major::Receiver, Minor::NoMatch),
        Failure::NotSynchronous => (Major::Receiver, Minor::NotSynchronous),
        Failure::NotSupported => (Major::Sender, Minor::MessageNotSupported),
        Failure::OptionalElement => (Major::Receiver, Minor::OptionalElementNotSupported),
        Failure::PossessionRequired => (Major::Sender, Minor::ProofOfPossessionRequired),
        Failure::Refused => (Major::Sender, Minor::Refused),
        Failure::TimeInstantNotSupported => (Major::Receiver, Minor::TimeInstantNotSupported),
        Failure::TimeInstantOutOfRange => (Major::Receiver, Minor::TimeInstantOutOfRange),
        Failure::TooMany => (Major::Receiver, Minor::TooManyResponses),
    }
}

/// A key service. Answers carry what is certified, never what was asked for.
pub trait KeyService {
    /// Keys like this one, that nobody vouches for.
    fn locate(&mut self, query: &Query<'_>) -> Result<Found<UnverifiedKeyBinding>, Failure>;

    /// Keys like this one, and what is known of them.
    fn validate(&mut self, query: &Query<'_>) -> Result<Found<KeyBinding>, Failure>;

    /// The keys that may authenticate an order about this binding, each with a name for its holder.
    /// Only a few are tried. A failure is the order's: that the binding is elsewhere, say.
    fn authentication_keys(
        &mut self,
        operation: Operation,
        binding: &Binding,
    ) -> Result<Vec<(String, AuthenticationKey)>, Failure>;

    /// None of those keys verified, or there were none: an attempt to be counted.
    fn authentication_failed(&mut self, operation: Operation, binding: &Binding);

    /// The key of whoever signed a whole message, given what the signature says of it. A message by
    /// a key that is not known here counts as not signed.
    fn message_key(&mut self, hint: Option<&KeyInfo>) -> Option<AuthenticationKey>;

    /// Binds a key.
    fn register(
        &mut self,
        order: &Order<'_>,
        asked: &PrototypeKeyBinding,
    ) -> Result<Outcome, Failure>;

    /// Gives new credentials.
    fn reissue(&mut self, order: &Order<'_>, binding: &KeyBinding) -> Result<Outcome, Failure>;

    /// Ends a binding.
    fn revoke(&mut self, order: &Order<'_>, binding: &KeyBinding) -> Result<Outcome, Failure>;

    /// Gives a private key back.
    fn recover(&mut self, order: &Order<'_>, binding: &KeyBinding) -> Result<Outcome, Failure>;

    /// What became of an order that was put off; `None` if there is none under this receipt.
    fn collect(&mut self, receipt: &Receipt<'_>) -> Option<Result<Outcome, Failure>>;

    /// How far an order that was put off is; `None` if there is none under this receipt.
    fn progress(&mut self, receipt: &Receipt<'_>) -> Option<Counts>;
}
