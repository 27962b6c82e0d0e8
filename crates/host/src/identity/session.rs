//! Sessions with the authority: each begins with fresh keys, a challenge and a quote that binds
//! them, and ends with its certificate.

use std::{sync::Arc, time::Duration};

use model::{
    agent::AgentSession,
    api::enrol::{
        Challenge, ChallengePurpose, ChallengeRequest, GuardApproval, HostEvidence, HostMode,
        HostSession,
    },
};
use serve::{
    client::{Call, Client, ClientLimits, Identity},
    clock::SharedClock,
    exit::chain,
    fsfile, hpke, keys,
    shutdown::Shutdown,
};
use tokio::sync::{Notify, watch};

use super::{Enrolment, enrol};
use crate::{config::Config, hosttpm::HostTpm, trouble::Trouble};

/// The longest event log.
const EVENT_LOG: usize = 4 << 20;

/// The first and the longest wait before another try.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// One session: the client that the authority knows us by, and the key that grants are sealed to.
#[derive(Debug)]
pub(crate) struct Session {
    /// Calls with the session certificate.
    pub(crate) client: Client,
    /// Opens grants of this session.
    pub(crate) grant_key: hpke::HpkePrivate,
    /// How it stands.
    pub(crate) view: AgentSession,
    /// Lets the TPM open what this host caches, if it may cache anything.
    pub(crate) approval: Option<GuardApproval>,
    /// The key whose approvals count, SubjectPublicKeyInfo.
    pub(crate) approver: Vec<u8>,
}

/// How it stands between us and the authority.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionState {
    /// The enrolment, once there is one.
    pub(crate) enrolment: Option<Arc<Enrolment>>,
    /// The present session.
    pub(crate) session: Option<Arc<Session>>,
    /// Why there is none.
    pub(crate) trouble: Option<Trouble>,
    /// Counts attempts that have ended, well or not.
    pub(crate) attempts: u64,
}

/// Where parts of the agent find the present session.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    state: Arc<watch::Sender<SessionState>>,
    wanted: Arc<Notify>,
    clock: SharedClock,
}

impl Link {
    /// No session yet.
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { state: Arc::default(), wanted: Arc::new(Notify::new()), clock }
    }

    /// The session, if there is one that has not ended.
    ///
    /// # Errors
    /// The refusal, if the authority refuses this host; [`Trouble::away`] if it is silent.
    pub(crate) fn session(&self) -> Result<Arc<Session>, Trouble> {
        let state = self.state.borrow();
        let now = self.clock.unix_ms();
        if let Some(session) = state.session.as_ref().filter(|s| s.view.expires_at > now) {
            return Ok(Arc::clone(session));
        }
        Err(match (state.refusal(), &state.trouble) {
            (Some(refused), _) => refused.clone(),
            (None, Some(trouble)) => {
                Trouble::away(format!("there is no session with the authority ({trouble})"))
            }
            (None, None) => Trouble::away("there is no session with the authority yet"),
        })
    }

    /// Why the authority refuses this host, if it does.
    pub(crate) fn refusal(&self) -> Option<Trouble> {
        self.state.borrow().refusal().cloned()
    }

    /// The enrolment, if there is one.
    ///
    /// # Errors
    /// [`Trouble::away`] if there is none yet.
    pub(crate) fn enrolment(&self) -> Result<Arc<Enrolment>, Trouble> {
        let known = self.state.borrow().enrolment.clone();
        known.ok_or_else(|| Trouble::away("this host is not enrolled yet"))
    }

    /// How it stands now.
    pub(crate) fn state(&self) -> SessionState {
        self.state.borrow().clone()
    }

    /// To be told of every change.
    pub(crate) fn watch(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    /// Asks for a new session now and waits for the outcome of that attempt.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn renew(&self) -> Result<Arc<Session>, Trouble> {
        let mut changes = self.state.subscribe();
        let before = changes.borrow_and_update().attempts;
        self.wanted.notify_one();
        let patience = Duration::from_secs(60);
        let ended = changes.wait_for(|state| state.attempts > before);
        match tokio::time::timeout(patience, ended).await {
            Ok(Ok(state)) => match (&state.trouble, &state.session) {
                (None, Some(session)) => Ok(Arc::clone(session)),
                (Some(trouble), _) => Err(trouble.clone()),
                (None, None) => Err(Trouble::away("there is no session")),
            },
            Ok(Err(_)) | Err(_) => Err(Trouble::away("the attempt takes too long")),
        }
    }

    /// The authority does not take our certificate any more: get another soon.
    pub(crate) fn doubt(&self) {
        self.wanted.notify_one();
    }

    fn ended(&self, result: Result<Arc<Session>, Trouble>) {
        self.state.send_modify(|state| {
            state.attempts = state.attempts.saturating_add(1);
            match result {
                Ok(session) => {
                    state.session = Some(session);
                    state.trouble = None;
                }
                Err(trouble) => {
                    // A refusal ends the session; a silent authority does not.
                    if trouble.reason.refused.is_some() {
                        state.session = None;
                    }
                    state.trouble = Some(trouble);
                }
            }
        });
    }
}

