//! The running centre: bind, confine, open, get a passport, serve, drain, close.
//!
//! **Invariant:** it works on orders and answers administrators without a passport; trust services
//! are served only under one.

use std::{net::TcpListener, path::Path, sync::Arc};

use anyhow::Context as _;
use centre::{
    centre::Centre,
    routes::{self, App},
};
use model::api::service::Service;
use passport::{Agent, Passport};
use serve::{
    clock::SystemClock,
    exit::{Exit, chain},
    fsfile,
    https::{Limits, Server},
    sandbox, shell,
    shutdown::Shutdown,
};
use tokio::runtime::Handle;

use crate::config::Config;

/// Serves until SIGTERM.
pub(crate) fn run(config: &Config) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
}

/// Makes the state the newest there is, as an operator decided.
pub(crate) fn restore(config: &Config, operator: &str) -> anyhow::Result<Exit> {
    let anchoring = config.anchor.anchoring(config.bound()?, &Shutdown::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (both, clock) = ((&config.centre, &anchoring), SystemClock::shared());
    let restored = runtime.block_on(Centre::restore(both, &config.state_dir, clock, operator))?;
    shell::line(&restored);
    Ok(Exit::Done)
}

async fn serve(config: &Config) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let listener = TcpListener::bind(config.listen)
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    fsfile::create_private_dir(&config.state_dir)?;
    confine(config)?;
    let (clock, reach) = (SystemClock::shared(), (Handle::current(), shutdown.clone()));
    let (settings, dir) = (config.centre.clone(), config.state_dir.clone());
    let anchoring = config.anchor.anchoring(config.bound()?, &shutdown);
    let opened = tokio::task::spawn_blocking(move || {
        Centre::open(settings, &dir, SystemClock::shared(), reach, anchoring)
    });
    let centre = opened.await??;
    centre.start().context("the centre's threads cannot be started")?;
    let certifier = Arc::new(Agent::at(&config.agent_socket));
    let passport = Passport::pinned(certifier, Service::Centre, clock, &config.state_dir);
    let renewing = tokio::spawn({
        let (passport, shutdown) = (passport.clone(), shutdown.clone());
        async move { passport.run(shutdown).await }
    });
    tokio::spawn({
        let (passport, centre) = (passport.clone(), Arc::clone(&centre));
        let note = move |(name, hint): (String, &str)| {
            if let Err(fault) = centre.no_passport((&name, hint)) {
                tracing::error!(error = chain(&fault), "a refusal is not in the audit log");
            }
        };
        async move { passport.noted(note).await }
    });
    if let Some(file) = &config.address_file {
        fsfile::write_atomic(file, format!("{address}\n").as_bytes(), 0o644)?;
    }
    tokio::select! {
        () = shutdown.requested() => {}
        current = passport.ready() => {
            let tls = passport.server_tls(&current)?;
            let limits = Limits { connections: config.connections, ..Limits::default() };
            let server = Server::adopt(listener, Some(tls), limits)?;
            tracing::info!(%address, host.id = %current.host, "serving");
            let app = App { centre: Arc::clone(&centre), passport: passport.clone() };
            server.run(routes::router(app), shutdown.clone()).await;
        }
    }
    renewing.abort();
    let anchored = centre.end_anchor().await;
    let closed = tokio::task::spawn_blocking(move || centre.close());
    closed.await??;
    anchored?;
    if let Some(file) = &config.address_file {
        fsfile::remove(file)?;
    }
    Ok(Exit::Done)
}

/// The centre touches its state and what the configuration names.
fn confine(config: &Config) -> anyhow::Result<()> {
    let mut write = vec![config.state_dir.as_path()];
    write.extend(config.address_file.as_deref().and_then(Path::parent));
    write.extend(config.agent_socket.parent());
    let bound = config.bound()?;
    write.extend(bound.device());
    write.extend(config.anchor.witness.as_deref().and_then(Path::parent));
    let tokens = config.centre.folders();
    write.extend(tokens.iter().map(std::path::PathBuf::as_path));
    let named = config.centre.files();
    // Their folders, because a list is replaced by renaming. Names of PKIs are looked up there.
    let mut read: Vec<&Path> = named.iter().filter_map(|file| file.parent()).collect();
    read.extend(["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/proc"].map(Path::new));
    read.extend(["/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache"].map(Path::new));
    let files = sandbox::restrict_files(&read, &write)?;
    tracing::info!(files = files.as_str(), "confined");
    Ok(())
}
