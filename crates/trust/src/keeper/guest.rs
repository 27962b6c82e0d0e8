//! Guests' clients, over a port of their VM or over a network: what proves the service to them, and
//! what they must prove before a request is taken.
//!
//! ```text
//! reader ── Passport ──► the service's certificate, for the TLS connection
//!        ── Challenge ─► agent: what was measured in this VM? ─► credential, nonce
//!        ── Attest ────► agent: and now? ─► attest::channel::appraise ─► admitted until ..
//!        ── Ask ───────► admitted on this connection? the VM's own keys? ─► the keeper
//! ```
//!
//! **Invariants:** a challenge is answered once, on its connection, in time; a port has one open
//! challenge, and over networks there are `MOST_CLAIMED`, so the table is bounded; who only claims to
//! be a VM disturbs none of its proofs, on its port or elsewhere; both outcomes are in the audit log
//! before the answer leaves, but for a flood's; without an agent nothing is decided.

mod behalf;
mod settings;

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use attest::channel::{self, ChannelRejection, Opened, SoftwarePolicy};
use model::{
    Digest, Nonce, Secret, VmId,
    api::Bytes,
    guest::{
        ChallengeAsk, ChannelEvidence, GuestAnswer, GuestChallenge, GuestLine, GuestRequest,
        Measured,
    },
    keys::{order::SecretBytes, rpc::KeyAnswer},
};
use serve::{
    clock::SharedClock,
    exit::chain,
    flood::{FloodGate, Passage},
    random,
};
use thiserror::Error;

pub use self::settings::GuestSettings;
use super::{Fault, Keeper};

/// Most open challenges over networks.
const MOST_CLAIMED: usize = 1024;

/// Certificate chain (leaf first, DER) and key (PKCS#8 DER) of the service.
#[derive(Debug)]
pub struct PassportKeys {
    /// The chain.
    pub chain: Vec<Vec<u8>>,
    /// The key.
    pub key: Secret<Vec<u8>>,
}

/// What the agent of the server is asked. Calls may block.
pub trait Agent: fmt::Debug + Send + Sync {
    /// What it knows of a VM on this server, now.
    ///
    /// # Errors
    /// [`AgentFault`].
    fn measured(&self, vm: &VmId) -> Result<Measured, AgentFault>;

    /// The service's present passport, if it has one.
    ///
    /// # Errors
    /// [`AgentFault`].
    fn passport(&self) -> Result<Option<PassportKeys>, AgentFault>;
}

/// The agent gave no answer.
#[derive(Debug, Error)]
pub enum AgentFault {
    /// No word from it that counts.
    #[error("the agent of this server cannot be asked: {0}")]
    Away(String),
    /// It knows no such VM.
    #[error("the agent of this server knows no such VM")]
    Unknown,
}

/// Why a request about a guest has no answer.
#[derive(Debug, Error)]
enum Why {
    /// A rule said no.
    #[error(transparent)]
    Refused(#[from] ChannelRejection),
    /// Too many proofs are asked for.
    #[error("more proofs in a minute than a guest may give")]
    Busy,
    /// The same as a moment ago, from somewhere in a network.
    #[error("more proofs in a minute than a client may give")]
    Flooded,
    /// The VM that a client in a network claims is not one of this server.
    #[error("no VM of that name is on this server")]
    Unknown,
    /// It could not be decided.
    #[error("it could not be decided")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Why {
    fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Where a proof is kept: a port has one place, and over a network each connection.
type Place = (VmId, Option<Digest>);

fn place(line: &GuestLine) -> Place {
    (line.vm.clone(), line.claimed_from.map(|_| line.channel))
}

/// Who may ask for so many challenges in a minute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Port(VmId),
    Network(IpAddr),
}

/// What the audit log calls a client before it has proven itself.
fn claimant(line: &GuestLine) -> String {
    line.claimed_from.map_or_else(|| format!("vm:{}", line.vm), |at| format!("client:{at}"))
}

/// All guests of this server.
#[derive(Debug)]
pub struct Guests {
    settings: GuestSettings,
    policy: SoftwarePolicy,
    agent: Box<dyn Agent>,
    clock: SharedClock,
    open: Mutex<HashMap<Place, Opened>>,
    /// The connection on which each VM is admitted, and until when.
    admitted: Mutex<HashMap<Place, (Digest, u64)>>,
    flood: Mutex<FloodGate<Source>>,
}

impl Guests {
    /// Guests as the settings say; facts come from `agent`.
    #[must_use]
    pub fn new(settings: GuestSettings, agent: Box<dyn Agent>, clock: SharedClock) -> Self {
        let policy = SoftwarePolicy {
            client_path: settings.client_path.clone(),
            clients: settings.clients.clone(),
            software: settings.software.clone(),
        };
        let flood = Mutex::new(FloodGate::new(settings.proofs_per_minute));
        Self {
            settings,
            policy,
            agent,
            clock,
            open: Mutex::default(),
            admitted: Mutex::default(),
            flood,
        }
    }

