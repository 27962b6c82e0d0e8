//! A CA that speaks ACME (RFC 8555), with the subject's own request (PKCS #10).
//!
//! ```text
//! ordering --newOrder--> ordered: pending     challenges are published and proven
//!                                 ready       finalise with the subject's request
//!                                 processing  wait
//!                                 valid       download --> issued
//!                                 invalid     --> refused
//! ```
//! **Invariants:** the order is recorded before it is finalised, and an order leads to one
//! certificate, so whatever is lost after it is asked for again; an order whose answer was lost is
//! never finalised. Only URLs of the directory's own origin are followed. Deliberately absent:
//! external accounts, wildcards' pre-authorisation, key roll-over, alternate chains.

mod account;
mod ask;
mod wire;

use std::{error::Error, fmt, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use model::Secret;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;

use super::{
    AnswerRejection, Ask, HttpAnswer, Outcome, Progress, Provider, ProviderError, RequestId,
    Transport,
    remote::{Bytes, Call, Journal, Next, Protocol, Requests, accept},
};
use crate::{IssueError, cert::Cert};
use account::{Account, Refusal, Target, encode, location, read};
use ask::{reason, wanted};
use wire::{Authorization, Identifier, Offer, Order, Problem, Status};

/// Most names in one certificate, and most certificates in one answer.
const MAX_NAMES: usize = 100;
const MAX_CHAIN: usize = 10;
/// The longest that a CA may let us wait before we ask again, in seconds.
const MAX_WAIT: i64 = 3_600;

/// A way to prove that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// A file on the host: `http://NAME/.well-known/acme-challenge/TOKEN`.
    Http01,
    /// A TXT record at `_acme-challenge.NAME`.
    Dns01,
}

/// What is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The way.
    pub kind: ChallengeKind,
    /// The name or address.
    pub name: String,
    /// The token: the file's name.
    pub token: String,
    /// What the file, or the record, has in it.
    pub content: String,
}

/// Publishes what proves that names are ours.
pub trait Challenger {
    /// The way that it knows.
    fn kind(&self) -> ChallengeKind;

    /// Publishes a challenge; once it returns, the CA may look. It may be called again for the same.
    ///
    /// # Errors
    /// Whatever kept it from that.
    fn publish(&self, challenge: &Challenge) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Takes back what was published for this name.
    fn withdraw(&self, name: &str);
}

/// How to reach a CA by ACME.
pub struct AcmeConfig {
    /// The directory's URL.
    pub directory: String,
    /// The account's P-256 key, PKCS #8.
    pub account_key: Secret<Vec<u8>>,
    /// How the CA may reach the account's owner: `mailto:` URLs.
    pub contact: Vec<String>,
    /// That the operator agreed to the CA's terms.
    pub terms_agreed: bool,
    /// How long one exchange may take.
    pub timeout: Duration,
}

impl fmt::Debug for AcmeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeConfig").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// A CA that speaks ACME.
#[derive(Debug)]
pub struct Acme<T, J, C> {
    client: Client<T, C>,
    requests: Requests<J>,
}

#[derive(Debug)]
struct Client<T, C> {
    account: Account<T>,
    challenger: C,
}

impl<T: Transport, J: Journal, C: Challenger> Acme<T, J, C> {
    /// A provider that records its requests in `journal` and proves names by `challenger`.
    ///
    /// # Errors
    /// [`IssueError::CaKey`] if the account's key cannot be used.
    pub fn new(
        config: AcmeConfig,
        transport: T,
        journal: J,
        challenger: C,
    ) -> Result<Self, IssueError> {
        let client = Client { account: Account::new(config, transport)?, challenger };
        Ok(Self { client, requests: Requests::new(journal) })
    }
}

impl<T: Transport, J: Journal, C: Challenger> Provider for Acme<T, J, C> {
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
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum State {
    /// There may be orders of which we know nothing.
    Ordering(Wanted),
    Ordered {
        url: String,
        wanted: Wanted,
        not_before: i64,
    },
    Revoking {
        certificate: Bytes,
        reason: u32,
    },
}

/// What is to be certified.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    names: Vec<Identifier>,
    spki: Bytes,
    request: Bytes,
}

impl<T: Transport, C: Challenger> Protocol for Client<T, C> {
    type State = State;

    fn begin(
        &self,
        _id: RequestId,
        ask: &Ask,
        _now: OffsetDateTime,
    ) -> Result<Next<State>, ProviderError> {
        let state = match ask {
            Ask::Enrol(ask) => wanted(&ask.profile, &ask.spki, ask.request.as_deref())?,
            Ask::Renew(ask) => {
                let old = Cert::parse(&ask.certificate).map_err(ProviderError::NotOurs)?;
                wanted(&ask.profile, old.spki(), ask.request.as_deref())?
            }
            Ask::Revoke(ask) => {
                Cert::parse(&ask.certificate).map_err(ProviderError::NotOurs)?;
                let certificate = Bytes(ask.certificate.clone());
                State::Revoking { certificate, reason: reason(ask.reason) }
            }
        };
        Ok(Next::Go(state))
    }

    fn step(&self, call: &Call<'_, State>, state: State) -> Result<Next<State>, ProviderError> {
        match state {
            State::Ordering(wanted) => {
                let payload = json!({"identifiers": wanted.names});
                let answer = self.account.post(Target::NewOrder, Some(&payload))?;
                let (url, not_before) = (location(&answer)?, call.now.unix_timestamp());
                Ok(Next::Go(State::Ordered { url, wanted, not_before }))
            }
            State::Ordered { url, wanted, not_before } => {
                if call.now.unix_timestamp() < not_before {
                    return Ok(Next::Wait(State::Ordered { url, wanted, not_before }));
                }
                self.order(call, url, wanted)
            }
            State::Revoking { certificate, reason } => {
                let payload = json!({"certificate": encode(&certificate.0), "reason": reason});
                match self.account.post(Target::RevokeCert, Some(&payload)) {
                    Err(Refusal::Problem(problem)) if problem.is("alreadyRevoked") => {}
                    answer => drop(answer?),
                }
                Ok(Next::Done(Outcome::Revoked(call.now)))
            }
        }
    }
}

