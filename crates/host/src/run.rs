//! Building the agent's parts and running them until it is asked to end.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use serve::{
    client::{Client, ClientLimits},
    clock::SystemClock,
    fsfile,
    https::{Limits, UnixServer},
    pem, sandbox,
    shutdown::Shutdown,
};

use crate::{
    anchors::clock::follow as anchors_clock,
    aside,
    config::Config,
    grant::Ledger,
    guard::Guard,
    host::Host,
    hosttpm::HostTpm,
    identity::{self, Link},
    lease, local, orders,
    registry::Registry,
    spool::Spool,
};

/// Gives up writing outside of the agent's own directories. Children inherit it, so what they
/// need is included; reading stays open, since images may be anywhere.
///
/// # Errors
/// If the directories cannot be made or the kernel refuses the rules.
pub(crate) fn restrict(config: &Config) -> anyhow::Result<()> {
    let socket = config.agent_socket();
    let socket_dir = socket.parent().unwrap_or(Path::new("/"));
    for dir in [&config.state_dir, &config.run_dir, &config.state_dir.join("vms")] {
        fsfile::create_private_dir(dir)?;
    }
    let mut write = vec![config.state_dir.as_path(), config.run_dir.as_path(), socket_dir];
    let token_dir = config.token_file.as_deref().and_then(Path::parent);
    write.extend(token_dir.filter(|dir| dir.exists()));
    let devices = ["/dev/kvm", "/dev/tpmrm0", "/dev/tpm0", "/dev/shm"].map(Path::new);
    write.extend(devices.into_iter().filter(|path| path.exists()));
    let restriction = sandbox::restrict_files(&[Path::new("/")], &write)?;
    tracing::info!(files = restriction.as_str(), "sandboxed");
    Ok(())
}

/// Two agents with one state directory would start things twice.
fn alone(config: &Config) -> anyhow::Result<std::fs::File> {
    let path = config.state_dir.join("agent.lock");
    let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&file, how).context("another agent uses this state directory")?;
    Ok(file)
}

/// Runs the agent until SIGTERM. VMs go on.
///
/// # Errors
/// If a part cannot be built.
pub(crate) async fn run(config: Config) -> anyhow::Result<serve::exit::Exit> {
    let shutdown = Shutdown::on_signals()?;
    let clock = SystemClock::shared();
    let config = Arc::new(config);
    let anchors = pem::read_certificates(&config.authority.ca_file)
        .context("cannot read the authority's CA")?;
    let limits = ClientLimits::default();
    let public = Client::https(&config.authority.url, &anchors, None, clock.clone(), limits)?;
    let _alone = alone(&config)?;
    let tpm = HostTpm::start(&config.tpm).map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
    let server = UnixServer::bind(&config.agent_socket(), Limits::default()).await?;
    aside::expire(&config.state_dir, clock.unix_ms());
    let link = Link::new(clock.clone());
    let guard =
        Guard::open(tpm.clone(), clock.clone(), config.name.clone(), &config.state_dir).await;
    let parts = (guard, Ledger::open(&config.state_dir)?, Spool::open(&config.state_dir)?);
    let host = Arc::new(Host::new(Arc::clone(&config), clock, tpm.clone(), link.clone(), parts));
    let registry = Registry::new(Arc::clone(&host));
    registry.adopt_all();

    let mut parts = tokio::task::JoinSet::new();
    parts.spawn(identity::keep(config, tpm, link.clone(), public, anchors, shutdown.clone()));
    parts.spawn(orders::take(Arc::clone(&host), Arc::clone(&registry), shutdown.clone()));
    parts.spawn(lease::follow(Arc::clone(&host), Arc::clone(&registry), shutdown.clone()));
    parts.spawn(anchors_clock(Arc::clone(&host), Arc::clone(&registry), shutdown.clone()));
    let (spooling, end) = (Arc::clone(&host), shutdown.clone());
    parts.spawn(async move { spooling.spool.deliver(&link, &end).await });
    let probing = Arc::clone(&host);
    parts.spawn(async move {
        if let Err(trouble) = probing.ability().await {
            tracing::warn!(%trouble, "no virtual machine can run here");
        }
    });
    let router = local::router(local::Local { host, registry });
    server.run(router, shutdown).await;
    parts.abort_all();
    tracing::info!("ended; virtual machines go on");
    Ok(serve::exit::Exit::Done)
}
