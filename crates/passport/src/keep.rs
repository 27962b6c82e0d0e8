//! The passport of this process, kept in force.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::{
    Digest, HostId,
    api::service::{HostStanding, Service},
};
use pki::{Anchors, CertRejection, PassportRejection, Purpose, Wanted, check_passport};
use serve::{
    client::{CallError, Identity},
    clock::SharedClock,
    https::{LiveIdentity, TlsError},
    keys::{KeyError, SigningKey},
    pem,
    shutdown::Shutdown,
};
use thiserror::Error;
use tokio::sync::watch;

use crate::Certifier;

/// The first and the longest wait before another try.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// The file in a service's state directory that remembers the authority's CAs, PEM.
const ANCHORS: &str = "passport-anchors.pem";
/// The shortest pause between two passports.
const PAUSE: Duration = Duration::from_millis(200);

/// Why there is no passport.
#[derive(Debug, Error)]
pub enum PassportError {
    /// The agent or the authority refused, or is away.
    #[error("no passport was issued")]
    Call(#[from] CallError),
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was issued is not a passport of this service.
    #[error("what was issued is no passport of this service")]
    Unfit(#[source] PassportRejection),
    /// The anchors cannot be used.
    #[error("the anchors that came with the passport cannot be used")]
    Anchors(#[from] CertRejection),
    /// One of the anchors was not there before.
    #[error("the anchors that came with the passport are another authority's than before")]
    AnchorsChanged,
    /// The file of the anchors.
    #[error("the file of the anchors cannot be used")]
    File(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Certificate and key cannot be used for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl PassportError {
    /// The name of the refusal, if a rule said no.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Call(call) => call.refusal(),
            Self::AnchorsChanged => Some("passport-anchors-changed"),
            Self::Unfit(rejection) => Some(rejection.code()),
            Self::Key(_) | Self::Anchors(_) | Self::File(_) | Self::Tls(_) => None,
        }
    }

    /// The same with a hint, for the service's own audit log: what somebody else refused is in the
    /// log of whoever did.
    fn refused(&self) -> Option<Refused> {
        let hint = match self {
            Self::Unfit(PassportRejection::Expired | PassportRejection::NotYetValid) => {
                "it was issued a moment ago: compare this server's clock with the authority's"
            }
            Self::Unfit(rejection) => rejection.hint(),
            Self::AnchorsChanged => "see `passport-anchors.pem` in the state directory",
            Self::Call(_) | Self::Key(_) | Self::Anchors(_) | Self::File(_) | Self::Tls(_) => {
                return None;
            }
        };
        Some((self.refusal()?.to_owned(), hint))
    }
}

/// Why what was issued is no passport for this process: the refusal's name, and what to do.
pub type Refused = (String, &'static str);

/// A passport in force.
#[derive(Debug)]
pub struct Current {
    /// The certificate, DER, alone in its chain.
    pub chain: Vec<Vec<u8>>,
    /// Its key.
    pub key: SigningKey,
    /// The CAs that certify peers, DER.
    pub anchors: Vec<Vec<u8>>,
    /// The same, to verify with.
    pub trusted: Anchors,
    /// The host that it names.
    pub host: HostId,
    /// The verdict that it rests on.
    pub verdict: Digest,
    /// Its end, Unix milliseconds.
    pub expires_at: u64,
    /// Counts the passports of this process.
    pub generation: u64,
}

impl Current {
    /// Chain and key, as clients and servers show them.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn identity(&self) -> Result<Identity, KeyError> {
        Ok(Identity { chain: self.chain.clone(), key: self.key.to_pkcs8()? })
    }
}

/// The passport of this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Passport {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    certifier: Arc<dyn Certifier>,
    pub(crate) service: Service,
    pub(crate) clock: SharedClock,
    pub(crate) live: LiveIdentity,
    current: watch::Sender<Option<Arc<Current>>>,
    renewing: tokio::sync::Mutex<()>,
    trouble: Mutex<Option<String>>,
    refused: watch::Sender<Option<Refused>>,
    /// Where the anchors are remembered from one start to the next.
    pinned: Option<PathBuf>,
}

impl Passport {
    /// None yet: [`Passport::run`] gets it. The anchors of the first one stand as long as the process
    /// lives.
    pub fn new(certifier: Arc<dyn Certifier>, service: Service, clock: SharedClock) -> Self {
        Self::made(certifier, service, clock, None)
    }

    /// The same; the anchors are remembered in `passport-anchors.pem` of a service's `state_dir`, and
    /// stand from then on: whoever hands passports out cannot exchange the authority that peers are
    /// believed for.
    pub fn pinned(
        certifier: Arc<dyn Certifier>,
        service: Service,
        clock: SharedClock,
        state_dir: &Path,
    ) -> Self {
        Self::made(certifier, service, clock, Some(state_dir.join(ANCHORS)))
    }

    fn made(
        certifier: Arc<dyn Certifier>,
        service: Service,
        clock: SharedClock,
        pinned: Option<PathBuf>,
    ) -> Self {
        let inner = Inner {
            certifier,
            service,
            clock,
            live: LiveIdentity::default(),
            current: watch::Sender::new(None),
            renewing: tokio::sync::Mutex::default(),
            trouble: Mutex::default(),
            refused: watch::Sender::new(None),
            pinned,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The passport, if there is one that has not expired.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Current>> {
        let now = self.inner.clock.unix_ms();
        self.inner.current.borrow().clone().filter(|current| now < current.expires_at)
    }

    /// The time by this process's clock.
    #[must_use]
    pub fn now(&self) -> time::OffsetDateTime {
        self.inner.clock.now()
    }

    /// Waits until there is one.
    pub async fn ready(&self) -> Arc<Current> {
        let mut changes = self.inner.current.subscribe();
        loop {
            if let Some(current) = self.current() {
                return current;
            }
            // The sender is in `self`: it is not dropped meanwhile. Expired: another comes.
            let _ = changes.changed().await;
        }
    }

    /// Why the last try failed, if it did: in words.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.inner.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets a new passport with a new key now: the authority issues it only if the host's verdict
    /// is good at this moment.
    ///
    /// # Errors
    /// [`PassportError`]; the one before stays as long as it lasts.
    pub async fn renew(&self) -> Result<Arc<Current>, PassportError> {
        let _one = self.inner.renewing.lock().await;
        let outcome = self.attempt().await;
        let said = outcome.as_ref().err().map(|error| serve::exit::chain(error).to_string());
        let refused = outcome.as_ref().err().and_then(PassportError::refused);
        self.inner
            .refused
            .send_if_modified(|last| std::mem::replace(last, refused.clone()) != refused);
        *self.inner.trouble.lock().unwrap_or_else(PoisonError::into_inner) = said;
        outcome
    }

    async fn attempt(&self) -> Result<Arc<Current>, PassportError> {
        let inner = &self.inner;
        let key = SigningKey::generate()?;
        let issued = inner.certifier.certify(inner.service, key.spki()).await?;
        let anchors: Vec<Vec<u8>> = issued.anchors.into_iter().map(|der| der.0).collect();
        let trusted = Anchors::new(&anchors)?;
        let chain = vec![issued.certificate.0];
        let none: [&[u8]; 0] = [];
        let leaf = chain.first().map_or(&[][..], Vec::as_slice);
        let serves = inner.service.only_serves();
        let purpose = if serves { Purpose::TlsServer } else { Purpose::TlsClient };
        let at = (inner.clock.now(), purpose);
        let checked = check_passport(leaf, &none, &trusted, at, &Wanted::any(inner.service));
        let checked = checked.map_err(PassportError::Unfit)?;
        self.pin(&anchors)?;
        inner.live.replace(&chain, &key.to_pkcs8()?)?;
        let generation = inner.current.borrow().as_ref().map_or(0, |last| last.generation);
        let current = Arc::new(Current {
            host: checked.host().clone(),
            verdict: checked.verdict(),
            chain,
            key,
            anchors,
            trusted,
            expires_at: issued.expires_at,
            generation: generation.saturating_add(1),
        });
        inner.current.send_replace(Some(Arc::clone(&current)));
        Ok(current)
    }

    /// Remembers the first anchors, and refuses any other: whoever wants a new authority believed
    /// removes the file, or puts its CA there.
    fn pin(&self, anchors: &[Vec<u8>]) -> Result<(), PassportError> {
        let file = self.inner.pinned.as_deref();
        let failed = |error: pem::PemError| PassportError::File(Box::new(error));
        let known = match (&*self.inner.current.borrow(), file) {
            (Some(current), _) => current.anchors.clone(),
            (None, Some(file)) if file.exists() => pem::read_certificates(file).map_err(failed)?,
            (None, Some(file)) => return pem::write_certificates(file, anchors).map_err(failed),
            (None, None) => return Ok(()),
        };
        let same = anchors.iter().all(|one| known.contains(one));
        if same { Ok(()) } else { Err(PassportError::AnchorsChanged) }
    }

    /// Whether the services of a host are to be trusted at this moment.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn standing(&self, host: &HostId) -> Result<HostStanding, CallError> {
        self.inner.certifier.standing(host).await
    }

    /// Has `note` told, on a thread that may block, of each reason for which this process itself
    /// refuses what was issued to it, once as it begins: for the service's audit log.
    pub async fn noted(&self, note: impl Fn(Refused) + Clone + Send + 'static) {
        let mut refused = self.inner.refused.subscribe();
        refused.mark_changed();
        // The sender is in `self`: it is not dropped meanwhile.
        while refused.changed().await.is_ok() {
            let Some(why) = refused.borrow_and_update().clone() else { continue };
            let note = note.clone();
            // A panic there ends the process.
            let _ = tokio::task::spawn_blocking(move || note(why)).await;
        }
    }

    /// Keeps a passport in force until `shutdown`.
    pub async fn run(&self, shutdown: Shutdown) {
        let mut wait = WAIT.0;
        loop {
            let pause = match self.renew().await {
                Ok(current) => {
                    wait = WAIT.0;
                    let left = current.expires_at.saturating_sub(self.inner.clock.unix_ms());
                    Duration::from_millis(left / 2).max(PAUSE)
                }
                Err(error) => {
                    tracing::warn!(error = serve::exit::chain(&error), "no passport");
                    wait = wait.saturating_mul(2).min(WAIT.1);
                    wait
                }
            };
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
