//! The keeper's side of guests: facts from the agent of this server, and the ports of its VMs, which
//! are opened here and handed to the reader.
//!
//! ```text
//! agent ── which VMs run? ──► connect to a port that nobody holds ── descriptor ──► reader
//!                                         ▲                                          │ lease
//!                                         └───────────── it let go ◄─────────────────┘
//! ```

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use model::{
    VmId,
    agent::{AgentPhase, AgentStatus},
    guest::Measured,
};
use passport::Passport;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serve::{
    client::{Client, ClientLimits},
    exit::chain,
    fsfile,
};
use tokio::{net::UnixStream, runtime::Handle};
use trust::keeper::guest::{Agent, AgentFault, GuestSettings, PassportKeys};

/// How often the agent is asked which VMs run.
const LOOK: Duration = Duration::from_secs(1);

/// The agent of this server, asked from threads that may block.
#[derive(Debug)]
pub(super) struct ServerAgent {
    client: Client,
    passport: Passport,
    runtime: Handle,
}

impl ServerAgent {
    /// Asked on its socket; called inside the runtime that carries the calls.
    pub(super) fn new(socket: &Path, passport: Passport) -> Self {
        let limits = ClientLimits { attempts: 2, ..ClientLimits::default() };
        Self { client: Client::unix(socket, limits), passport, runtime: Handle::current() }
    }

    /// For the ports.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }
}

impl Agent for ServerAgent {
    fn measured(&self, vm: &VmId) -> Result<Measured, AgentFault> {
        let path = format!("/v1/vms/{vm}/measured");
        let asked = self.runtime.block_on(self.client.get(&path));
        asked.map_err(|error| match error.problem() {
            Some(problem) if problem.status == 404 => AgentFault::Unknown,
            _ => AgentFault::Away(chain(&error).to_string()),
        })
    }

    fn passport(&self) -> Result<Option<PassportKeys>, AgentFault> {
        let Some(current) = self.passport.current() else { return Ok(None) };
        let key =
            current.key.to_pkcs8().map_err(|error| AgentFault::Away(chain(&error).to_string()))?;
        Ok(Some(PassportKeys { chain: current.chain.clone(), key }))
    }
}

/// The listener for guests in a network, if there is to be one.
///
/// # Errors
/// What the kernel says.
pub(super) fn bind(settings: &GuestSettings) -> io::Result<Option<TcpListener>> {
    let Some(listen) = settings.listen else { return Ok(None) };
    let listener = TcpListener::bind(listen)?;
    if let Some(file) = &settings.address_file {
        let address = listener.local_addr()?.to_string();
        fsfile::write_atomic(file, address.as_bytes(), 0o600).map_err(io::Error::other)?;
    }
    Ok(Some(listener))
}

/// The two ends of the channel on which the reader gets ports: ours, its.
///
/// # Errors
/// What the kernel says.
pub(super) fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Hands ports to the reader as long as it is polled.
pub(super) async fn hand_over(client: Client, reader: OwnedFd) {
    // A port's lease: the reader holds the other end as long as it serves the port.
    let mut held: BTreeMap<VmId, UnixStream> = BTreeMap::new();
    let mut away = false;
    loop {
        held.retain(|_, lease| is_held(lease));
        match client.get::<AgentStatus>("/v1/status").await {
            Ok(status) => {
                away = false;
                let runs = |phase| matches!(phase, AgentPhase::Running | AgentPhase::Paused);
                for vm in status.vms.into_iter().filter(|vm| runs(vm.phase)).map(|vm| vm.vm) {
                    if held.contains_key(&vm) {
                        continue;
                    }
                    match hand(&client, &vm, reader.as_fd()).await {
                        Ok(lease) => {
                            tracing::info!(vm.id = %vm, "the reader has the guest's port");
                            held.insert(vm, lease);
                        }
                        Err(error) => tracing::debug!(vm.id = %vm, %error, "no port"),
                    }
                }
            }
            Err(error) if !away => {
                away = true;
                let detail = chain(&error);
                tracing::warn!(detail, "the agent cannot be asked; guests with a port go on");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is_held(lease: &UnixStream) -> bool {
    let nothing = lease.try_read(&mut [0; 1]);
    nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

async fn hand(client: &Client, vm: &VmId, reader: BorrowedFd<'_>) -> io::Result<UnixStream> {
    let path = format!("/v1/vms/{vm}/measured");
    let measured: Measured = client.get(&path).await.map_err(io::Error::other)?;
    let port = UnixStream::connect(&measured.port).await?.into_std()?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let fds = [port.as_fd(), theirs.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let name = [IoSlice::new(vm.as_str().as_bytes())];
    // More ports than the reader takes at once: it gets this one in the next round.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(reader, &name, &mut ancillary, flags)?;
    ours.set_nonblocking(true)?;
    UnixStream::from_std(ours)
}
