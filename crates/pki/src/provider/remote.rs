//! What requests to foreign CAs have in common: a record of each, written before anything leaves,
//! and the certificate that comes back.
//!
//! ```text
//! (nothing) --begin--> open --step--> open --step--> issued | revoked | refused
//! ```
//! **Invariants:** what is recorded as sent may have arrived; what ended stays as it ended; one call
//! at a time works on a request.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use time::OffsetDateTime;

use super::{
    AnswerRejection, Ask, LedgerError, Outcome, Progress, ProviderError, RequestId, busy::Busy,
    digest,
};
use crate::cert::Cert;

/// Most steps in one call.
const MAX_STEPS: usize = 32;
/// Most CAs above a certificate.
const MAX_CHAIN: usize = 8;

/// Where requests to a foreign CA are recorded. What `save` returned for is there after a crash.
pub trait Journal {
    /// The record of a request.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn load(&self, id: RequestId) -> Result<Option<Vec<u8>>, LedgerError>;

    /// Writes the record of a request, instead of the one before. It holds no secret.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn save(&self, id: RequestId, record: &[u8]) -> Result<(), LedgerError>;
}

/// Bytes, in hexadecimal digits where they are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Bytes(#[serde(with = "hex::serde")] pub(super) Vec<u8>);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<S> {
    /// Digest of what was asked.
    #[serde(with = "hex::serde")]
    ask: [u8; 32],
    standing: Standing<S>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Standing<S> {
    Open(S),
    Ended(End),
}

/// How a request ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum End {
    Issued { certificate: Bytes, chain: Vec<Bytes> },
    Revoked { at: i64 },
    Refused { text: String },
    WrongCertificate,
}

/// What a step led to.
pub(super) enum Next<S> {
    /// Record it, and take the next step.
    Go(S),
    /// Take the next step, which records where it is before anything leaves. After a crash before
    /// that, the request is where it was recorded last, and nothing more has happened.
    On(S),
    /// Record it, and wait for the CA.
    Wait(S),
    /// It is done.
    Done(Outcome),
}

/// One call about one request.
pub(super) struct Call<'a, S> {
    pub(super) id: RequestId,
    pub(super) now: OffsetDateTime,
    save: &'a dyn Fn(&S) -> Result<(), ProviderError>,
}

impl<S> Call<'_, S> {
    /// Records where the request is, before the step goes on.
    pub(super) fn save(&self, state: &S) -> Result<(), ProviderError> {
        (self.save)(state)
    }
}

/// A way to talk to a CA.
pub(super) trait Protocol {
    /// Where an open request is.
    type State: Serialize + DeserializeOwned;

    /// What a request begins with. Nothing leaves yet.
    fn begin(
        &self,
        id: RequestId,
        ask: &Ask,
        now: OffsetDateTime,
    ) -> Result<Next<Self::State>, ProviderError>;

    /// One step. After an error the request is where it was recorded last.
    fn step(
        &self,
        call: &Call<'_, Self::State>,
        state: Self::State,
    ) -> Result<Next<Self::State>, ProviderError>;
}

/// The requests of one provider.
#[derive(Debug)]
pub(super) struct Requests<J> {
    journal: J,
    busy: Busy,
}

impl<J: Journal> Requests<J> {
    pub(super) fn new(journal: J) -> Self {
        Self { journal, busy: Busy::default() }
    }

    pub(super) fn submit<P: Protocol>(
        &self,
        protocol: &P,
        (id, ask, now): (RequestId, &Ask, OffsetDateTime),
    ) -> Result<Progress, ProviderError> {
        let Some(_turn) = self.busy.take(id) else { return Ok(Progress::Pending) };
        let digest = digest::of(ask);
        let record = match self.load(id)? {
            Some(Record { ask, .. }) if ask != digest => return Err(ProviderError::IdReused),
            Some(record) => record,
            None => {
                let begun = protocol.begin(id, ask, now)?;
                Record { ask: digest, standing: self.led(id, digest, begun)? }
            }
        };
        self.advance(protocol, (id, now), record)
    }

    pub(super) fn poll<P: Protocol>(
        &self,
        protocol: &P,
        id: RequestId,
        now: OffsetDateTime,
    ) -> Result<Progress, ProviderError> {
        let Some(_turn) = self.busy.take(id) else { return Ok(Progress::Pending) };
        let record = self.load(id)?.ok_or(ProviderError::UnknownRequest)?;
        self.advance(protocol, (id, now), record)
    }

    fn load<S: DeserializeOwned>(&self, id: RequestId) -> Result<Option<Record<S>>, ProviderError> {
        let Some(bytes) = self.journal.load(id)? else { return Ok(None) };
        let record = serde_json::from_slice(&bytes);
        record.map(Some).map_err(|error| ProviderError::Unavailable(Box::new(error)))
    }

