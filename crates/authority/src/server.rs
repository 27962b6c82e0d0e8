//! The running authority: open, anchor, listen, serve, drain, anchor again.

use std::{sync::Arc, time::Duration};

use anchor::{AnchorFault, Anchored, Pace};
use serve::{
    clock::SharedClock,
    fsfile,
    https::{self, ListenError, Server, ServerTls, TlsError},
    shutdown::Shutdown,
};
use thiserror::Error;
use tokio::task::JoinHandle;

use crate::{
    app::{App, Shared},
    audit::{Actor, AuditError, Auditor, Done},
    config::Config,
    ekroots::{EkRoots, EkRootsError},
    flood::FloodGate,
    ground::{self, GroundError, Opened},
    housekeeping,
    keyring::KeyringError,
    nonce::NonceBook,
    paths::Paths,
    records,
    reference::{ReferenceError, References},
    refused_starts::RefusedStarts,
    routes,
    tpmlink::TpmLink,
};

/// How long running requests may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the server did not start, or ended.
#[derive(Debug, Error)]
pub(crate) enum ServerError {
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The trust anchors of TPM makers.
    #[error(transparent)]
    EkRoots(#[from] EkRootsError),
    /// Files.
    #[error(transparent)]
    File(#[from] fsfile::FileError),
    /// What the server stands on.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// Listening.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Reference values.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Signals.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ServerError {
    /// The refusal's name and hint, if a rule said no: exit status 3.
    pub(crate) fn refusal(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Ground(error) => error.refusal(),
            Self::Audit(_)
            | Self::EkRoots(_)
            | Self::File(_)
            | Self::Listen(_)
            | Self::Reference(_)
            | Self::Signals(_)
            | Self::Tls(_) => None,
        }
    }
}

impl From<AnchorFault> for ServerError {
    fn from(fault: AnchorFault) -> Self {
        Self::Ground(fault.into())
    }
}

impl From<KeyringError> for ServerError {
    fn from(error: KeyringError) -> Self {
        Self::Ground(error.into())
    }
}

impl From<records::RecordError> for ServerError {
    fn from(error: records::RecordError) -> Self {
        Self::Ground(error.into())
    }
}

/// Reads what the configuration names, without touching state or TPM.
///
/// # Errors
/// [`ServerError`].
pub(crate) fn check(config: &Config) -> Result<(EkRoots, References), ServerError> {
    let ek_roots = EkRoots::read(&config.ek_roots)?;
    let references = References::new(config)?;
    references.present()?;
    Ok((ek_roots, references))
}

/// Serves until SIGTERM.
///
/// # Errors
/// [`ServerError`]; if [`ServerError::refusal`] has a name, a rule said no.
pub(crate) async fn serve(
    config: Config,
    clock: SharedClock,
    refused: &RefusedStarts,
) -> Result<(), ServerError> {
    let shutdown = Shutdown::on_signals().map_err(ServerError::Signals)?;
    let (app, anchor) = start(config, clock, shutdown.clone()).await?;
    refused.enter(&app.audit).await?;
    let server = bind(&app).await?;
    let address = server.local_addr();
    let done = Done::new("authority-started", "authority").detail(address.to_string());
    app.audit.done(&Actor::authority(), done).await?;
    if let Some(file) = &app.config.address_file {
        fsfile::write_atomic(file, format!("{address}\n").as_bytes(), 0o644)?;
    }
    tracing::info!(%address, "serving");
    let tidying = tokio::spawn(housekeeping::run(app.clone()));
    server.run(routes::router(&app), shutdown).await;
    tidying.abort();
    // It was told to end, or is cut off; either way its handle to the store is gone.
    let _ = tidying.await;
    stop(app, anchor).await
}

type AnchorTask = JoinHandle<Result<(), AnchorFault>>;

async fn start(
    config: Config,
    clock: SharedClock,
    shutdown: Shutdown,
) -> Result<(App, AnchorTask), ServerError> {
    let (ek_roots, references) = check(&config)?;
    let paths = Paths::new(&config.state_dir);
    ground::must_exist(&paths.marker())?;
    let tpm = TpmLink::new(config.tpm_address().map_err(GroundError::from)?);
    let tpm = tpm.map_err(GroundError::from)?;
    let root = ground::open_root(&paths, &tpm).await?;
    let opened = Opened::new(paths, &root, tpm, &clock)?;
    let incarnation = opened.incarnation().await?;
    let restored = opened.restored().await?;
    let anchored = Anchored::resume(opened.anchor_ground(&config, &clock, incarnation)).await?;
    let every = Duration::from_millis(config.limits.anchor_ms);
    let pace = Pace { every, rest: Duration::ZERO };
    let (anchor, task) = anchored.spawn(pace, shutdown.clone());
    let policy = opened.records.get(&records::policy()?).await?;
    let policy = policy.ok_or_else(|| GroundError::NotInitialised("the policy".to_owned()))?.value;
    let Opened { paths, keys, records, log, .. } = opened;
    let began = clock.unix_ms();
    let app = Shared {
        audit: Auditor::new(log, clock.clone()),
        flood: FloodGate::new(config.limits.anonymous_per_minute).into(),
        noise: FloodGate::new(config.limits.refusals_per_minute).into(),
        paths,
        config,
        clock,
        records,
        keys,
        anchor,
        ek_roots,
        references,
        incarnation,
        restored,
        policy: Arc::new(policy).into(),
        nonces: NonceBook::default().into(),
        enrolments: Default::default(),
        seen: Default::default(),
        began,
        spool: Default::default(),
        shutdown,
    };
    Ok((Arc::new(app), task))
}

async fn bind(app: &App) -> Result<Server, ServerError> {
    let identity = app.keys.server(&app.config.names, app.date())?;
    let anchors = [app.keys.ca.certificate().to_vec()];
    let tls = ServerTls::new(&identity.chain, &identity.key, &anchors, app.clock.clone())?;
    let bounds = app.config.limits;
    let limits = https::Limits {
        body: bounds.evidence_bytes.max(bounds.body_bytes).max(bounds.guest_evidence_bytes),
        connections: app.config.limits.connections,
        drain: DRAIN,
        ..https::Limits::default()
    };
    Ok(Server::bind(app.config.listen, tls, limits).await?)
}

/// The last entry, a last checkpoint and a last head: what was acknowledged is anchored.
async fn stop(app: App, anchor: AnchorTask) -> Result<(), ServerError> {
    let done = Done::new("authority-stopped", "authority");
    app.audit.done(&Actor::authority(), done).await?;
    app.audit.checkpoint(&app.keys.signer).await?;
    let store = Arc::clone(app.records.sealed().store());
    let file = app.config.address_file.clone();
    // The task ends when the last handle is gone; what a cut-off request still holds is of no use.
    drop(app);
    let ended = anchor.await.unwrap_or(Err(AnchorFault::Stopped));
    store.close().await.map_err(GroundError::from)?;
    if let Some(file) = file {
        fsfile::remove(&file)?;
    }
    Ok(ended?)
}
