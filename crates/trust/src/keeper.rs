//! The keeper: holds the CA's key, the certificate library, authorizations, escrow and the audit
//! log, and answers the neutral requests of [`model::keys::rpc`]. It never sees XML.
//!
//! ```text
//! reader ─► Keeper::serve ─► query (locate, validate, authentication keys)      reads only
//!                        └─► orders (register, reissue, revoke, recover)
//!                              └► one transaction ─► audit entry ─► answer
//!                              └► manners `hybrid`, `proxy`: on record ─► centre ─► library
//! operator ─► admin socket ─► the same orders; authorizations, approvals
//! ```
//!
//! **Invariants:** an order is answered only after its transaction and its audit entry are durable;
//! a pass phrase is used up in the very transaction that records the binding; the time is the
//! keeper's own; a status rests on checks that were made. Questions never wait for orders.

mod admin;
mod anchoring;
mod authorize;
mod centre;
mod grade;
pub mod guest;
mod import;
mod issue;
mod issuer;
mod journal;
mod keyring;
mod ledger;
mod library;
mod migrate;
mod owner;
mod parcel;
mod pending;
mod publish;
mod query;
mod record;
mod recover;
mod refusal;
mod register;
mod reissue;
mod resident;
mod revoke;
mod settings;
mod status;
mod tidy;
mod vouched;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use anchor::{Anchoring, Following};
use model::{
    Secret,
    api::Bytes,
    keys::{
        KeyExample,
        order::{KeyFailure, KeyOperation, KeyOutcome, Order, Requester},
        rpc::{KeyAnswer, KeyRequest},
    },
};
use serve::{clock::SharedClock, flood::FloodGate, fsfile};
use store::{
    typed::{RecordError, Records},
    wait,
};
use tokio::sync::Notify;

pub use self::{
    centre::{Centre, CentreError, CentreLink},
    keyring::MessageIdentity,
    migrate::{Outgoing, Own},
    refusal::{Fault, Refusal, Why},
    resident::{AgentKeys, HostKeyError, HostKeys},
    settings::{Approval, AtCentre, Keep, Manner, Settings},
};
use self::{
    issuer::Issuer,
    journal::Journal,
    keyring::{Escrow, Keyring},
    library::Library,
    record::EntryId,
    status::Foreign,
};

/// Tries of an order whose records others change meanwhile.
const TRIES: usize = 8;
/// Revocation codes that are compared for one binding in a minute.
const CODES_PER_MINUTE: u32 = 10;

/// The keeper of one trust service. All calls block their thread; any thread may call.
#[derive(Debug)]
pub struct Keeper {
    settings: Settings,
    dir: PathBuf,
    clock: SharedClock,
    library: Arc<Library>,
    issuer: Issuer,
    message: record::OwnKey,
    escrow: Arc<Escrow>,
    journal: Journal,
    anchor: Following,
    foreign: Foreign,
    codes: Mutex<FloodGate<EntryId>>,
    movers: OnceLock<Arc<Notify>>,
    host_keys: OnceLock<Arc<dyn HostKeys>>,
    /// One word of a migration at a time.
    migrating: Mutex<()>,
    /// One import at a time.
    importing: Mutex<()>,
}

/// An authenticated requester, as [`Keeper::serve`] named it when it gave the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Authorization(EntryId),
    Binding(EntryId),
    Recovery(EntryId),
}