    fn save<S: Serialize>(&self, id: RequestId, record: &Record<S>) -> Result<(), ProviderError> {
        let bytes = serde_json::to_vec(record);
        let bytes = bytes.map_err(|error| ProviderError::Unavailable(Box::new(error)))?;
        Ok(self.journal.save(id, &bytes)?)
    }

    /// Records where a step led, unless the next one does.
    fn led<S: Serialize>(
        &self,
        id: RequestId,
        ask: [u8; 32],
        next: Next<S>,
    ) -> Result<Standing<S>, ProviderError> {
        let record = match next {
            Next::On(state) => return Ok(Standing::Open(state)),
            Next::Go(state) | Next::Wait(state) => Record { ask, standing: Standing::Open(state) },
            Next::Done(outcome) => return self.ended(id, ask, End::new(outcome)),
        };
        self.save(id, &record)?;
        Ok(record.standing)
    }

    fn ended<S: Serialize>(
        &self,
        id: RequestId,
        ask: [u8; 32],
        end: End,
    ) -> Result<Standing<S>, ProviderError> {
        let record = Record { ask, standing: Standing::Ended(end) };
        self.save(id, &record)?;
        Ok(record.standing)
    }

    fn advance<P: Protocol>(
        &self,
        protocol: &P,
        (id, now): (RequestId, OffsetDateTime),
        Record { ask, mut standing }: Record<P::State>,
    ) -> Result<Progress, ProviderError> {
        for _ in 0..MAX_STEPS {
            let state = match standing {
                Standing::Open(state) => state,
                Standing::Ended(end) => return end.told(),
            };
            let save =
                |state: &P::State| self.save(id, &Record { ask, standing: Standing::Open(state) });
            let next = protocol.step(&Call { id, now, save: &save }, state);
            let waits = matches!(next, Ok(Next::Wait(_)));
            standing = match next {
                Ok(next) => self.led(id, ask, next)?,
                Err(ProviderError::Refused(text)) => self.ended(id, ask, End::Refused { text })?,
                Err(ProviderError::Answer(AnswerRejection::Certificate)) => {
                    self.ended(id, ask, End::WrongCertificate)?
                }
                Err(error) => return Err(error),
            };
            if waits {
                break;
            }
        }
        match standing {
            Standing::Open(_) => Ok(Progress::Pending),
            Standing::Ended(end) => end.told(),
        }
    }
}

impl End {
    fn new(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Issued { certificate, chain } => Self::Issued {
                certificate: Bytes(certificate),
                chain: chain.into_iter().map(Bytes).collect(),
            },
            Outcome::Revoked(at) => Self::Revoked { at: at.unix_timestamp() },
        }
    }

    fn told(self) -> Result<Progress, ProviderError> {
        let outcome = match self {
            Self::Issued { certificate, chain } => Outcome::Issued {
                certificate: certificate.0,
                chain: chain.into_iter().map(|one| one.0).collect(),
            },
            Self::Revoked { at } => {
                let at = OffsetDateTime::from_unix_timestamp(at);
                Outcome::Revoked(at.map_err(|_| AnswerRejection::Malformed)?)
            }
            Self::Refused { text } => return Err(ProviderError::Refused(text)),
            Self::WrongCertificate => return Err(AnswerRejection::Certificate.into()),
        };
        Ok(Progress::Done(outcome))
    }
}

/// The certificate that came back, if it is an end entity's for this key, and the CAs above it that
/// came along.
pub(super) fn accept(
    certificate: &[u8],
    offered: &[Vec<u8>],
    spki: &[u8],
) -> Result<Outcome, AnswerRejection> {
    let cert = Cert::parse(certificate).map_err(|_| AnswerRejection::Certificate)?;
    if cert.spki() != spki || cert.is_ca() {
        return Err(AnswerRejection::Certificate);
    }
    let offered: Vec<Cert> = offered.iter().filter_map(|der| Cert::parse(der).ok()).collect();
    let mut chain: Vec<&Cert> = Vec::new();
    let mut last = &cert;
    while chain.len() < MAX_CHAIN {
        let above = offered.iter().find(|one| {
            let next = one.subject_key() == last.issuer_key() && !one.is_self_issued();
            next && last.verify_signature(one).is_ok()
        });
        let Some(above) = above else { break };
        chain.push(above);
        last = above;
    }
    let chain = chain.into_iter().map(|one| one.der().to_vec()).collect();
    Ok(Outcome::Issued { certificate: certificate.to_vec(), chain })
}

/// What a provider says, in a form that can go into a log.
pub(super) fn words(text: &str) -> String {
    text.chars().filter(|one| !one.is_control()).take(300).collect()
}
