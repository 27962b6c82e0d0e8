//! Application exchange interface: what applications ask of the client, as this library, over a local
//! unix socket ([`socket`]), or by the command line.
//!
//! ```text
//! idle ─ask─► connect ─► prove ─► admitted ─► send ─► answer
//!               ▲                    │  ▲       │
//!               └── connection lost ─┘  └───────┘ next request, until the proof is over
//! ```
//!
//! **Invariants:** one connection at a time; a request is sent again only as the very same document,
//! once, on a new connection with a new proof.

mod ask;
pub mod socket;

use std::time::Duration;

use model::guest::Admitted;
use pki::{Anchors, CertFacts, CertRejection};
use thiserror::Error;
use time::OffsetDateTime;
use tpm::AddressError;
use xkms::{
    dsig::KeyError,
    message::{QueryKeyBinding, RequestBody},
};

use crate::{
    algorithms::{AlgorithmError, KeyFile, Phrase, blocks},
    config::{Config, ConfigError, read_bounded},
    messages::{self, MessageError, Parsed, Terms},
    proof::{
        ProofError, Prover,
        knowledge::{Judge, JudgeError, KnowledgeRejection},
    },
    service::{Connection, ServiceError, port, refusal},
    signature::{self, Authorizer},
};

pub use self::ask::{Ask, Question, Reply};

/// Longest file of CA certificates, bytes.
const ANCHORS: u64 = 256 << 10;

