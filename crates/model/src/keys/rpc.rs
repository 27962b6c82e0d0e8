//! What the two processes of `vouchsafe-trust` say to each other: the frames of [`crate::child`],
//! a request and its answer in turn on each connection.
//!
//! The keeper believes of a request that the reader verified what it says was verified, and no
//! more: it judges every right itself, from its own records and its own clock.

use serde::{Deserialize, Serialize};

use super::{
    Found, KeyExample, Query,
    order::{
        AboutBinding, AuthenticationKey, Counts, KeyFailure, KeyOperation, KeyOutcome, NamedKey,
        Order, Prototype, Receipt,
    },
};
use crate::{
    api::Bytes,
    guest::{GuestAnswer, GuestRequest},
};

/// What the reader asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyRequest {
    /// Keys like this one: [`KeyAnswer::Found`] without status.
    Locate(Query),
    /// Keys like this one and what is known of them: [`KeyAnswer::Found`] with status.
    Validate(Query),
    /// A question in a message that this key (SubjectPublicKeyInfo, DER) signed, as the reader
    /// verified: the answer to the question.
    AskedBy {
        /// The key.
        signer: Bytes,
        /// The question: [`KeyRequest::Locate`] or [`KeyRequest::Validate`].
        question: Box<Self>,
    },
    /// The keys that may authenticate an order about this binding: [`KeyAnswer::Keys`].
    AuthenticationKeys {
        /// Which kind of order.
        operation: KeyOperation,
        /// About which binding.
        binding: KeyExample,
    },
    /// None of those keys verified, an attempt to be counted: [`KeyAnswer::Noted`].
    AuthenticationFailed {
        /// Which kind of order.
        operation: KeyOperation,
        /// About which binding.
        binding: KeyExample,
    },
    /// The key of whoever signed a whole message: [`KeyAnswer::Key`].
    MessageKey(KeyExample),
    /// Binds a key: [`KeyAnswer::Outcome`].
    Register {
        /// The order.
        order: Order,
        /// What is asked for.
        asked: Prototype,
    },
    /// Gives new credentials: [`KeyAnswer::Outcome`].
    Reissue(AboutBinding),
    /// Ends a binding: [`KeyAnswer::Outcome`].
    Revoke(AboutBinding),
    /// Gives a private key back: [`KeyAnswer::Outcome`].
    Recover(AboutBinding),
    /// What became of an order that was put off: [`KeyAnswer::Collected`].
    Collect(Receipt),
    /// How far an order that was put off is: [`KeyAnswer::Progress`].
    Progress(Receipt),
    /// The CA's certificate, DER: [`KeyAnswer::Published`].
    CaCertificate,
    /// The newest full CRL, DER: [`KeyAnswer::Published`].
    Crl,
    /// The newest delta CRL, DER: [`KeyAnswer::Published`].
    DeltaCrl,
    /// Answers an OCSP request (DER): [`KeyAnswer::Published`].
    Ocsp(Bytes),
    /// The reader refused something by itself: [`KeyAnswer::Noted`], once it is in the audit log.
    Refused {
        /// What was asked, kebab-case.
        event: String,
        /// Name of the refusal, kebab-case.
        refusal: String,
        /// Who asked, as far as it is known.
        actor: String,
    },
    /// Whether orders can be taken: [`KeyAnswer::Noted`] or [`KeyAnswer::Failed`].
    Health,
    /// About a guest's connection: [`KeyAnswer::Guest`].
    Guest(GuestRequest),
}

/// What the keeper answers. Each request has its kind of answer, or [`KeyAnswer::Failed`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyAnswer {
    /// Bindings.
    Found(Found),
    /// Keys, at most a few.
    Keys(Vec<NamedKey>),
    /// A key, if one is known.
    Key(Option<AuthenticationKey>),
    /// What came of an order.
    Outcome(KeyOutcome),
    /// What became of an order that was put off; none if there is none under this receipt.
    Collected(Option<Collected>),
    /// How far an order that was put off is; none if there is none under this receipt.
    Progress(Option<Counts>),
    /// DER.
    Published(Bytes),
    /// It is written down.
    Noted,
    /// About a guest's connection.
    Guest(GuestAnswer),
    /// It was not done.
    Failed(KeyFailure),
}

/// What became of an order that was put off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Collected {
    /// It was carried out, or still waits.
    Outcome(KeyOutcome),
    /// It was refused.
    Failed(KeyFailure),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Secret, child, keys::order::SecretBytes};

    #[test]
    fn a_request_with_a_secret_round_trips_and_its_debug_hides_it() {
        let mac = AuthenticationKey::Mac(SecretBytes::new(Secret::new(b"topsecret".to_vec())));
        let answer = KeyAnswer::Key(Some(mac));
        assert!(!format!("{answer:?}").contains("115"), "{answer:?}");
        let mut wire = Vec::new();
        child::send(&mut wire, &answer).unwrap();
        let back: Option<KeyAnswer> = child::receive(&mut wire.as_slice()).unwrap();
        let Some(KeyAnswer::Key(Some(AuthenticationKey::Mac(secret)))) = back else {
            panic!("another answer came back");
        };
        assert_eq!(secret.0.expose(), b"topsecret");
    }
}
