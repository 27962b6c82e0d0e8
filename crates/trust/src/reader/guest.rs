//! Guests on the ports of their VMs: TLS 1.3 inside the port's frames, then the client's proof, then
//! XKMS. Over a network the same without frames.
//!
//! ```text
//! keeper ── port, lease ──► [port] frames ─► session ─► TLS, exporter ─► [routes] challenge, attest, xkms
//! keeper ── listener ─────► [network] TCP ─────────────►     "                "
//! ```
//!
//! **Invariants:** whose port it is, the keeper says, never the guest; over a network a client claims
//! its VM, and nothing is answered before the proof; one session at a time on a port; XKMS is answered only on a connection whose proof the keeper accepted, and no longer than it
//! said; a guest that says nothing costs two buffers.

mod network;
mod port;
mod routes;

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::Duration,
};

use model::{
    VmId,
    api::Bytes,
    guest::{GuestAnswer, GuestRequest},
    keys::{
        order::SecretBytes,
        rpc::{KeyAnswer, KeyRequest},
    },
    port::NotNow,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serve::{
    clock::{Clock as _, SystemClock},
    https::ServerTls,
    shutdown::Shutdown,
};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::{runtime::Handle, time::Instant};

use super::{front::Front, turn::Turn};

/// How long a passport that was asked for is shown before it is asked for again.
const FRESH: Duration = Duration::from_secs(10);

/// Why no TLS can be begun now.
#[derive(Debug, Error)]
#[error("no TLS with guests now: {}", .0.code())]
struct NoTls(NotNow);

/// TLS with a passport.
#[derive(Debug)]
struct Shown {
    tls: ServerTls,
    /// When it was asked for.
    since: Instant,
    /// Its end.
    until: OffsetDateTime,
}

impl Shown {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < FRESH && SystemClock.now() <= self.until
    }
}

/// What guests' connections are served with.
#[derive(Clone, Debug)]
pub(super) struct Guests {
    front: Arc<Front>,
    /// TLS with the newest passport, and how long it is shown.
    tls: Arc<tokio::sync::Mutex<Option<Shown>>>,
    /// URI of the service.
    service: String,
    /// The key that signs its messages (SubjectPublicKeyInfo, DER).
    message_key: Bytes,
    /// How long a connection may be idle.
    idle: Duration,
    /// How long a handshake, and a body, may take.
    patience: Duration,
    /// Longest XKMS request.
    body: usize,
    shutdown: Shutdown,
}

impl Guests {
    /// Serves in front of `front`, as `start` says.
    pub(super) fn new(
        front: Arc<Front>,
        start: &crate::start::Start,
        idle: Duration,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let leaf = start.message.chain.first();
        let leaf = leaf.ok_or_else(|| anyhow::anyhow!("the message key has no certificate"))?;
        Ok(Self {
            front,
            tls: Arc::default(),
            service: start.service.clone(),
            message_key: Bytes(pki::CertFacts::read(&leaf.0)?.spki),
            idle,
            patience: Duration::from_secs(start.front.request_s),
            body: start.front.body_bytes,
            shutdown,
        })
    }

    /// Takes ports from the keeper on a thread of its own, until the keeper closes the channel.
    pub(super) fn attend(self, ports: OwnedFd) -> std::io::Result<()> {
        let runtime = Handle::current();
        std::thread::Builder::new().name("ports".to_owned()).spawn(move || {
            while let Some((vm, port, lease)) = receive(&ports) {
                let guests = self.clone();
                runtime.spawn(async move {
                    if let Err(error) = port::serve(&guests, &vm, port).await {
                        tracing::debug!(vm.id = %vm, %error, "a guest's port is gone");
                    }
                    drop(lease);
                });
            }
        })?;
        Ok(())
    }

    /// TLS for a new connection. One at a time asks for the passport, and not each time: guests who
    /// begin again and again keep no channel to the keeper busy.
    async fn tls(&self) -> Result<ServerTls, NoTls> {
        let mut kept = self.tls.lock().await;
        if let Some(Shown { tls, .. }) = kept.as_ref().filter(|shown| shown.is_fresh()) {
            return Ok(tls.clone());
        }
        let (chain, key) = match self.ask(GuestRequest::Passport).await {
            GuestAnswer::Passport { chain, key } => (chain, key),
            GuestAnswer::NoPassport => return Err(NoTls(NotNow::WithoutPassport)),
            GuestAnswer::Challenge(_)
            | GuestAnswer::Admitted { .. }
            | GuestAnswer::Refused { .. }
            | GuestAnswer::Failed => return Err(NoTls(NotNow::Busy)),
        };
        let shown = shown(&chain, &key).map_err(|error| {
            tracing::error!(%error, "the passport does not serve TLS");
            NoTls(NotNow::Busy)
        })?;
        Ok(kept.insert(shown).tls.clone())
    }

    async fn ask(&self, request: GuestRequest) -> GuestAnswer {
        let front = Arc::clone(&self.front);
        let asked = move || front.link.ask(&KeyRequest::Guest(request), &Turn::aside());
        match tokio::task::spawn_blocking(asked).await {
            Ok(KeyAnswer::Guest(answer)) => answer,
            Ok(_) | Err(_) => GuestAnswer::Failed,
        }
    }
}

/// TLS with the passport that was just given.
fn shown(chain: &[Bytes], key: &SecretBytes) -> anyhow::Result<Shown> {
    let leaf = chain.first().ok_or_else(|| anyhow::anyhow!("a passport has a certificate"))?;
    let until = pki::CertFacts::read(&leaf.0)?.not_after;
    let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.0.clone()).collect();
    let tls = ServerTls::new(&chain, &key.0, &[], SystemClock::shared())?;
    Ok(Shown { tls, since: Instant::now(), until })
}

/// The next port: whose it is, itself, and what says that it is held.
fn receive(ports: &OwnedFd) -> Option<(VmId, UnixStream, OwnedFd)> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 64];
        let mut parts = [IoSliceMut::new(&mut name)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(ports.as_fd(), &mut parts, &mut ancillary, flags)
        });
        let length = received.ok().map(|received| received.bytes).filter(|length| *length > 0)?;
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let name = name.get(..length).and_then(|name| std::str::from_utf8(name).ok());
        let vm = name.and_then(|name| name.parse().ok());
        if let (Some(vm), Ok([port, lease])) = (vm, <[OwnedFd; 2]>::try_from(fds)) {
            return Some((vm, port.into(), lease));
        }
        tracing::error!("the keeper sent what is no port");
    }
}
