//! The half that meets strangers: HTTP, XML, and the signatures of messages.
//!
//! ```text
//! descriptors -> keys from their sealed file -> confine -> serve -> SIGTERM -> drain -> end
//! ```
//!
//! **Invariants:** it opens no file once it serves; it holds the key that signs messages and no
//! other; what it cannot decide it asks the keeper; it dies with the keeper.

mod caller;
mod decimal;
mod expected;
mod front;
mod guest;
mod json;
mod link;
mod load;
mod notes;
mod openapi;
mod routes;
mod service;
mod translate;
mod turn;
mod wsdl;

use std::{net::TcpListener, num::NonZero, os::fd::OwnedFd, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use serve::{
    clock::SystemClock,
    exit::Exit,
    https::{Limits, Server, ServerTls},
    process, sandbox,
    shutdown::Shutdown,
};

use self::{front::Front, guest::Guests, link::Link, routes::App, turn::Turns};
use crate::{
    args::ReaderArgs,
    start::{self, Identity, Start},
};

/// How often what was only counted is noted.
const TIDY: Duration = Duration::from_secs(1);
/// How long running requests may go on after the wish to end.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// Threads that may wait for the keeper beyond those that have a channel.
const SPARE_THREADS: usize = 8;
/// Threads of the runtime that never wait for the keeper: what else there is goes on.
const FREE_THREADS: usize = 2;

/// Serves until SIGTERM.
pub(crate) fn run(args: &ReaderArgs) -> anyhow::Result<Exit> {
    let secret = process::read_secret_fd(args.start_fd, start::LIMIT)?;
    let start: Start = serde_json::from_slice(secret.expose())?;
    drop(secret);
    let listener = TcpListener::from(process::take_inherited_fd(args.listen_fd)?);
    let channels = args.channel_fds.iter().map(|fd| process::take_inherited_fd(*fd));
    let channels: Vec<_> = channels.collect::<Result<_, _>>()?;
    let ports = args.ports_fd.map(process::take_inherited_fd).transpose()?;
    let network = args.guests_fd.map(process::take_inherited_fd).transpose()?;
    let guests = (ports, network.map(TcpListener::from));
    let files = sandbox::restrict_files(&[], &[])?;
    tracing::info!(files = files.as_str(), "confined");
    let threads = channels.len() + SPARE_THREADS;
    // One of two works while the other waits for the keeper.
    let turns = thread::available_parallelism().map_or(1, NonZero::get).saturating_mul(2);
    let front = Arc::new(Front::new(&start, Link::new(channels, start.front.order_channels)?)?);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(turns.saturating_add(FREE_THREADS))
        .max_blocking_threads(threads)
        .build()?
        .block_on(serve(&start, listener, front, guests, turns))
}

async fn serve(
    start: &Start,
    listener: TcpListener,
    front: Arc<Front>,
    (ports, network): (Option<OwnedFd>, Option<TcpListener>),
    turns: usize,
) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let tls = start.tls.as_ref().map(server_tls).transpose()?;
    let request = Duration::from_secs(start.front.request_s);
    let limits = Limits {
        body: start.front.body_bytes,
        head: request,
        handshake: request,
        connections: start.front.connections,
        drain: DRAIN,
    };
    let server = Server::adopt(listener, tls, limits)?;
    let noting = Arc::clone(&front);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TIDY).await;
            let noting = Arc::clone(&noting);
            // It fails only when the runtime ends.
            let _ = tokio::task::spawn_blocking(move || noting.tidy()).await;
        }
    });
    let app = App::new(Arc::clone(&front), start, Turns::new(turns));
    if let Some((ports, idle)) = ports.zip(start.guest_idle_s) {
        let idle = Duration::from_secs(idle);
        let guests = Guests::new(Arc::clone(&front), start, idle, shutdown.clone())?;
        if let Some(network) = network {
            guests.clone().hear(network, start.guest_connections)?;
        }
        guests.attend(ports)?;
    }
    tracing::info!(service = start.service, "serving");
    // On a thread of the runtime, so that a new connection is not handed over to one.
    tokio::spawn(server.run(routes::router(app), shutdown)).await?;
    tokio::task::spawn_blocking(move || front.tidy()).await?;
    Ok(Exit::Done)
}

fn server_tls(identity: &Identity) -> anyhow::Result<ServerTls> {
    let chain: Vec<Vec<u8>> = identity.chain.iter().map(|der| der.0.clone()).collect();
    Ok(ServerTls::new(&chain, &identity.key.0, &[], SystemClock::shared())?)
}