impl<T: Transport, C: Challenger> Client<T, C> {
    /// Looks where the order is, and does what is next about it.
    fn order(
        &self,
        call: &Call<'_, State>,
        url: String,
        wanted: Wanted,
    ) -> Result<Next<State>, ProviderError> {
        let (mut order, mut answer): (Order, _) = self.account.ask(&url, None)?;
        if order.status == Status::Pending {
            self.prove(&order, &wanted)?;
        } else {
            wanted.names.iter().for_each(|name| self.challenger.withdraw(&name.value));
        }
        if order.status == Status::Ready {
            let payload = json!({"csr": encode(&wanted.request.0)});
            answer = match self.account.post(Target::Url(&order.finalize), Some(&payload)) {
                // It was finalised meanwhile, or is not ready for all that it said.
                Err(Refusal::Problem(problem)) if problem.is("orderNotReady") => answer,
                answer => answer?,
            };
            order = read(&answer)?;
        }
        match (order.status, order.certificate) {
            (Status::Valid, Some(certificate)) => self.download(&certificate, &wanted),
            (Status::Pending | Status::Ready | Status::Processing, _) => {
                let not_before = call.now.unix_timestamp().saturating_add(wait(&answer));
                Ok(Next::Wait(State::Ordered { url, wanted, not_before }))
            }
            (Status::Valid, None) => Err(AnswerRejection::Malformed.into()),
            (Status::Invalid | Status::Deactivated | Status::Expired | Status::Revoked, _) => {
                Err(refused(order.error))
            }
        }
    }

    /// Publishes what the CA wants to see, and says so; refused if it looked in vain.
    fn prove(&self, order: &Order, wanted: &Wanted) -> Result<(), ProviderError> {
        if order.authorizations.len() > MAX_NAMES {
            return Err(AnswerRejection::TooLarge.into());
        }
        for url in &order.authorizations {
            let (authorization, _): (Authorization, _) = self.account.ask(url, None)?;
            if !wanted.names.contains(&authorization.identifier) {
                return Err(AnswerRejection::Unexpected.into());
            }
            match authorization.status {
                Status::Pending => self.respond(&authorization)?,
                Status::Valid | Status::Ready | Status::Processing => {}
                Status::Invalid | Status::Deactivated | Status::Expired | Status::Revoked => {
                    self.challenger.withdraw(&authorization.identifier.value);
                    let why = authorization.challenges.into_iter().find_map(|one| one.error);
                    return Err(refused(why));
                }
            }
        }
        Ok(())
    }

    fn respond(&self, authorization: &Authorization) -> Result<(), ProviderError> {
        let kind = self.challenger.kind();
        let wanted = match kind {
            ChallengeKind::Http01 => "http-01",
            ChallengeKind::Dns01 => "dns-01",
        };
        let offer = authorization.challenges.iter().find(|offer| offer.kind == wanted);
        let offer = offer.ok_or(ProviderError::Unsupported("the CA offers no such challenge"))?;
        // The CA has been told, and looks.
        if offer.status != Status::Pending {
            return Ok(());
        }
        let challenge = self.challenge(kind, &authorization.identifier.value, offer)?;
        self.challenger.publish(&challenge).map_err(ProviderError::Unavailable)?;
        self.account.post(Target::Url(&offer.url), Some(&json!({})))?;
        Ok(())
    }

    fn challenge(
        &self,
        kind: ChallengeKind,
        name: &str,
        offer: &Offer,
    ) -> Result<Challenge, AnswerRejection> {
        // It becomes the name of a file.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=256).contains(&offer.token.len()) || !offer.token.bytes().all(plain) {
            return Err(AnswerRejection::Malformed);
        }
        let authorization = self.account.authorization(&offer.token);
        let content = match kind {
            ChallengeKind::Http01 => authorization,
            ChallengeKind::Dns01 => encode(digest(&SHA256, authorization.as_bytes()).as_ref()),
        };
        Ok(Challenge { kind, name: name.to_owned(), token: offer.token.clone(), content })
    }

    fn download(&self, url: &str, wanted: &Wanted) -> Result<Next<State>, ProviderError> {
        let answer = self.account.post(Target::Url(url), None)?;
        let chain = certificates(&answer).ok_or(AnswerRejection::Malformed)?;
        let (certificate, above) = chain.split_first().ok_or(AnswerRejection::Malformed)?;
        Ok(Next::Done(accept(certificate, above, &wanted.spki.0)?))
    }
}

fn refused(problem: Option<Problem>) -> ProviderError {
    ProviderError::Refused(problem.unwrap_or_default().words())
}

/// How long the CA lets us wait, in seconds.
fn wait(answer: &HttpAnswer) -> i64 {
    let said = answer.header("retry-after").and_then(|text| text.parse().ok());
    said.unwrap_or(0).clamp(0, MAX_WAIT)
}

/// The certificates of a chain in PEM, each DER.
fn certificates(answer: &HttpAnswer) -> Option<Vec<Vec<u8>>> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(&answer.body).ok()?;
    let mut all = Vec::new();
    for block in text.split_inclusive(END).filter(|block| block.contains(END)) {
        let (_, der) = der::pem::decode_vec(block.trim().as_bytes()).ok()?;
        all.push(der);
    }
    (all.len() <= MAX_CHAIN).then_some(all)
}
