//! The keeper's process: it binds, opens the library, and has a reader as long as it lives.
//!
//! ```text
//! bind ─► keeper ─► admin socket ─► reader ─┬─ it ends: wait a little, start another
//!                                           └─ SIGTERM: ask it to end, let it drain, close
//! ```
//!
//! **Invariants:** the reader gets the bound listener, its channels, its own keys and the ports of
//! guests by descriptor, and dies with this process; connections wait in the kernel's queue while
//! there is no reader.

mod channel;
mod guests;

use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::{FutureExt as _, OptionFuture};
use model::{
    api::{Bytes, service::Service as Certified},
    keys::{
        order::SecretBytes,
        rpc::{KeyAnswer, KeyRequest},
    },
};
use passport::{Agent, Passport};
use serve::{
    client::Client,
    clock::SystemClock,
    config::SecretSource,
    exit::{Exit, chain},
    fsfile, pem,
    process::{ProcessId, Signal, Spawn},
    random, sandbox,
    shutdown::Shutdown,
};
use trust::keeper::{AgentKeys, Centre, CentreLink, Keeper, MessageIdentity, guest::Guests};
use trust::peer::Peers;

use self::{channel::Answers, guests::ServerAgent};
use crate::{
    config::{Config, Tls},
    reader::DRAIN,
    start::{Identity, Start},
};

/// How long to wait before a reader that died is started again; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A reader that lived so long is not in a loop of deaths.
const HEALTHY: Duration = Duration::from_secs(10);

/// What answers the reader: the keeper, and beside it what guests prove.
struct Service {
    keeper: Arc<Keeper>,
    guests: Option<Guests>,
}

impl Answers for Service {
    fn answer(&self, request: KeyRequest) -> KeyAnswer {
        match (request, &self.guests) {
            (KeyRequest::Guest(request), Some(guests)) => guests.answer(&self.keeper, request),
            (request, _) => self.keeper.serve(request),
        }
    }
}

/// Serves until SIGTERM.
pub(crate) fn run(config: &Config) -> anyhow::Result<Exit> {
    // The reader dies with the thread that starts it: this one, which lives as long as the process.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(config))
}

/// Makes the state the newest there is, as an operator decided.
pub(crate) fn restore(config: &Config, operator: &str) -> anyhow::Result<Exit> {
    let anchoring = config.anchor.anchoring(config.bound()?, &Shutdown::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let both = (&config.keeper, &anchoring);
    let clock = SystemClock::shared();
    let restored = runtime.block_on(Keeper::restore(both, &config.state_dir, clock, operator))?;
    serve::shell::line(&restored);
    Ok(Exit::Done)
}

async fn serve(config: &Config) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let tls = config.tls.as_ref().map(tls_identity).transpose()?;
    let listener = TcpListener::bind(config.listen)
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let service = config.service.clone().unwrap_or_else(|| format!("{scheme}://{address}/xkms"));
    fsfile::create_private_dir(&config.state_dir)?;
    confine(config, &program)?;
    let peers = config.peer.as_ref().map(Peers::bind).transpose().context("no peer is heard")?;
    let network = config.guest.as_ref().map(guests::bind).transpose();
    let network = network.context("no guest is heard over a network")?.flatten();
    let passport = passport(config, &shutdown);
    let peer_url = peers.as_ref().map(|peers| format!("https://{}", peers.address()));
    let keeper = Arc::new(keeper(config, passport.clone(), peer_url, &shutdown).await?);
    if let Some(socket) = config.agent_socket.as_deref().filter(|_| config.uses_host_tpm()) {
        keeper.lives_on(Arc::new(AgentKeys::at(socket)?));
    }
    keeper.start(&shutdown)?;
    passport.iter().for_each(|passport| noted(passport, &keeper));
    if let Some((peers, passport)) = peers.zip(passport.clone()) {
        tokio::spawn(peers.run(Arc::clone(&keeper), passport, shutdown.clone()));
    }
    let MessageIdentity { chain, key } = keeper.message_identity();
    let start = Start {
        service,
        front: config.front,
        message: Identity {
            chain: chain.into_iter().map(Bytes).collect(),
            key: SecretBytes::new(key),
        },
        tls,
        nonce_key: SecretBytes::new(model::Secret::new(random::secret::<32>()?.expose().to_vec())),
        guest_idle_s: config.guest.as_ref().map(|guest| guest.idle_s),
        guest_connections: config.guest.as_ref().map_or(0, |guest| guest.connections),
    };
    let socket = config.agent_socket.as_deref().filter(|_| config.guest.is_some());
    let agent = socket.map(|socket| {
        let passport = kept(config, socket, Certified::TrustGuests, &shutdown);
        noted(&passport, &keeper);
        ServerAgent::new(socket, passport)
    });
    let ports = agent.as_ref().map(ServerAgent::client);
    let guests = config.guest.clone().zip(agent);
    let guests = guests
        .map(|(settings, agent)| Guests::new(settings, Box::new(agent), SystemClock::shared()));
    let service = Arc::new(Service { keeper: Arc::clone(&keeper), guests });
    if let Some(file) = &config.address_file {
        fsfile::write_atomic(file, address.to_string().as_bytes(), 0o600)?;
    }
    let start = serde_json::to_vec(&start)?;
    let reader = Reader { program, listener, start, ports, network };
    attend(&reader, &service, config, &shutdown).await?;
    let anchored = keeper.end_anchor().await;
    keeper.close()?;
    anchored?;
    Ok(Exit::Done)
}