/// Why an application is not answered.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// A file.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// The trust anchors.
    #[error("the trust anchors cannot be used")]
    Anchors(#[from] CertRejection),
    /// The TPM's address.
    #[error("the TPM's address is malformed")]
    Tpm(#[from] AddressError),
    /// A key or phrase.
    #[error(transparent)]
    Algorithm(#[from] AlgorithmError),
    /// The proof.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A message.
    #[error("there is no answer that counts")]
    Message(#[source] Box<MessageError<Self>>),
    /// What answers are held against.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The answer is signed by the service, and not believed.
    #[error(transparent)]
    Knowledge(#[from] KnowledgeRejection),
    /// Something is missing that the request needs.
    #[error("{0}")]
    Missing(&'static str),
}

impl From<KeyError> for ExchangeError {
    fn from(error: KeyError) -> Self {
        AlgorithmError::from(error).into()
    }
}

impl ExchangeError {
    /// The name of the refusal, if a rule said no.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Proof(ProofError::Service(service)) | Self::Service(service) => service.refusal(),
            Self::Message(message) => match &**message {
                MessageError::Sent(sent) => sent.refusal(),
                MessageError::Answer(rejection) => Some(rejection.code()),
                MessageError::Key(_) | MessageError::Random | MessageError::Waits => None,
            },
            Self::Knowledge(why) => Some(why.code()),
            Self::File(_)
            | Self::Judge(_)
            | Self::Anchors(_)
            | Self::Tpm(_)
            | Self::Algorithm(_)
            | Self::Proof(_)
            | Self::Missing(_) => None,
        }
    }

    /// Why the service does not serve now, if that is all.
    const fn not_now(&self) -> Option<port::NotNow> {
        if let Self::Proof(ProofError::Service(service)) | Self::Service(service) = self
            && let ServiceError::NotNow(why) = service
        {
            return Some(*why);
        }
        None
    }
}

/// A connection on which requests are taken.
#[derive(Debug)]
struct Open {
    connection: Connection,
    path: String,
    /// URI of the service.
    service: String,
    /// The key of its answers.
    message_key: Vec<u8>,
    /// As which VM; none over a network without a proof.
    admitted: Option<Admitted>,
}

impl Open {
    fn proven(connection: Connection, admitted: Admitted) -> Self {
        Self {
            connection,
            path: "/xkms".to_owned(),
            service: admitted.service.clone(),
            message_key: admitted.message_key.0.clone(),
            admitted: Some(admitted),
        }
    }
}

/// The client of one VM.
#[derive(Debug)]
pub struct Client {
    config: Config,
    anchors: Option<Anchors>,
    prover: Prover,
    judge: Judge,
    open: Option<Open>,
}

impl Client {
    /// A client as configured. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ExchangeError`] if anchors or addresses cannot be used.
    pub fn new(config: Config) -> Result<Self, ExchangeError> {
        let needed = config.url.as_deref().is_none_or(|url| url.starts_with("https://"));
        let anchors = if needed {
            let text = read_bounded(&config.ca, ANCHORS)?;
            Some(Anchors::new(&blocks(&text).iter().map(|der| der.to_vec()).collect::<Vec<_>>())?)
        } else {
            None
        };
        let (tpm, ima_log) = (config.tpm.parse()?, config.ima_log.clone());
        let prover = Prover { tpm, ima_log, vm: config.vm.clone() };
        let judge = Judge::new(&config)?;
        Ok(Self { config, anchors, prover, judge, open: None })
    }

    /// Answers an application; a refusal or failure is an answer too.
    pub fn ask(&mut self, ask: &Ask) -> Reply {
        let asked = self.asked(ask);
        asked.unwrap_or_else(|error| {
            let detail = chain(&error);
            match (error.refusal(), error.not_now()) {
                (Some(name), _) => Reply::Refused { refused: name.to_owned(), detail },
                (None, Some(why)) => Reply::NotNow { seen: why.code().to_owned(), detail },
                (None, None) => Reply::Failed { detail },
            }
        })
    }

    fn asked(&mut self, ask: &Ask) -> Result<Reply, ExchangeError> {
        let (body, phrase, into) = match ask {
            Ask::Attest {} => return self.attest(),
            Ask::Locate(of) => return self.question(of, RequestBody::Locate),
            Ask::Validate(of) => return self.question(of, RequestBody::Validate),
            Ask::Register { name, phrase_file, key_file, generate, uses, use_with } => {
                let phrase = read_phrase(phrase_file)?;
                let key = (!generate).then(|| KeyFile::read_or_make(key_file)).transpose()?;
                let wanted = (ask::usages(uses), ask::used_with(use_with));
                let body = messages::register(name, &phrase, key.as_ref(), wanted)?;
                (body, Some(phrase), Some(key_file))
            }
            Ask::Reissue { name, key_file } => {
                (messages::reissue(name, &KeyFile::read(key_file)?)?, None, None)
            }
            Ask::Revoke { name, key_file: Some(key), .. } => {
                let key = KeyFile::read(key)?;
                (messages::revoke(name, &Authorizer::Key(&key))?, None, None)
            }
            Ask::Revoke { name, key_file: None, phrase_file } => {
                let file = phrase_file.as_ref();
                let file = file.ok_or(ExchangeError::Missing("a key or a phrase must be named"))?;
                (messages::revoke(name, &Authorizer::Phrase(&read_phrase(file)?))?, None, None)
            }
            Ask::Recover { name, phrase_file, key_file } => {
                let phrase = read_phrase(phrase_file)?;
                (messages::recover(name, &phrase)?, Some(phrase), Some(key_file))
            }
        };
        let Parsed { read, private, .. } = self.send(body, None)?;
        if let (Some(private), Some(phrase), Some(into)) = (private, phrase, into) {
            phrase.open_private_key(&private, into)?;
        }
        Ok(Reply::Answer(read))
    }

    /// Asks as the identity that is named, or as nobody in particular, and judges the answer.
    fn question(
        &mut self,
        of: &Question,
        body: impl FnOnce(QueryKeyBinding) -> RequestBody,
    ) -> Result<Reply, ExchangeError> {
        let asker = of.asker.as_deref().map(KeyFile::read).transpose()?;
        let Parsed { read, crls, .. } = self.send(body(of.body()?), asker.as_ref())?;
        self.judge.judge(&read, &crls, OffsetDateTime::now_utc())?;
        Ok(Reply::Answer(read))
    }

    /// A new connection and a new proof.
    fn attest(&mut self) -> Result<Reply, ExchangeError> {
        self.open = None;
        let open = self.opened()?;
        let admitted = open.admitted.clone();
        let admitted =
            admitted.ok_or(ExchangeError::Missing("a proof over a network needs `vm`"))?;
        Ok(Reply::Admitted { vm: admitted.vm, until: admitted.until })
    }

    fn send(
        &mut self,
        body: RequestBody,
        asker: Option<&KeyFile>,
    ) -> Result<Parsed, ExchangeError> {
        let open = self.opened()?;
        let client = signature::client(&open.service, &open.message_key, asker)?;
        let crls = self.judge.wants_crl() && matches!(body, RequestBody::Validate(_));
        let terms = Terms { patience: self.patience(), crls };
        match messages::run(&client, body, terms, &mut |document| self.post(document)) {
            Ok(answer) => Ok(messages::read(answer)),
            Err(MessageError::Sent(error)) => Err(error),
            Err(error) => Err(ExchangeError::Message(Box::new(error))),
        }
    }

    /// Posts a document; once more on a new connection, if this one is lost or its proof is over.
    fn post(&mut self, document: &str) -> Result<Vec<u8>, ExchangeError> {
        let fresh = self.open.is_none();
        match self.post_once(document) {
            Err(ExchangeError::Service(error)) if !fresh && is_lost(&error) => {
                self.open = None;
                self.post_once(document)
            }
            other => other,
        }
    }

    fn post_once(&mut self, document: &str) -> Result<Vec<u8>, ExchangeError> {
        let open = self.opened()?;
        let content_type = "application/soap+xml; charset=utf-8";
        let posted = open.connection.post(&open.path, content_type, document.as_bytes());
        let answer = posted.inspect_err(|_| self.open = None)?;
        // Faults of XKMS come with other statuses; they are read as what they are.
        if !answer.body.starts_with(b"<") {
            refusal(&answer)?;
        }
        Ok(answer.body)
    }

    fn opened(&mut self) -> Result<&mut Open, ExchangeError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.connect()?,
        };
        Ok(self.open.insert(open))
    }

    fn connect(&self) -> Result<Open, ExchangeError> {
        let Some(url) = &self.config.url else { return self.connect_port() };
        let (mut connection, path) = Connection::url(url, self.anchors.as_ref(), self.patience())?;
        if self.config.vm.is_some() {
            let admitted = self.prover.prove(&mut connection)?;
            return Ok(Open::proven(connection, admitted));
        }
        let file = self.config.message_certificate.as_ref();
        let file = file.ok_or(ExchangeError::Missing("over a network: `message_certificate`"))?;
        let der = blocks(&read_bounded(file, ANCHORS)?).into_iter().next();
        let der = der.ok_or(ExchangeError::Missing("`message_certificate` holds none"))?;
        let message_key = CertFacts::read(&der)?.spki;
        Ok(Open { connection, path, service: url.clone(), message_key, admitted: None })
    }

    fn connect_port(&self) -> Result<Open, ExchangeError> {
        let anchors = self.anchors.as_ref();
        let anchors = anchors.ok_or(ExchangeError::Missing("no trust anchors"))?;
        let device = self.config.port.clone().map_or_else(port::find, Ok);
        let device = device.map_err(ServiceError::from)?;
        let stream = port::PortStream::open(&device, self.patience());
        let stream = stream.map_err(ServiceError::from)?;
        let mut connection = Connection::tls(Box::new(stream), anchors)?;
        let admitted = self.prover.prove(&mut connection)?;
        Ok(Open::proven(connection, admitted))
    }

    const fn patience(&self) -> Duration {
        Duration::from_secs(self.config.patience_s)
    }
}

fn read_phrase(file: &std::path::Path) -> Result<Phrase, ExchangeError> {
    let text = zeroize::Zeroizing::new(read_bounded(file, 4096)?);
    Ok(Phrase::new(std::str::from_utf8(&text).unwrap_or_default())?)
}

/// Whether a new connection may help.
fn is_lost(error: &ServiceError) -> bool {
    match error {
        ServiceError::Io(_) | ServiceError::Http(_) | ServiceError::Tls(_) => true,
        ServiceError::Refused(name) => name == "guest-proof-over",
        ServiceError::Tampered(_)
        | ServiceError::NotNow(_)
        | ServiceError::Failed(_)
        | ServiceError::Answer(_)
        | ServiceError::Url(_) => false,
    }
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