    /// Answers one request; `keeper` has the audit log.
    #[must_use]
    pub fn answer(&self, keeper: &Keeper, request: GuestRequest) -> KeyAnswer {
        KeyAnswer::Guest(match request {
            GuestRequest::Ask { line, request } => {
                return self.on_behalf(keeper, &line, *request);
            }
            GuestRequest::Passport => match self.agent.passport() {
                Ok(Some(PassportKeys { chain, key })) => GuestAnswer::Passport {
                    chain: chain.into_iter().map(Bytes).collect(),
                    key: SecretBytes::new(key),
                },
                Ok(None) => GuestAnswer::NoPassport,
                Err(fault) => failed("passport", &fault),
            },
            GuestRequest::Challenge { line, ask } => {
                let outcome = self.challenge(&line, &ask);
                conclude(keeper, &line, "guest-challenge", outcome, GuestAnswer::Challenge)
            }
            GuestRequest::Attest { line, evidence } => {
                let outcome = self.attest(keeper, &line, &evidence);
                let good = |until| GuestAnswer::Admitted { until };
                conclude(keeper, &line, "guest-attest", outcome, good)
            }
        })
    }

    /// Whether a client may ask now.
    fn pass(&self, line: &GuestLine, now: u64) -> Result<(), Why> {
        let source =
            line.claimed_from.map_or_else(|| Source::Port(line.vm.clone()), Source::Network);
        match (self.flood().pass(source, now), line.claimed_from) {
            (Passage::Free, _) => Ok(()),
            (Passage::Again, Some(_)) => Err(Why::Flooded),
            (Passage::First | Passage::Again, _) => Err(Why::Busy),
        }
    }

    fn measured(&self, line: &GuestLine) -> Result<Measured, Why> {
        self.agent.measured(&line.vm).map_err(|fault| match (fault, line.claimed_from) {
            (AgentFault::Unknown, Some(_)) => Why::Unknown,
            (fault, _) => Why::failed(fault),
        })
    }

    fn challenge(&self, line: &GuestLine, ask: &ChallengeAsk) -> Result<GuestChallenge, Why> {
        let now = self.clock.unix_ms();
        self.pass(line, now)?;
        let measured = self.measured(line)?;
        let keys = channel::open(ask, &measured)?;
        let secret = random::secret::<32>().map_err(Why::failed)?;
        let nonce = Nonce(random::bytes().map_err(Why::failed)?);
        let credential = keys.credential(&secret)?;
        let expires_at = now.saturating_add(self.settings.challenge_s.saturating_mul(1000));
        let opened = Opened { keys, nonce, expires_at, channel: line.channel, secret };
        let mut open = self.open();
        open.retain(|(_, claimed), one| claimed.is_none() || one.expires_at > now);
        let claimed = open.keys().filter(|(_, claimed)| claimed.is_some()).count();
        if line.claimed_from.is_some() && claimed >= MOST_CLAIMED {
            return Err(Why::Busy);
        }
        open.insert(place(line), opened);
        drop(open);
        Ok(GuestChallenge {
            nonce,
            expires_at,
            id_object: Bytes(credential.id_object),
            encrypted_seed: Bytes(credential.encrypted_seed),
        })
    }

