//! The client's side of the protocol, without I/O.
//!
//! ```text
//! begin ──► first ──Represent──► second ──┐
//!             │                           ├─► done
//!             └──Pending──► waiting ──────┘
//!                            ▲   │ poll
//!                            └───┘
//! ```
//!
//! **Invariants:** an answer is taken only if it answers this request (`RequestId`, kind, service),
//! only signed by the service's key unless the caller chose otherwise ([`ServiceTrust`]), and read
//! from the signed element; what was not offered (*Represent*, *Pending*) is not followed; a request
//! is presented again once.

use thiserror::Error;

use crate::{
    dsig::{
        KeyError, Place, SignaturePolicy, SignatureRejection, Signer, detached_signature,
        sign_enveloped, verify,
    },
    message::{
        Answer, AnswerBody, Authentication, Major, Mechanism, MessageRejection, Operation, Request,
        RequestBody, RequestHead, RevokeProof, signature_of,
    },
    service::AuthenticationKey,
    soap::{self, SoapRejection, Version},
    xml::{Document, Element, Limits, XmlRejection},
};

/// Why an answer is not taken. Alphabetical.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientRejection {
    /// The service answered with a SOAP fault.
    #[error("the service answered with a fault: {0}")]
    Fault(String),
    /// Nothing is awaited.
    #[error("no answer is awaited")]
    Finished,
    /// The request could not be signed.
    #[error("the request could not be signed")]
    Key(#[source] KeyError),
    /// The answer is of another kind than the request.
    #[error("the answer is of another kind than the request")]
    Kind,
    /// The answer is no message.
    #[error("the answer is no message")]
    Message(#[source] MessageRejection),
    /// Asked to present again or to wait, which was not offered.
    #[error("the service asks for what was not offered")]
    NotOffered,
    /// The opaque data is not what was sent.
    #[error("the service did not return the opaque data as it was")]
    Opaque,
    /// Asked to present again twice, or without a nonce.
    #[error("the service asks to present the request again for no reason")]
    RepresentTwice,
    /// It answers another request.
    #[error("the answer is to another request")]
    RequestId,
    /// It does not carry the value of the request's signature.
    #[error("the answer does not carry the request's signature value")]
    RequestSignatureValue,
    /// It comes from another service.
    #[error("the answer comes from another service")]
    Service,
    /// The signature of the answer does not count.
    #[error("the signature of the answer does not count")]
    Signature(#[source] SignatureRejection),
    /// The answer is in no envelope that is known.
    #[error("the envelope of the answer does not hold one message")]
    Soap(#[source] SoapRejection),
    /// The answer is no XML that is read.
    #[error("the answer is not read as XML")]
    Xml(#[source] XmlRejection),
}

impl ClientRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Fault(_) => "answer-fault",
            Self::Finished => "answer-not-awaited",
            Self::Key(_) => "request-key",
            Self::Kind => "answer-kind",
            Self::Message(_) => "answer-message",
            Self::NotOffered => "answer-not-offered",
            Self::Opaque => "answer-opaque",
            Self::RepresentTwice => "answer-represent-twice",
            Self::RequestId => "answer-request-id",
            Self::RequestSignatureValue => "answer-request-signature-value",
            Self::Service => "answer-service",
            Self::Signature(_) => "answer-signature",
            Self::Soap(_) => "answer-soap",
            Self::Xml(_) => "answer-xml",
        }
    }
}

/// Which answers of the service a client takes.
#[derive(Clone, Debug)]
pub enum ServiceTrust {
    /// Those that this key of the service signed.
    Key(AuthenticationKey),
    /// All, signed or not: who answers, the channel alone says, and a signature is not looked at.
    UnsignedAnswersAccepted,
}

/// How a client speaks to one service.
#[derive(Debug)]
pub struct Client<'k> {
    /// The service's URI.
    pub service: String,
    /// The envelope.
    pub version: Version,
    /// The key that signs requests as a whole.
    pub signer: Option<&'k dyn Signer>,
    /// Which answers are taken.
    pub trust: ServiceTrust,
    /// Which algorithms count.
    pub signatures: SignaturePolicy,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this document, and hand its answer to [`Exchange::receive`].
    Send(String),
    /// The answer comes later: wait, then send what [`Exchange::poll`] makes.
    Wait,
    /// The answer. It is final; whether it is good, its head says.
    Done(Box<Answer>),
}

