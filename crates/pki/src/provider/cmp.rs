//! A CA that speaks CMP (RFC 4210, the lightweight profile of RFC 9483) over HTTP.
//!
//! ```text
//! prepared --send--> sent --answer--> confirming --pkiConf--> issued
//!    ^  not sent       |  \--waiting--> waiting --poll--> confirming
//!    +-----------------+   \--error--> refused
//!                   lost: OutcomeUnknown, or the same bytes again (LostAnswer)
//! ```
//! We stand between the subject and the CA as a registration authority: that the subject holds the
//! key is verified before (raVerified). **Invariants:** the transaction id is the request's id; a
//! certificate is confirmed only after it was recorded, and at most one under a request; implicit
//! confirmation is never asked for. Deliberately absent: keys made by the CA, general messages,
//! PBMAC1, and announcements; the status of the CMP server's own certificate is not asked.

mod ask;
mod message;
mod password;
mod reply;
mod wire;

use std::time::Duration;

use model::Secret;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    AnswerRejection, Ask, HttpRequest, Method, Progress, Provider, ProviderError, RequestId,
    Transport, TransportError,
    remote::{Bytes, Call, Journal, Next, Protocol, Requests},
};
use crate::{Anchors, IssueError};
use message::{Channel, MAX_ANSWER, Marks, Protection, Reply, nonce};
use reply::{certified, done, refused, revoked, status, wait};
use wire::{StatusInfo, body};

/// What we prove ourselves to the CA with, and it to us.
#[derive(Debug)]
pub enum CmpCredential {
    /// A secret that both sides know.
    Secret {
        /// What the CA knows it by.
        reference: Vec<u8>,
        /// The secret.
        secret: Secret<Vec<u8>>,
    },
    /// A P-256 key of ours, and the anchors of the CA's.
    Key {
        /// Our certificate, DER.
        certificate: Vec<u8>,
        /// Those above it, DER.
        chain: Vec<Vec<u8>>,
        /// The key, PKCS #8.
        key: Secret<Vec<u8>>,
        /// To whom the CMP server's certificate must lead.
        anchors: Anchors,
    },
}

/// What to do about a request whose answer was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LostAnswer {
    /// Say [`ProviderError::OutcomeUnknown`]: the CA may have certified already.
    #[default]
    Refuse,
    /// Send the same message again, for a CA that answers a repeated transaction as it did before,
    /// or takes back what is never confirmed.
    Repeat,
}

/// How to reach a CA by CMP.
#[derive(Debug)]
pub struct CmpConfig {
    /// Where it is.
    pub url: String,
    /// What messages are protected with.
    pub credential: CmpCredential,
    /// The CA's certificate (DER), so that messages name the one that they are for.
    pub recipient: Option<Vec<u8>>,
    /// How long one exchange may take.
    pub timeout: Duration,
    /// What to do about a lost answer.
    pub lost_answer: LostAnswer,
}

/// A CA that speaks CMP.
#[derive(Debug)]
pub struct Cmp<T, J> {
    client: Client<T>,
    requests: Requests<J>,
}

#[derive(Debug)]
struct Client<T> {
    url: String,
    channel: Channel,
    timeout: Duration,
    lost_answer: LostAnswer,
    transport: T,
}

impl<T: Transport, J: Journal> Cmp<T, J> {
    /// A provider that records its requests in `journal`.
    ///
    /// # Errors
    /// [`IssueError`] if the credential cannot be used.
    pub fn new(config: CmpConfig, transport: T, journal: J) -> Result<Self, IssueError> {
        let CmpConfig { url, credential, recipient, timeout, lost_answer } = config;
        let channel = Channel::new(credential, recipient.as_deref())?;
        let client = Client { url, channel, timeout, lost_answer, transport };
        Ok(Self { client, requests: Requests::new(journal) })
    }
}

impl<T: Transport, J: Journal> Provider for Cmp<T, J> {
    fn submit(
        &self,
        id: RequestId,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError> {
        self.requests.submit(&self.client, (id, ask, now))
    }

    fn poll(&self, id: RequestId, now: OffsetDateTime) -> Result<Progress, ProviderError> {
        self.requests.poll(&self.client, id, now)
    }
}

/// Where a request is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum State {
    /// Nothing left yet.
    Prepared(Sealed),
    /// It may have arrived.
    Sent(Sealed),
    /// The CA has it and is not done.
    Waiting { spki: Bytes, theirs: Bytes, not_before: i64 },
    /// The certificate is here; the CA may not know that it is accepted, or refused.
    Confirming { certificate: Bytes, chain: Vec<Bytes>, theirs: Bytes, accepted: bool, sent: bool },
}

/// A message that is ready to be sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    kind: u32,
    nonce: Bytes,
    message: Bytes,
    /// The key that the certificate must be for.
    spki: Bytes,
}

impl<T: Transport> Protocol for Client<T> {
    type State = State;

