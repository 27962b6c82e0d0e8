//! The service's side of the protocol, without I/O: bytes, time and randomness in, a reply out.
//!
//! ```text
//! bytes -> XML -> envelope -> signature of the whole -> typed request
//!       -> service, nonce (two-phase) -> operation: authentication, possession -> KeyService
//!       -> result -> signature -> envelope -> bytes
//! ```
//!
//! **Invariants:** before the nonce of a two-phase request has come back nothing is remembered of
//! it; a register, reissue, recover or revoke order reaches the service only authenticated, with
//! the proof of possession verified by the very key that is to be registered; *Pending* and
//! *Represent* are answered only where they were offered; a signature value is echoed only if it
//! was verified. Deliberately absent: call-backs for `PendingNotification` (the service sees it is
//! polled), and any promise that a compound is atomic.

mod admit;
mod authenticate;
mod operation;
mod respond_with;

use std::fmt::Debug;

use time::OffsetDateTime;

use self::admit::{Admitted, admit};
use crate::{
    dsig::{SignaturePolicy, Signer, key_info_text, signed_text},
    message::{
        Answer, AnswerBody, KeyInfo, Major, Mechanism, Minor, Operation, Request, RequestHead,
        ResultHead, is_id,
    },
    nonce::NonceBook,
    service::{Failure, KeyService, result_of},
    soap::{self, FaultCode, Version},
    xml::{Document, ElementRef, Limits},
};

/// When an operation takes two phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TwoPhase {
    /// Each time: a client that does not offer it is told to.
    #[default]
    Always,
    /// When the client offers it, and, under load, from everyone.
    UnderLoad,
    /// Never: a nonce that is presented all the same is ignored.
    Never,
}

/// What the responder insists on.
#[derive(Clone, Debug)]
pub struct ResponderPolicy {
    /// The URI that requests must be addressed to.
    pub service: String,
    /// Which algorithms count.
    pub signatures: SignaturePolicy,
    /// Whether questions (Locate, Validate) must be signed as a whole by a key that the service knows;
    /// orders carry an authentication of their own.
    pub signed_questions: bool,
    /// Operations that may take two phases.
    pub two_phase: Vec<Operation>,
    /// When they do.
    pub when: TwoPhase,
    /// At most so many bindings in a result.
    pub result_limit: usize,
    /// Bounds of a message.
    pub limits: Limits,
}

impl ResponderPolicy {
    /// For the service at `service`: orders take two phases, questions one; at most 64 bindings.
    #[must_use]
    pub fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            signatures: SignaturePolicy::default(),
            signed_questions: false,
            two_phase: vec![
                Operation::Register,
                Operation::Reissue,
                Operation::Revoke,
                Operation::Recover,
            ],
            when: TwoPhase::Always,
            result_limit: 64,
            limits: Limits::MESSAGE,
        }
    }
}

/// What comes with a request.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Now.
    pub now: OffsetDateTime,
    /// Who sends, as far as the channel says: a certificate's digest, an address.
    pub requester: &'a [u8],
    /// Whether the channel is confidential and tells the client who serves: without that, a
    /// `NotBoundAuthentication` is refused.
    pub confidential: bool,
    /// Whether the channel has proven who asks: a question on it needs no signature.
    pub proven: bool,
    /// Whether more is asked of the service than it likes to do in one phase.
    pub under_load: bool,
}

/// An answer on the level of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Media type.
    pub content_type: &'static str,
    /// The document.
    pub body: String,
    /// The operation, if one was recognised.
    pub operation: Option<Operation>,
    /// By what name the request, or the first refused one in a compound, was refused.
    pub refusal: Option<&'static str>,
}

/// A refusal on its way into a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) major: Major,
    pub(crate) minor: Minor,
    pub(crate) code: &'static str,
}

impl Refused {
    const fn sender(minor: Minor, code: &'static str) -> Self {
        Self { major: Major::Sender, minor, code }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let (major, minor) = result_of(failure);
        Self { major, minor, code: failure.code() }
    }
}

/// The key that signs results, and what results say of it.
#[derive(Debug)]
pub struct AnswerKey {
    signer: Box<dyn Signer + Send + Sync>,
    /// As it stands in a signature.
    info: String,
}

impl AnswerKey {
    /// Results carry the public key itself.
    #[must_use]
    pub fn bare(signer: Box<dyn Signer + Send + Sync>) -> Self {
        let info = signer.public_key().map(|key| key_info_text(&KeyInfo::key(key).to_element()));
        Self { signer, info: info.unwrap_or_default() }
    }

    /// Results carry `info`: certificates, by which clients find their way from the key to an
    /// issuer they know.
    #[must_use]
    pub fn vouched_for(signer: Box<dyn Signer + Send + Sync>, info: &KeyInfo) -> Self {
        Self { signer, info: key_info_text(&info.to_element()) }
    }
}