/// The passport that this service shows to other services, if it speaks to any. Its key never leaves
/// this process; guests see another one.
fn passport(config: &Config, shutdown: &Shutdown) -> Option<Passport> {
    let speaks = config.keeper.centre.is_some() || config.peer.is_some();
    let socket = config.agent_socket.as_deref().filter(|_| speaks)?;
    Some(kept(config, socket, Certified::Trust, shutdown))
}

/// A passport that is kept in force as long as the process lives.
fn kept(config: &Config, socket: &Path, service: Certified, shutdown: &Shutdown) -> Passport {
    let (agent, clock) = (Arc::new(Agent::at(socket)), SystemClock::shared());
    let passport = Passport::pinned(agent, service, clock, &config.state_dir);
    let (kept, until) = (passport.clone(), shutdown.clone());
    tokio::spawn(async move { kept.run(until).await });
    passport
}

/// Why a passport will not do for this very process is in its audit log.
fn noted(passport: &Passport, keeper: &Arc<Keeper>) {
    let (passport, keeper) = (passport.clone(), Arc::clone(keeper));
    tokio::spawn(async move {
        let note = move |(name, hint): (String, &str)| {
            if let Err(fault) = keeper.no_passport((&name, hint)) {
                tracing::error!(detail = chain(&fault), "a refusal is not in the audit log");
            }
        };
        passport.noted(note).await;
    });
}

/// Opens the keeper, which at its first start may have to wait for the centre.
async fn keeper(
    config: &Config,
    passport: Option<Passport>,
    peer_url: Option<String>,
    shutdown: &Shutdown,
) -> anyhow::Result<Keeper> {
    let (settings, dir) = (config.keeper.clone(), config.state_dir.clone());
    let link = settings.centre.as_ref().zip(passport);
    let link = link.map(|(centre, passport)| CentreLink::new(&centre.url, peer_url, passport));
    let link = link.transpose()?;
    let anchoring = config.anchor.anchoring(config.bound()?, shutdown);
    let open = move || {
        let centre = link.map(|link| Arc::new(link) as Arc<dyn Centre>);
        Keeper::open_with(settings, &dir, SystemClock::shared(), (centre, anchoring))
    };
    Ok(tokio::task::spawn_blocking(open).await??)
}