/// Enrols if need be, then keeps a session alive until `shutdown`.
pub(crate) async fn keep(
    config: Arc<Config>,
    tpm: HostTpm,
    link: Link,
    public: Client,
    anchors: Vec<Vec<u8>>,
    shutdown: Shutdown,
) {
    let mut wait = WAIT.0;
    loop {
        let result = attempt(&config, &tpm, &link, &public, &anchors).await;
        let pause = match &result {
            Ok(session) => {
                wait = WAIT.0;
                half_life(session, &link.clock)
            }
            Err(trouble) => {
                tracing::warn!(%trouble, "no session with the authority");
                wait = wait.mul_f64(1.5).min(WAIT.1);
                wait
            }
        };
        link.ended(result);
        tokio::select! {
            () = shutdown.requested() => return,
            () = link.wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A certificate is renewed at half its life, so that one failed try does no harm.
fn half_life(session: &Session, clock: &SharedClock) -> Duration {
    let left = session.view.expires_at.saturating_sub(clock.unix_ms());
    Duration::from_millis((left / 2).max(200))
}

async fn attempt(
    config: &Config,
    tpm: &HostTpm,
    link: &Link,
    public: &Client,
    anchors: &[Vec<u8>],
) -> Result<Arc<Session>, Trouble> {
    let known = link.state.borrow().enrolment.clone();
    let enrolment = match known {
        Some(enrolment) => enrolment,
        None => {
            let enrolment = Arc::new(enrol(config, tpm, public).await?);
            let known = Arc::clone(&enrolment);
            link.state.send_modify(|state| state.enrolment = Some(known));
            enrolment
        }
    };
    let clock = &link.clock;
    let ask = ChallengeRequest {
        host: config.name.clone(),
        purpose: ChallengePurpose::HostAttest,
        now: clock.unix_ms(),
    };
    let challenge: Challenge = public.post("/v1/challenges", &ask).await?;
    let session_key = keys::SigningKey::generate()?;
    let (grant_key, grant_public) = hpke::generate()?;
    let qualifying = attest::binding::host(&challenge.nonce, session_key.spki(), &grant_public.0);
    let (quote, ak) = tpm.quote(qualifying, challenge.pcrs.clone()).await?;
    let evidence = HostEvidence {
        nonce: challenge.nonce,
        session_key: session_key.spki().to_vec().into(),
        grant_key: grant_public.0.into(),
        ak_public: ak.as_bytes().to_vec().into(),
        quote: quote.attest.into(),
        signature: quote.signature.into(),
        event_log: fsfile::read_limited(&config.event_log, EVENT_LOG)?.into(),
        guard_counter: counter(tpm).await,
    };
    let path = format!("/v1/hosts/{}/attest", config.name);
    let issued_at = clock.unix_ms();
    let answer: HostSession = public.call(Call::post(path).json(&evidence)?).await?;
    let identity = Identity { chain: vec![answer.certificate.0], key: session_key.to_pkcs8()? };
    let limits = ClientLimits::default();
    let client =
        Client::https(&config.authority.url, anchors, Some(&identity), clock.clone(), limits)?;
    let view = AgentSession {
        mode: answer.mode,
        issued_at,
        expires_at: answer.expires_at,
        lease_until: answer.lease_until,
    };
    tracing::info!(mode = ?view.mode, expires_at = view.expires_at, "session");
    let approver = enrolment.signing_key.0.clone();
    Ok(Arc::new(Session { client, grant_key, view, approval: answer.guard, approver }))
}

/// The policy counter. A TPM that has none caches nothing; sessions go on.
async fn counter(tpm: &HostTpm) -> Option<u64> {
    let counter = tpm.guard_counter().await;
    counter.inspect_err(|error| tracing::warn!(error = chain(error), "no policy counter")).ok()
}

/// Refusals that the next attempt does away with by itself.
const PASSING: [&str; 4] = ["nonce-expired", "nonce-unknown", "nonce-used", "rate-limited"];

impl SessionState {
    /// Why the authority refuses this host, if its last answer was that.
    fn refusal(&self) -> Option<&Trouble> {
        let refused = |trouble: &&Trouble| {
            trouble.reason.refused.as_deref().is_some_and(|name| !PASSING.contains(&name))
        };
        self.trouble.as_ref().filter(refused)
    }

    /// The host's mode, as last heard.
    pub(crate) fn mode(&self) -> Option<HostMode> {
        match (&self.session, &self.trouble, &self.enrolment) {
            (Some(session), _, _) => Some(session.view.mode),
            (None, Some(trouble), _)
                if trouble.reason.refused.as_deref() == Some("host-revoked") =>
            {
                Some(HostMode::Revoked)
            }
            (None, _, Some(_)) => Some(HostMode::Pending),
            (None, _, None) => None,
        }
    }
}