impl Holder {
    fn text(self) -> String {
        match self {
            Self::Authorization(id) => format!("authorization/{id}"),
            Self::Binding(id) => format!("binding/{id}"),
            Self::Recovery(id) => format!("recovery/{id}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once('/')?;
        let id = EntryId::from_hex(id)?;
        match kind {
            "authorization" => Some(Self::Authorization(id)),
            "binding" => Some(Self::Binding(id)),
            "recovery" => Some(Self::Recovery(id)),
            _ => None,
        }
    }

    fn of(order: &Order) -> Option<Self> {
        match &order.requester {
            Requester::Key(holder) => Self::parse(holder),
            Requester::NotBound { .. } | Requester::RevocationCode(_) => None,
        }
    }
}

impl Keeper {
    /// Opens the keeper whose state is in `dir`; at the first start makes everything it is. It has
    /// its own CA: the manner `full`. Its state is not anchored.
    ///
    /// # Errors
    /// [`Fault`], for example if another process has the state open.
    pub fn open(settings: Settings, dir: &Path, clock: SharedClock) -> Result<Self, Fault> {
        Self::open_with(settings, dir, clock, (None, Anchoring::none()))
    }

    /// The same, anchored; with a centre, and without a CA, in the manners `hybrid` and `proxy`.
    ///
    /// # Errors
    /// [`Fault`], also if at the first start the centre did not answer; [`Fault::Anchor`] if the
    /// state is not the newest there is.
    pub fn open_with(
        settings: Settings,
        dir: &Path,
        clock: SharedClock,
        (centre, anchoring): (Option<Arc<dyn Centre>>, Anchoring),
    ) -> Result<Self, Fault> {
        let records = anchor::records(settings.root_key.as_ref(), dir)?;
        let signer = keyring::checkpoint(&records, dir)?;
        let noise = settings.refusals_per_minute;
        let journal = Journal::open(&dir.join("audit"), clock.clone(), Arc::clone(&signer), noise)?;
        let stand = anchoring::stand((&records, &journal), &signer, (dir, &clock), anchoring)?;
        let anchor = wait(stand.open())?;
        Self::on(settings, dir, clock, ((records, journal, anchor), centre))
    }

    fn on(
        settings: Settings,
        dir: &Path,
        clock: SharedClock,
        ((records, journal, anchor), centre): (
            (Records, Journal, Following),
            Option<Arc<dyn Centre>>,
        ),
    ) -> Result<Self, Fault> {
        let Keyring { issuer, message, library } =
            Keyring::open(records, &settings, dir, (&clock, centre))?;
        let escrow = Escrow::open(settings.escrow_key.as_ref(), &dir.join("escrow.key"))?;
        let foreign = Foreign::new(&settings, issuer.certificate(), issuer.intermediates())?;
        let codes = Mutex::new(FloodGate::new(CODES_PER_MINUTE));
        let escrow = Arc::new(escrow);
        let dir = dir.to_owned();
        let keeper = Self {
            settings,
            dir,
            clock,
            library,
            issuer,
            message,
            escrow,
            journal,
            anchor,
            foreign,
            codes,
            movers: OnceLock::new(),
            host_keys: OnceLock::new(),
            migrating: Mutex::default(),
            importing: Mutex::default(),
        };
        keeper.publish()?;
        keeper.journal.done("trust", "trust-started", "trust", "")?;
        Ok(keeper)
    }

    /// The key that signs the service's messages, for the reader.
    #[must_use]
    pub fn message_identity(&self) -> MessageIdentity {
        let chain = vec![self.message.certificate.0.clone(), self.ca_certificate().to_vec()];
        MessageIdentity { chain, key: Secret::new(self.message.key.0.clone()) }
    }

    /// The CA's certificate, DER, our own or that of our PKI; it is in `ca.pem` of the state
    /// directory too.
    #[must_use]
    pub fn ca_certificate(&self) -> &[u8] {
        self.issuer.certificate()
    }

    /// Answers one request. What it changes is durable and in the audit log when it returns.
    #[must_use]
    pub fn serve(&self, request: KeyRequest) -> KeyAnswer {
        match self.dispatch(request) {
            Ok(answer) => answer,
            Err(why) => {
                if let Why::Fault(fault) = &why {
                    tracing::error!(detail = serve::exit::chain(fault), "a request failed");
                }
                KeyAnswer::Failed(why.failure())
            }
        }
    }

    fn dispatch(&self, request: KeyRequest) -> Result<KeyAnswer, Why> {
        Ok(match request {
            KeyRequest::Locate(query) => self.question(KeyOperation::Locate, &query, None)?,
            KeyRequest::Validate(query) => self.question(KeyOperation::Validate, &query, None)?,
            KeyRequest::AskedBy { signer, question } => self.signed(&signer, *question)?,
            KeyRequest::AuthenticationKeys { operation, binding } => {
                KeyAnswer::Keys(self.authentication_keys(operation, &binding)?)
            }
            KeyRequest::AuthenticationFailed { operation, binding } => {
                self.authentication_failed(operation, &binding)?;
                KeyAnswer::Noted
            }
            KeyRequest::MessageKey(hint) => KeyAnswer::Key(self.message_key(&hint)?),
            KeyRequest::Register { order, asked } => {
                let subject = asked.name.clone().unwrap_or_default();
                self.ordered(KeyOperation::Register, &order, &subject, || {
                    self.register(&order, &asked)
                })?
            }
            KeyRequest::Reissue(about) => {
                self.ordered(KeyOperation::Reissue, &about.order, &subject(&about.binding), || {
                    self.reissue(&about.order, &about.binding)
                })?
            }
            KeyRequest::Revoke(about) => {
                self.ordered(KeyOperation::Revoke, &about.order, &subject(&about.binding), || {
                    self.revoke(&about.order, &about.binding)
                })?
            }
            KeyRequest::Recover(about) => {
                self.ordered(KeyOperation::Recover, &about.order, &subject(&about.binding), || {
                    self.recover(&about.order, &about.binding)
                })?
            }
            KeyRequest::Collect(receipt) => KeyAnswer::Collected(self.collect(&receipt)?),
            KeyRequest::Progress(receipt) => KeyAnswer::Progress(self.progress(&receipt)?),
            KeyRequest::CaCertificate => {
                KeyAnswer::Published(Bytes(self.ca_certificate().to_vec()))
            }
            KeyRequest::Crl => self.handed_out("key-crl", self.crl())?,
            KeyRequest::DeltaCrl => self.handed_out("key-crl", self.delta_crl())?,
            KeyRequest::Ocsp(request) => self.handed_out("key-ocsp", self.ocsp(&request.0))?,
            KeyRequest::Refused { event, refusal, actor } => {
                self.journal.named(&actor, &event, "message", (&refusal, ""))?;
                KeyAnswer::Noted
            }
            // Answered beside the keeper, where there are guests: [`guest::Guests`].
            KeyRequest::Guest(_) => KeyAnswer::Failed(KeyFailure::NotSupported),
            KeyRequest::Health => {
                let store = self.library.records().sealed().store();
                wait(store.state()).map_err(RecordError::from)?;
                KeyAnswer::Noted
            }
        })
    }

    /// Carries out an order: again if others changed its records meanwhile, and with an audit entry
    /// if a rule says no.
    fn ordered(
        &self,
        operation: KeyOperation,
        order: &Order,
        subject: &str,
        run: impl Fn() -> Result<KeyOutcome, Why>,
    ) -> Result<KeyAnswer, Why> {
        let outcome = retried(run);
        if let Err(Why::Refused(refusal)) = &outcome {
            let event = format!("key-{}", operation.name());
            let subject = format!("key:{subject}");
            self.journal.refused(&actor(order), &event, &subject, *refusal)?;
        }
        outcome.map(KeyAnswer::Outcome)
    }

    fn now(&self) -> u64 {
        self.clock.unix_ms()
    }

    /// Writes down why this service refuses the passport that was issued to it: name and hint.
    ///
    /// # Errors
    /// [`Fault::Audit`].
    pub fn no_passport(&self, rule: (&str, &str)) -> Result<(), Fault> {
        self.journal.named("trust", "own-passport", "trust", rule)
    }

    /// Closes library and log; nothing is answered after it.
    ///
    /// # Errors
    /// [`Fault`] if the last checkpoint could not be signed or the store not be closed.
    pub fn close(&self) -> Result<(), Fault> {
        if let Err(error) = fsfile::remove(&self.socket()) {
            tracing::warn!(%error, "the operators' socket is left over");
        }
        self.journal.done("trust", "trust-stopped", "trust", "")?;
        self.journal.checkpoint()?;
        self.journal.close();
        let store = self.library.records().sealed().store();
        Ok(wait(store.close()).map_err(RecordError::from)?)
    }
}

/// Again while the records moved under it.
fn retried<T>(run: impl Fn() -> Result<T, Why>) -> Result<T, Why> {
    let mut outcome = run();
    for _ in 1..TRIES {
        if !matches!(outcome, Err(Why::Fault(Fault::Contended))) {
            return outcome;
        }
        outcome = run();
    }
    outcome
}

/// What the audit log calls a requester.
fn actor(order: &Order) -> String {
    match &order.requester {
        Requester::Key(holder) => format!("key:{holder}"),
        Requester::NotBound { protocol, .. } => format!("not-bound:{protocol}"),
        Requester::RevocationCode(_) => "revocation-code".to_owned(),
    }
}

/// What the audit log calls the binding of an example.
fn subject(example: &KeyExample) -> String {
    let key = || example.key.as_ref().map(|key| record::short_digest(&[&key.0]).to_string());
    let serial = || {
        let certificate = example.certificates.first()?;
        library::serial_of(&certificate.0).map(hex::encode)
    };
    example.name.clone().or_else(serial).or_else(key).unwrap_or_default()
}

impl From<Why> for KeyFailure {
    fn from(why: Why) -> Self {
        why.failure()
    }
}