    fn attest(
        &self,
        keeper: &Keeper,
        line: &GuestLine,
        evidence: &ChannelEvidence,
    ) -> Result<u64, Why> {
        let now = self.clock.unix_ms();
        let place = place(line);
        // Used up, whatever comes of it; and what an earlier proof allowed is over.
        self.admitted().remove(&place);
        let opened = self.open().remove(&place).filter(|opened| opened.channel == line.channel);
        if opened.is_none() && line.claimed_from.is_some() {
            self.pass(line, now)?;
        }
        let opened = opened.ok_or(ChannelRejection::QuoteReplayed("no challenge is open here"))?;
        let measured = self.measured(line)?;
        let proven = channel::appraise(&opened, evidence, &measured, &self.policy, now)?;
        let over = line.claimed_from.map(|at| format!(", from {at}")).unwrap_or_default();
        let detail = format!("epoch {}, client {}{over}", proven.epoch().0, proven.client());
        keeper.guest_admitted(proven.vm(), &detail).map_err(Why::failed)?;
        let until = now.saturating_add(self.settings.admitted_s.saturating_mul(1000));
        let mut admitted = self.admitted();
        admitted.retain(|(_, claimed), (_, until)| claimed.is_none() || *until > now);
        admitted.insert(place, (line.channel, until));
        Ok(until)
    }

    fn admitted(&self) -> std::sync::MutexGuard<'_, HashMap<Place, (Digest, u64)>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<Place, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flood(&self) -> std::sync::MutexGuard<'_, FloodGate<Source>> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn conclude<T>(
    keeper: &Keeper,
    line: &GuestLine,
    event: &str,
    outcome: Result<T, Why>,
    good: impl FnOnce(T) -> GuestAnswer,
) -> GuestAnswer {
    let (name, detail, hint) = match outcome {
        Ok(value) => return good(value),
        Err(Why::Failed(fault)) => return failed(event, &*fault),
        Err(Why::Refused(no)) => (no.code(), no.to_string(), no.hint()),
        Err(Why::Busy) => ("guest-busy", String::new(), "a guest in a loop: look at its console"),
        Err(Why::Flooded) => return GuestAnswer::Refused { name: "guest-busy".to_owned() },
        Err(Why::Unknown) => {
            ("guest-unknown", String::new(), "`vm` in the client's configuration is its VM's name")
        }
    };
    match keeper.guest_refused(line, event, (name, &detail, hint)) {
        Ok(()) => GuestAnswer::Refused { name: name.to_owned() },
        Err(fault) => failed(event, &fault),
    }
}

fn failed(event: &str, fault: &(dyn std::error::Error + 'static)) -> GuestAnswer {
    tracing::error!(event, detail = chain(fault), "a guest's connection is not served");
    GuestAnswer::Failed
}

impl Keeper {
    /// Writes down that a guest's client was admitted.
    fn guest_admitted(&self, vm: &VmId, detail: &str) -> Result<(), Fault> {
        self.journal.done(&format!("vm:{vm}"), "guest-attest", &format!("vm:{vm}"), detail)
    }

    /// Writes down that it was not.
    fn guest_refused(
        &self,
        line: &GuestLine,
        event: &str,
        (name, detail, hint): (&str, &str, &str),
    ) -> Result<(), Fault> {
        let hint = if detail.is_empty() { hint.to_owned() } else { format!("{detail}; {hint}") };
        self.journal.named(&claimant(line), event, &format!("vm:{}", line.vm), (name, &hint))
    }
}