    fn begin(
        &self,
        id: RequestId,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Next<State>, ProviderError> {
        let first = matches!(self.channel.protection(), Protection::Mac(_));
        let asked = ask::of(ask, first)?;
        let nonce = nonce()?;
        let marks = Marks { transaction: &id.0, nonce: &nonce };
        let message = self.channel.seal((asked.kind, asked.body), marks, None, now)?;
        Ok(Next::On(State::Prepared(Sealed {
            kind: asked.kind,
            nonce: Bytes(nonce),
            message: Bytes(message),
            spki: Bytes(asked.spki),
        })))
    }

    fn step(&self, call: &Call<'_, State>, state: State) -> Result<Next<State>, ProviderError> {
        match state {
            State::Prepared(sealed) => {
                call.save(&State::Sent(sealed.clone()))?;
                self.request(call, &sealed, true)
            }
            State::Sent(sealed) => {
                // A revocation that is asked for twice is one revocation.
                let harmless = sealed.kind == body::RR;
                if !harmless && self.lost_answer == LostAnswer::Refuse {
                    return Err(ProviderError::OutcomeUnknown);
                }
                self.request(call, &sealed, false)
            }
            State::Waiting { spki, theirs, not_before } => {
                if call.now.unix_timestamp() < not_before {
                    return Ok(Next::Wait(State::Waiting { spki, theirs, not_before }));
                }
                let reply = self.talk(call, (body::POLL_REQ, ask::poll()?), &theirs.0)?;
                if reply.kind == body::POLL_REP {
                    return wait(&reply, spki, call.now);
                }
                certified(&reply, spki, call.now)
            }
            State::Confirming { certificate, chain, theirs, accepted, sent } => {
                self.confirm(call, (certificate, chain, theirs), accepted, sent)
            }
        }
    }
}

impl<T: Transport> Client<T> {
    /// Sends a request and reads its answer; `fresh` if it never left before.
    fn request(
        &self,
        call: &Call<'_, State>,
        sealed: &Sealed,
        fresh: bool,
    ) -> Result<Next<State>, ProviderError> {
        let answer = match self.exchange(&sealed.message.0) {
            Err(error @ TransportError::NotSent(_)) if fresh => {
                call.save(&State::Prepared(sealed.clone()))?;
                return Err(error.into());
            }
            answer => answer?,
        };
        let marks = Marks { transaction: &call.id.0, nonce: &sealed.nonce.0 };
        let reply = self.channel.open(&answer, marks, call.now)?;
        let next = match (sealed.kind, reply.kind) {
            (_, body::ERROR) => Err(refused(&reply)?),
            (body::RR, body::RP) => revoked(&reply, call.now),
            (body::IR, body::IP) | (body::CR, body::CP) | (body::KUR, body::KUP) => {
                certified(&reply, sealed.spki.clone(), call.now)
            }
            (_, _) => Err(AnswerRejection::Unexpected.into()),
        };
        // It said itself that it did nothing, and may do it later.
        if matches!(next, Err(ProviderError::Unavailable(_))) {
            call.save(&State::Prepared(sealed.clone()))?;
        }
        next
    }

    /// Another message of the same transaction, and its answer.
    fn talk(
        &self,
        call: &Call<'_, State>,
        content: (u32, Vec<u8>),
        theirs: &[u8],
    ) -> Result<Reply, ProviderError> {
        let nonce = nonce()?;
        let marks = Marks { transaction: &call.id.0, nonce: &nonce };
        let message = self.channel.seal(content, marks, Some(theirs), call.now)?;
        let answer = self.exchange(&message)?;
        Ok(self.channel.open(&answer, marks, call.now)?)
    }

    fn confirm(
        &self,
        call: &Call<'_, State>,
        (certificate, chain, theirs): (Bytes, Vec<Bytes>, Bytes),
        accepted: bool,
        sent: bool,
    ) -> Result<Next<State>, ProviderError> {
        let content = ask::confirmation(&certificate.0, accepted)?;
        let state = |sent| State::Confirming {
            certificate: certificate.clone(),
            chain: chain.clone(),
            theirs: theirs.clone(),
            accepted,
            sent,
        };
        call.save(&state(true))?;
        let reply = match self.talk(call, (body::CERT_CONF, content), &theirs.0) {
            Err(ProviderError::Unavailable(error)) if !sent && not_sent(error.as_ref()) => {
                call.save(&state(false))?;
                return Err(ProviderError::Unavailable(error));
            }
            reply => reply?,
        };
        match reply.kind {
            _ if !accepted => Err(AnswerRejection::Certificate.into()),
            body::PKI_CONF => Ok(done(certificate, chain)),
            body::ERROR if status(&reply)?.has(StatusInfo::CERT_CONFIRMED) => {
                Ok(done(certificate, chain))
            }
            // The first one may have been confirmed, and the CA has forgotten the transaction.
            body::ERROR if sent => Err(ProviderError::OutcomeUnknown),
            body::ERROR => Err(refused(&reply)?),
            _ => Err(AnswerRejection::Unexpected.into()),
        }
    }

    fn exchange(&self, message: &[u8]) -> Result<Vec<u8>, TransportError> {
        let answer = self.transport.exchange(&HttpRequest {
            method: Method::Post,
            url: &self.url,
            content_type: Some("application/pkixcmp"),
            body: message,
            most: MAX_ANSWER,
            timeout: self.timeout,
        })?;
        let is_cmp = answer.header("content-type").is_some_and(|kind| {
            kind.split(';').next().unwrap_or_default().trim() == "application/pkixcmp"
        });
        if answer.status == 200 && is_cmp {
            Ok(answer.body)
        } else {
            Err(TransportError::Lost(format!("HTTP status {}", answer.status).into()))
        }
    }
}

fn not_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(TransportError::NotSent(_)))
}
