//! Guests' clients that speak over a port of their VM: what proves the service to them, and what
//! they must prove before a request is taken.
//!
//! ```text
//! reader ── Passport ──► the service's certificate, for the TLS connection
//!        ── Challenge ─► agent: what was measured in this VM? ─► credential, nonce
//!        ── Attest ────► agent: and now? ─► attest::channel::appraise ─► admitted until ..
//!        ── Ask ───────► admitted on this connection? the VM's own keys? ─► the keeper
//! ```
//!
//! **Invariants:** a challenge is answered once, on its connection, in time; one VM has one open
//! challenge, so the table is bounded by the server's VMs; both outcomes are in the audit log before
//! the answer leaves; without an agent nothing is decided.

mod behalf;
mod settings;

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use attest::channel::{self, ChannelRejection, Opened, SoftwarePolicy};
use model::{
    Digest, Nonce, Secret, VmId,
    api::Bytes,
    guest::{ChallengeAsk, ChannelEvidence, GuestAnswer, GuestChallenge, GuestRequest, Measured},
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

    /// The service's present passport.
    ///
    /// # Errors
    /// [`AgentFault`].
    fn passport(&self) -> Result<PassportKeys, AgentFault>;
}

/// The agent gave no answer.
#[derive(Debug, Error)]
#[error("the agent of this server cannot be asked: {0}")]
pub struct AgentFault(pub String);

/// Why a request about a guest has no answer.
#[derive(Debug, Error)]
enum Why {
    /// A rule said no.
    #[error(transparent)]
    Refused(#[from] ChannelRejection),
    /// Too many proofs are asked for.
    #[error("more proofs in a minute than a guest may give")]
    Busy,
    /// It could not be decided.
    #[error("it could not be decided")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Why {
    fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// All guests of this server.
#[derive(Debug)]
pub struct Guests {
    settings: GuestSettings,
    policy: SoftwarePolicy,
    agent: Box<dyn Agent>,
    clock: SharedClock,
    open: Mutex<HashMap<VmId, Opened>>,
    /// The connection on which each VM is admitted, and until when.
    admitted: Mutex<HashMap<VmId, (Digest, u64)>>,
    flood: Mutex<FloodGate<VmId>>,
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
            GuestRequest::Ask { vm, channel, request } => {
                return self.on_behalf(keeper, &vm, channel, *request);
            }
            GuestRequest::Passport => match self.agent.passport() {
                Ok(PassportKeys { chain, key }) => GuestAnswer::Passport {
                    chain: chain.into_iter().map(Bytes).collect(),
                    key: SecretBytes::new(key),
                },
                Err(fault) => failed("passport", &fault),
            },
            GuestRequest::Challenge { vm, channel, ask } => {
                let outcome = self.challenge(&vm, channel, &ask);
                conclude(keeper, &vm, "guest-challenge", outcome, GuestAnswer::Challenge)
            }
            GuestRequest::Attest { vm, channel, evidence } => {
                let outcome = self.attest(keeper, &vm, channel, &evidence);
                conclude(keeper, &vm, "guest-attest", outcome, |until| GuestAnswer::Admitted {
                    until,
                })
            }
        })
    }

    fn challenge(
        &self,
        vm: &VmId,
        channel: Digest,
        ask: &ChallengeAsk,
    ) -> Result<GuestChallenge, Why> {
        let now = self.clock.unix_ms();
        if self.flood().pass(vm.clone(), now) != Passage::Free {
            return Err(Why::Busy);
        }
        let measured = self.agent.measured(vm).map_err(Why::failed)?;
        let keys = channel::open(ask, &measured)?;
        let secret = random::secret::<32>().map_err(Why::failed)?;
        let nonce = Nonce(random::bytes().map_err(Why::failed)?);
        let credential = keys.credential(&secret)?;
        let expires_at = now.saturating_add(self.settings.challenge_s.saturating_mul(1000));
        let opened = Opened { keys, nonce, expires_at, channel, secret };
        self.open().insert(vm.clone(), opened);
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
        vm: &VmId,
        channel: Digest,
        evidence: &ChannelEvidence,
    ) -> Result<u64, Why> {
        let now = self.clock.unix_ms();
        // Used up, whatever comes of it; and what an earlier proof allowed is over.
        self.admitted().remove(vm);
        let opened = self.open().remove(vm).filter(|opened| opened.channel == channel);
        let opened = opened.ok_or(ChannelRejection::QuoteReplayed("no challenge is open here"))?;
        let measured = self.agent.measured(vm).map_err(Why::failed)?;
        let proven = channel::appraise(&opened, evidence, &measured, &self.policy, now)?;
        let detail = format!("epoch {}, client {}", proven.epoch().0, proven.client());
        keeper.guest_admitted(proven.vm(), &detail).map_err(Why::failed)?;
        let until = now.saturating_add(self.settings.admitted_s.saturating_mul(1000));
        self.admitted().insert(vm.clone(), (channel, until));
        Ok(until)
    }

    fn admitted(&self) -> std::sync::MutexGuard<'_, HashMap<VmId, (Digest, u64)>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<VmId, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flood(&self) -> std::sync::MutexGuard<'_, FloodGate<VmId>> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn conclude<T>(
    keeper: &Keeper,
    vm: &VmId,
    event: &str,
    outcome: Result<T, Why>,
    good: impl FnOnce(T) -> GuestAnswer,
) -> GuestAnswer {
    let (name, detail, hint) = match outcome {
        Ok(value) => return good(value),
        Err(Why::Failed(fault)) => return failed(event, &*fault),
        Err(Why::Refused(no)) => (no.code(), no.to_string(), no.hint()),
        Err(Why::Busy) => ("guest-busy", String::new(), "a guest in a loop: look at its console"),
    };
    match keeper.guest_refused(vm, event, (name, &detail, hint)) {
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
        vm: &VmId,
        event: &str,
        (name, detail, hint): (&str, &str, &str),
    ) -> Result<(), Fault> {
        let hint = if detail.is_empty() { hint.to_owned() } else { format!("{detail}; {hint}") };
        let vm = format!("vm:{vm}");
        self.journal.named(&vm, event, &vm, (name, &hint))
    }
}
