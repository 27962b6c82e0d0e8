//! What the two processes of `vouchsafe-trust` say to each other: the frames of [`crate::child`],
//! a request and its answer in turn on each connection. Questions and what is found are in octets
//! instead of JSON.
//!
//! The keeper believes of a request that the reader verified what it says was verified, and no
//! more: it judges every right itself, from its own records and its own clock.

mod packed;

use std::io::{Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::packed::Often;
use super::{
    Found, KeyExample, Query,
    order::{
        AboutBinding, AuthenticationKey, Counts, KeyFailure, KeyOperation, KeyOutcome, NamedKey,
        Order, Prototype, Receipt,
    },
};
use crate::{
    api::Bytes,
    child::{self, FrameError},
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

impl KeyRequest {
    /// Sends it in one write.
    ///
    /// # Errors
    /// As [`child::send`].
    pub fn send(&self, to: &mut impl Write) -> Result<(), FrameError> {
        send(to, self)
    }

    /// Receives one; `None` if the stream ended between two frames.
    ///
    /// # Errors
    /// As [`child::receive`], and [`FrameError::Octets`].
    pub fn receive(from: &mut impl Read) -> Result<Option<Self>, FrameError> {
        receive(from)
    }
}

impl KeyAnswer {
    /// Sends it in one write.
    ///
    /// # Errors
    /// As [`child::send`].
    pub fn send(&self, to: &mut impl Write) -> Result<(), FrameError> {
        send(to, self)
    }

    /// Receives one; `None` if the stream ended between two frames.
    ///
    /// # Errors
    /// As [`child::receive`], and [`FrameError::Octets`].
    pub fn receive(from: &mut impl Read) -> Result<Option<Self>, FrameError> {
        receive(from)
    }
}

fn send<M: Often + Serialize>(to: &mut impl Write, message: &M) -> Result<(), FrameError> {
    child::send_frame(to, |frame| {
        if message.pack_often(frame) {
            return Ok(());
        }
        serde_json::to_writer(frame, message).map_err(FrameError::Malformed)
    })
}

fn receive<M: Often + DeserializeOwned>(from: &mut impl Read) -> Result<Option<M>, FrameError> {
    let Some(frame) = child::receive_frame(from)? else { return Ok(None) };
    let Some((tag, mut rest)) = frame.split_first().filter(|(tag, _)| packed::is_tag(**tag)) else {
        return child::read(&frame).map(Some);
    };
    let message = M::unpack_often(*tag, &mut rest).filter(|_| rest.is_empty());
    message.map(Some).ok_or(FrameError::Octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Secret,
        keys::{
            Anchor, IssuerSerial, KeyAspects, KeyBinding, KeyFinding, KeyStatus, KeyUse, Knowledge,
            UseWith, order::SecretBytes,
        },
    };

    fn found() -> Found {
        let use_with = vec![UseWith { application: "urn:a".into(), identifier: "Müller".into() }];
        let binding = |name: Option<&str>, status| KeyBinding {
            id: "k1".into(),
            key: Bytes(vec![0, 255, 7]),
            name: name.map(str::to_owned),
            certificates: vec![Bytes(vec![1; 300]), Bytes(Vec::new())],
            uses: vec![KeyUse::Encryption, KeyUse::Exchange, KeyUse::Signature],
            use_with: use_with.clone(),
            not_before: i64::MIN,
            not_on_or_after: 7,
            status,
        };
        let bad = KeyAspects { signature: KeyFinding::Bad, ..KeyAspects::all(KeyFinding::Open) };
        let all = [Some(KeyStatus::judged(bad, Some("why"))), None];
        let path = vec!["A".to_owned(), "B".to_owned()];
        Found {
            bindings: all.into_iter().zip([Some("n"), None]).map(|(s, n)| binding(n, s)).collect(),
            more: true,
            knowledge: Some(Knowledge { anchor: Anchor::Bridge { path }, as_of: 9, pki_calls: 3 }),
        }
    }

    fn query() -> Query {
        let serial = IssuerSerial { issuer: "CN=a".into(), serial: Bytes(vec![9]) };
        let binding = KeyExample {
            key: Some(Bytes(vec![1])),
            name: Some("n".into()),
            certificates: vec![Bytes(vec![2])],
            crls: vec![Bytes(vec![3]), Bytes(vec![4])],
            issuer_serial: Some(serial),
            uses: vec![KeyUse::Signature],
            use_with: vec![UseWith { application: "a".into(), identifier: "i".into() }],
        };
        Query { binding, instant: Some(-1), limit: 64 }
    }

    /// What is the same after its way, and is in octets or not; cut short it is nothing.
    fn goes_and_comes<M>(message: &M, octets: bool)
    where
        M: Often + Serialize + DeserializeOwned,
    {
        let mut wire = Vec::new();
        send(&mut wire, message).unwrap();
        assert_eq!(packed::is_tag(wire[4]), octets);
        let back: M = receive(&mut wire.as_slice()).unwrap().unwrap();
        let json = |message: &M| serde_json::to_string(message).unwrap();
        assert_eq!(json(&back), json(message));
        for cut in 0..wire.len() - 4 {
            assert!(receive::<M>(&mut frame(&wire[4..4 + cut]).as_slice()).is_err());
        }
        let long = frame(&[&wire[4..], &[0]].concat());
        assert!(receive::<M>(&mut long.as_slice()).is_err());
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        let fill = |frame: &mut Vec<u8>| {
            frame.extend_from_slice(body);
            Ok(())
        };
        child::send_frame(&mut wire, fill).unwrap();
        wire
    }

    #[test]
    fn questions_and_what_is_found_are_in_octets_and_nothing_else() {
        let asked = KeyRequest::Validate(query());
        let signer = Bytes(vec![5; 91]);
        for (request, octets) in [
            (KeyRequest::Locate(query()), true),
            (KeyRequest::Locate(Query::default()), true),
            (asked.clone(), true),
            (KeyRequest::AskedBy { signer: signer.clone(), question: Box::new(asked) }, true),
            (KeyRequest::MessageKey(query().binding), true),
            (KeyRequest::AskedBy { signer, question: Box::new(KeyRequest::Health) }, false),
            (KeyRequest::Health, false),
        ] {
            goes_and_comes(&request, octets);
        }
        let ca = |name: &str| Knowledge { anchor: Anchor::Ca(name.into()), ..Knowledge::own(1) };
        for (answer, octets) in [
            (KeyAnswer::Found(found()), true),
            (KeyAnswer::Found(Found { knowledge: Some(ca("CN=c")), ..Found::default() }), true),
            (KeyAnswer::Found(Found { knowledge: Some(Knowledge::own(1)), ..found() }), true),
            (KeyAnswer::Key(None), true),
            (KeyAnswer::Key(Some(AuthenticationKey::Public(Bytes(vec![1])))), true),
            (KeyAnswer::Noted, false),
        ] {
            goes_and_comes(&answer, octets);
        }
    }

    #[test]
    fn what_is_no_message_in_octets_is_refused_and_costs_no_memory() {
        for body in [
            &[0][..],
            &[1],
            &[3, 0, 0, 0, 0, 3],
            // Lists of four thousand million.
            &[5, 255, 255, 255, 255],
            &[4, 0, 0, 255, 255, 255, 255],
            &[6, 2],
        ] {
            let wire = frame(body);
            let octets = |error| matches!(error, FrameError::Octets);
            assert!(octets(KeyRequest::receive(&mut wire.as_slice()).unwrap_err()), "{body:?}");
            assert!(octets(KeyAnswer::receive(&mut wire.as_slice()).unwrap_err()), "{body:?}");
        }
    }

    #[test]
    fn a_request_with_a_secret_round_trips_and_its_debug_hides_it() {
        let mac = AuthenticationKey::Mac(SecretBytes::new(Secret::new(b"topsecret".to_vec())));
        let answer = KeyAnswer::Key(Some(mac));
        assert!(!format!("{answer:?}").contains("115"), "{answer:?}");
        let mut wire = Vec::new();
        answer.send(&mut wire).unwrap();
        let back = KeyAnswer::receive(&mut wire.as_slice()).unwrap();
        let Some(KeyAnswer::Key(Some(AuthenticationKey::Mac(secret)))) = back else {
            panic!("another answer came back");
        };
        assert_eq!(secret.0.expose(), b"topsecret");
    }
}