/// One request until its final answer.
#[derive(Debug)]
pub struct Exchange<'c> {
    client: &'c Client<'c>,
    request: Request,
    /// The operation asked for first.
    operation: Operation,
    /// The Id and signature of what was sent last.
    sent: Option<(String, Option<Vec<u8>>)>,
    /// The Id of the first request.
    first_id: String,
    represented: bool,
    response_id: Option<String>,
}

impl<'c> Exchange<'c> {
    /// Begins with `request`, whose head and body are complete; the document to send.
    pub fn begin(
        client: &'c Client<'c>,
        request: Request,
    ) -> Result<(Self, String), ClientRejection> {
        let operation = request.operation();
        let first_id = request.head.id.clone();
        let mut exchange = Self {
            client,
            request,
            operation,
            sent: None,
            first_id,
            represented: false,
            response_id: None,
        };
        let request = exchange.request.clone();
        let document = exchange.send(&request)?;
        Ok((exchange, document))
    }

    fn send(&mut self, request: &Request) -> Result<String, ClientRejection> {
        let mut element = request.to_element();
        let value = match self.client.signer {
            Some(signer) => {
                let info =
                    signer.public_key().map(|key| crate::message::KeyInfo::key(key).to_element());
                Some(sign_enveloped(&mut element, signer, info).map_err(ClientRejection::Key)?)
            }
            None => None,
        };
        self.sent = Some((request.head.id.clone(), value));
        Ok(soap::wrap(self.client.version, &element))
    }

    /// Takes the answer to what was sent last. `fresh_id` is used if the request is presented again.
    pub fn receive(&mut self, bytes: &[u8], fresh_id: &str) -> Result<Step, ClientRejection> {
        let (sent_id, sent_value) = self.sent.take().ok_or(ClientRejection::Finished)?;
        let document = Document::parse(bytes, &Limits::MESSAGE).map_err(ClientRejection::Xml)?;
        let answer = self.read(&document)?;
        let head = &answer.head;
        if head.service != self.client.service {
            return Err(ClientRejection::Service);
        }
        if head.request_id.as_deref() != Some(&sent_id) {
            return Err(ClientRejection::RequestId);
        }
        self.check_kind(&answer.body)?;
        let request = &self.request.head;
        match &head.major {
            Major::Represent => self.represent(&answer, fresh_id),
            Major::Pending if request.offers(&Mechanism::Pending) => {
                self.response_id = Some(head.id.clone());
                Ok(Step::Wait)
            }
            Major::Pending => Err(ClientRejection::NotOffered),
            major @ (Major::Success
            | Major::VersionMismatch
            | Major::Sender
            | Major::Receiver
            | Major::Other(_)) => {
                let success = *major == Major::Success;
                let echo =
                    request.offers(&Mechanism::RequestSignatureValue) && sent_value.is_some();
                if success && echo && head.request_signature != sent_value {
                    return Err(ClientRejection::RequestSignatureValue);
                }
                if success && head.opaque != request.opaque {
                    return Err(ClientRejection::Opaque);
                }
                Ok(Step::Done(Box::new(answer)))
            }
        }
    }

    /// The answer, read from the signed element if the service's key is known.
    fn read(&self, document: &Document) -> Result<Answer, ClientRejection> {
        let message = soap::open(document).1.map_err(ClientRejection::Soap)?;
        if let Some(reason) = soap::fault_reason(message) {
            return Err(ClientRejection::Fault(reason.to_owned()));
        }
        let key = match &self.client.trust {
            ServiceTrust::Key(key) => key.verifying(),
            ServiceTrust::UnsignedAnswersAccepted => {
                return Answer::read(message).map_err(ClientRejection::Message);
            }
        };
        let signature = signature_of(message);
        let signature = signature.ok_or(ClientRejection::Signature(SignatureRejection::Missing))?;
        let place = Place { message, target: message };
        let signed = verify(signature, place, key, self.client.signatures);
        let signed = signed.map_err(ClientRejection::Signature)?.read(Answer::read);
        Ok(signed.map_err(ClientRejection::Message)?.into_inner())
    }