/// The responder: policy, nonces, and the key that signs results. Many threads may use one.
#[derive(Debug)]
pub struct Responder {
    policy: ResponderPolicy,
    nonces: NonceBook,
    key: Option<AnswerKey>,
}

/// Everything one request is worked on with.
pub(crate) struct Work<'w> {
    pub(crate) policy: &'w ResponderPolicy,
    pub(crate) service: &'w mut dyn KeyService,
    pub(crate) random: &'w mut dyn FnMut() -> [u8; 16],
    pub(crate) circumstances: Circumstances<'w>,
    pub(crate) refusal: Option<&'static str>,
}

impl Work<'_> {
    /// A fresh Id that nobody can guess.
    pub(crate) fn fresh_id(&mut self) -> String {
        let mut id = String::with_capacity(33);
        id.push('_');
        for byte in (self.random)() {
            for digit in [byte >> 4, byte & 15] {
                id.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        id
    }

    pub(crate) fn note(&mut self, code: &'static str) {
        self.refusal.get_or_insert(code);
    }
}

impl Responder {
    /// A responder; without `key`, results are not signed.
    #[must_use]
    pub const fn new(policy: ResponderPolicy, nonces: NonceBook, key: Option<AnswerKey>) -> Self {
        Self { policy, nonces, key }
    }

    /// Answers one document. `random` gives 16 fresh random bytes at each call.
    pub fn respond(
        &self,
        service: &mut dyn KeyService,
        bytes: &[u8],
        circumstances: Circumstances<'_>,
        random: &mut dyn FnMut() -> [u8; 16],
    ) -> Reply {
        let document = match Document::parse(bytes, &self.policy.limits) {
            Ok(document) => document,
            Err(r) => return fault(Version::V11, FaultCode::Sender, &r.to_string(), r.code()),
        };
        let (version, message) = soap::open(&document);
        let message = match message {
            Ok(message) => message,
            Err(r) => return fault(version, FaultCode::from(r), &r.to_string(), r.code()),
        };
        let policy = &self.policy;
        let mut work = Work { policy, service, random, circumstances, refusal: None };
        let (answer, operation) = answer(&self.nonces, message, &mut work);
        let refusal = work.refusal;
        let text = answer.to_xml_with_content();
        let text = match &self.key {
            Some(AnswerKey { signer, info }) => {
                signed_text(text, &answer.head.id, signer.as_ref(), info)
            }
            None => Ok(text.0),
        };
        let Ok(text) = text else {
            return fault(version, FaultCode::Receiver, "the answer could not be signed", "signer");
        };
        let body = soap::envelop(version, text);
        Reply { status: 200, content_type: version.content_type(), body, operation, refusal }
    }
}

fn fault(version: Version, code: FaultCode, reason: &str, name: &'static str) -> Reply {
    Reply {
        status: code.http_status(version),
        content_type: version.content_type(),
        body: soap::fault(version, code, reason),
        operation: None,
        refusal: Some(name),
    }
}

/// The answer to `message`, whatever it is.
fn answer(
    nonces: &NonceBook,
    message: ElementRef<'_>,
    work: &mut Work<'_>,
) -> (Answer, Option<Operation>) {
    let request = match Request::read(message) {
        Ok(request) => request,
        Err(r) => {
            let (major, minor) = r.result();
            let mut answer =
                refused(work, Refused { major, minor, code: r.code() }, AnswerBody::Result);
            let id = message.attribute("Id").filter(|id| is_id(id));
            answer.head.request_id = id.map(str::to_owned);
            return (answer, None);
        }
    };
    let operation = request.operation();
    let mut answer = match admit(nonces, message, &request, work) {
        Ok(Admitted::Signed(value)) => {
            let mut answer = operation::perform(message, &request, &request.head, work);
            let echo = request.head.offers(&Mechanism::RequestSignatureValue);
            answer.head.request_signature = value.filter(|_| echo);
            answer
        }
        Ok(Admitted::Represent(nonce)) => {
            let mut head =
                ResultHead::new(&work.fresh_id(), &work.policy.service, Major::Represent, None);
            head.nonce = Some(nonce);
            Answer { head, body: operation::empty(operation) }
        }
        Err(refusal) => refused(work, refusal, operation::empty(operation)),
    };
    finish(&mut answer, &request.head);
    (answer, Some(operation))
}

/// What every answer to `request` says.
fn finish(answer: &mut Answer, request: &RequestHead) {
    answer.head.request_id = Some(request.id.clone());
    if answer.head.major == Major::Success {
        answer.head.opaque.clone_from(&request.opaque);
    }
}

fn refused(work: &mut Work<'_>, refusal: Refused, body: AnswerBody) -> Answer {
    work.note(refusal.code);
    let Refused { major, minor, .. } = refusal;
    let head = ResultHead::new(&work.fresh_id(), &work.policy.service, major, Some(minor));
    Answer { head, body }
}