/// The keeper touches its state and what the configuration names. Its reader inherits this.
fn confine(config: &Config, program: &Path) -> anyhow::Result<()> {
    let mut write = vec![config.state_dir.as_path()];
    write.extend(config.address_file.as_deref().and_then(|file| file.parent()));
    let peer_file = config.peer.as_ref().and_then(|peer| peer.address_file.as_deref());
    let guest_file = config.guest.as_ref().and_then(|guest| guest.address_file.as_deref());
    write.extend([peer_file, guest_file].into_iter().flatten().filter_map(Path::parent));
    let bound = config.bound()?;
    write.extend(bound.device());
    write.extend(config.anchor.witness.as_deref().and_then(Path::parent));
    // What the reader is started from: itself and its libraries.
    let mut read = vec![program];
    read.extend(["/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache", "/proc"].map(Path::new));
    let keeper = &config.keeper;
    if let Some(token) = &keeper.token {
        read.extend(token.files());
        write.extend(token.folders.iter().map(PathBuf::as_path));
    }
    let named = [&keeper.anchors, &keeper.intermediates, &keeper.crls];
    // Their folders, because a list is replaced by renaming.
    read.extend(named.into_iter().flatten().filter_map(|file| file.parent()));
    let keys = [&keeper.root_key, &keeper.escrow_key];
    read.extend(keys.into_iter().flatten().filter_map(|source| match source {
        SecretSource::Path(path) => Some(path.as_path()),
        SecretSource::Fd(_) => None,
    }));
    let files = sandbox::restrict_files(&read, &write)?;
    tracing::info!(files = files.as_str(), "confined");
    Ok(())
}

fn tls_identity(tls: &Tls) -> anyhow::Result<Identity> {
    let chain = pem::read_certificates(&tls.certificates)?;
    let key = pem::read_key(&tls.key)?;
    Ok(Identity { chain: chain.into_iter().map(Bytes).collect(), key: SecretBytes::new(key) })
}

/// Everything a reader is started from.
struct Reader {
    program: PathBuf,
    listener: TcpListener,
    start: Vec<u8>,
    /// Who knows the ports of guests.
    ports: Option<Client>,
    /// Where guests are heard over a network.
    network: Option<TcpListener>,
}

impl Reader {
    fn spawn(&self, channels: Vec<OwnedFd>, ports: Option<OwnedFd>) -> anyhow::Result<ProcessId> {
        let listener: OwnedFd = self.listener.try_clone()?.into();
        let mut spawn = Spawn::new(&self.program)
            .arg("reader")
            .secret_arg("--start-fd", &self.start)?
            .fd_arg("--listen-fd", listener)
            .same_session()
            .share_stderr()
            .die_with_parent(Signal::KILL);
        for channel in channels {
            spawn = spawn.fd_arg("--channel-fd", channel);
        }
        if let Some(ports) = ports {
            spawn = spawn.fd_arg("--ports-fd", ports);
        }
        if let Some(network) = &self.network {
            spawn = spawn.fd_arg("--guests-fd", network.try_clone()?.into());
        }
        Ok(spawn.spawn()?)
    }
}

/// Has a reader until the process is to end.
async fn attend(
    reader: &Reader,
    service: &Arc<Service>,
    config: &Config,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let mut wait = FIRST_WAIT;
    loop {
        let count = config.front.channels.saturating_add(config.front.order_channels);
        let (ours, theirs) = reader.ports.as_ref().map(|_| guests::channel()).transpose()?.unzip();
        let process = reader.spawn(channel::open(service, count)?, theirs)?;
        let ports = reader.ports.clone().zip(ours);
        let ports = ports.map(|(agent, ours)| guests::hand_over(agent, ours));
        tracing::info!(pid = process.pid, "reader started");
        let lived = tokio::time::Instant::now();
        tokio::select! {
            () = shutdown.requested() => {
                process.stop(DRAIN.saturating_mul(2)).await?;
                return Ok(());
            }
            ended = ended(&process) => {
                tracing::error!(?ended, "the reader died");
            }
            () = OptionFuture::from(ports).map(drop), if reader.ports.is_some() => {}
        }
        wait = if lived.elapsed() > HEALTHY { FIRST_WAIT } else { wait };
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            () = tokio::time::sleep(wait) => wait = wait.saturating_mul(2).min(LONGEST_WAIT),
        }
    }
}

/// How `process` ended, once it has.
async fn ended(process: &ProcessId) -> serve::process::Exit {
    loop {
        match process.wait_exit(Duration::from_secs(3600)).await {
            Ok(Some(exit)) => return exit,
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "the reader cannot be watched");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