    fn check_kind(&self, body: &AnswerBody) -> Result<(), ClientRejection> {
        let right = matches!(
            (self.operation, body),
            (_, AnswerBody::Result)
                | (Operation::Locate, AnswerBody::Locate(_))
                | (Operation::Validate, AnswerBody::Validate(_))
                | (Operation::Register, AnswerBody::Register(..))
                | (Operation::Reissue, AnswerBody::Reissue(_))
                | (Operation::Revoke, AnswerBody::Revoke(_))
                | (Operation::Recover, AnswerBody::Recover(..))
                | (Operation::Compound, AnswerBody::Compound(_))
                | (Operation::Status, AnswerBody::Status(_))
        );
        if right || self.operation == Operation::Pending {
            Ok(())
        } else {
            Err(ClientRejection::Kind)
        }
    }

    fn represent(&mut self, answer: &Answer, fresh_id: &str) -> Result<Step, ClientRejection> {
        if !self.request.head.offers(&Mechanism::Represent) {
            return Err(ClientRejection::NotOffered);
        }
        let nonce = answer.head.nonce.clone().filter(|_| !self.represented);
        self.represented = true;
        let nonce = Some(nonce.ok_or(ClientRejection::RepresentTwice)?);
        let original = Some(self.first_id.clone());
        let head = &mut self.request.head;
        (head.nonce, head.original_request_id, head.id) = (nonce, original, fresh_id.to_owned());
        let request = self.request.clone();
        self.send(&request).map(Step::Send)
    }

    /// The request that asks for the answer that was put off, under a fresh Id.
    pub fn poll(&mut self, fresh_id: &str) -> Result<String, ClientRejection> {
        self.ask(fresh_id, |response_id| RequestBody::Pending { response_id })
    }

    fn ask(
        &mut self,
        fresh_id: &str,
        body: impl FnOnce(String) -> RequestBody,
    ) -> Result<String, ClientRejection> {
        let response_id = self.response_id.clone().ok_or(ClientRejection::Finished)?;
        let waiting = &self.request.head;
        let head = RequestHead {
            opaque: waiting.opaque.clone(),
            mechanisms: waiting.mechanisms.clone(),
            respond_with: waiting.respond_with.clone(),
            original_request_id: Some(waiting.id.clone()),
            ..RequestHead::new(fresh_id, &self.client.service)
        };
        self.send(&Request { head, body: body(response_id) })
    }

    /// A request for the state of the answer that was put off, to be sent by an exchange of its own.
    #[must_use]
    pub fn status_request(&self, fresh_id: &str) -> Option<Request> {
        let response_id = self.response_id.clone()?;
        let head = RequestHead {
            original_request_id: Some(self.request.head.id.clone()),
            ..RequestHead::new(fresh_id, &self.client.service)
        };
        Some(Request { head, body: RequestBody::Status { response_id } })
    }
}

/// Signs the binding of an order: by `authenticator`, a shared secret or a registered key, and by
/// `possessed`, the key that is to be bound. The binding must have an Id.
pub fn sign_order(
    body: &mut RequestBody,
    authenticator: &dyn Signer,
    possessed: Option<&dyn Signer>,
) -> Result<(), KeyError> {
    let sign = |target: &Element| -> Result<(Authentication, Option<Element>), KeyError> {
        let key_binding = Some(detached_signature(target, authenticator, None)?);
        let proof = possessed.map(|key| detached_signature(target, key, None)).transpose()?;
        Ok((Authentication { key_binding, not_bound: None }, proof))
    };
    match body {
        RequestBody::Register { prototype, authentication, possession } => {
            (*authentication, *possession) = sign(&prototype.to_element())?;
        }
        RequestBody::Reissue { binding, authentication, possession } => {
            (*authentication, *possession) = sign(&binding.to_element("ReissueKeyBinding"))?;
        }
        RequestBody::Revoke { binding, proof } => {
            let signed = sign(&binding.to_element("RevokeKeyBinding"))?;
            *proof = RevokeProof::Authentication(signed.0);
        }
        RequestBody::Recover { binding, authentication } => {
            *authentication = sign(&binding.to_element("RecoverKeyBinding"))?.0;
        }
        RequestBody::Locate(_)
        | RequestBody::Validate(_)
        | RequestBody::Compound(_)
        | RequestBody::Pending { .. }
        | RequestBody::Status { .. } => return Err(KeyError::Malformed),
    }
    Ok(())
}
