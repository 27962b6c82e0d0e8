//! Listeners: accept, authenticate, hand over to a connection task, drain at the end.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use rustix::net::sockopt;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{ClientCertificate, Limits, Peer, ServerTls, connection};
use crate::shutdown::Shutdown;

/// A server could not begin to listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address or path cannot be bound.
    #[error("cannot listen on {at}")]
    Bind {
        /// Address or path.
        at: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another process answers on the socket.
    #[error("another process already listens on {}", .0.display())]
    Taken(PathBuf),
}

impl ListenError {
    fn bind(at: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let at = at.to_string();
        move |source| Self::Bind { at, source }
    }
}

/// A bound HTTPS server, or a plain HTTP one ([`Server::adopt`]).
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<ServerTls>,
    limits: Limits,
}

impl Server {
    /// Takes over a listener that is bound already. Without `tls` it speaks plain HTTP: only for
    /// services whose messages are protected by themselves.
    ///
    /// # Errors
    /// [`ListenError`] if the runtime cannot take the listener. Needs a tokio runtime.
    pub fn adopt(
        listener: std::net::TcpListener,
        tls: Option<ServerTls>,
        limits: Limits,
    ) -> Result<Self, ListenError> {
        let address = listener.local_addr().map_err(ListenError::bind("an inherited socket"))?;
        listener.set_nonblocking(true).map_err(ListenError::bind(address))?;
        let listener = TcpListener::from_std(listener).map_err(ListenError::bind(address))?;
        Ok(Self { listener, address, tls, limits })
    }

    /// Binds `address`; port 0 takes a free one, see [`Server::local_addr`].
    ///
    /// # Errors
    /// [`ListenError`] if it cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        tls: ServerTls,
        limits: Limits,
    ) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address).await.map_err(ListenError::bind(address))?;
        let address = listener.local_addr().map_err(ListenError::bind(address))?;
        Ok(Self { listener, address, tls: Some(tls), limits })
    }

    /// The address that was bound.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then lets running requests end within the drain limit.
    pub async fn run(self, router: Router, shutdown: Shutdown) {
        let router = connection::prepare(router);
        let acceptor = self.tls.map(|tls| TlsAcceptor::from(tls.config));
        let mut open = Connections::new(&self.limits);
        // Small answers must not wait for the acknowledgement of the one before. Connections have it
        // from their listener.
        let _ = sockopt::set_tcp_nodelay(&self.listener, true);
        while let Some((permit, stream, address)) =
            open.next(&shutdown, || self.listener.accept()).await
        {
            let (router, limits, shutdown) =
                (router.clone(), self.limits.clone(), shutdown.clone());
            let acceptor = acceptor.clone();
            open.tasks.spawn(async move {
                let _permit = permit;
                if let Some(acceptor) = acceptor {
                    // On its own, so that connections without TLS are not as large.
                    Box::pin(serve_tls((stream, address), acceptor, router, limits, shutdown))
                        .await;
                } else {
                    let peer = Peer::anonymous(Some(address));
                    connection::serve(stream, peer, router, limits, shutdown).await;
                }
            });
        }
        drop(self.listener);
        open.drain(self.limits.drain).await;
    }
}

async fn serve_tls(
    (stream, address): (TcpStream, SocketAddr),
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    shutdown: Shutdown,
) {
    let address = Some(address);
    let stream = match tokio::time::timeout(limits.handshake, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(error = crate::exit::chain(&error), "TLS handshake failed");
            return;
        }
        Err(_elapsed) => return,
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = match leaf.map(|der| ClientCertificate::parse(der)) {
        None => Peer::anonymous(address),
        Some(Some(certificate)) => Peer::certified(certificate, address),
        // The verifier parsed it before; never serve it as if there were none.
        Some(None) => return,
    };
    connection::serve(stream, peer, router, limits, shutdown).await;
}

/// A bound server on a unix socket, for processes of the same user and of root.
#[derive(Debug)]
pub struct UnixServer {
    listener: UnixListener,
    path: PathBuf,
    limits: Limits,
}

impl UnixServer {
    /// Binds `path` with mode 0600. A socket that nobody answers on any more is replaced.
    ///
    /// # Errors
    /// [`ListenError`] if it cannot be bound or another process answers on it.
    pub async fn bind(path: &Path, limits: Limits) -> Result<Self, ListenError> {
        match UnixStream::connect(path).await {
            Ok(_) => return Err(ListenError::Taken(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(ListenError::bind(path.display()))?;
            }
            // Mostly "not found"; whatever else it is, the bind below says it.
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(ListenError::bind(path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(ListenError::bind(path.display()))?;
        Ok(Self { listener, path: path.to_owned(), limits })
    }

    /// Serves until `shutdown`, then lets running requests end within the drain limit and removes
    /// the socket.
    pub async fn run(self, router: Router, shutdown: Shutdown) {
        let router = connection::prepare(router);
        let mut open = Connections::new(&self.limits);
        while let Some((permit, stream, _)) = open.next(&shutdown, || self.listener.accept()).await
        {
            let Some(peer) = local_peer(&stream) else { continue };
            let (router, limits, shutdown) =
                (router.clone(), self.limits.clone(), shutdown.clone());
            open.tasks.spawn(async move {
                let _permit = permit;
                connection::serve(stream, peer, router, limits, shutdown).await;
            });
        }
        drop(self.listener);
        // Gone already if someone tidied up before us.
        let _ = std::fs::remove_file(&self.path);
        open.drain(self.limits.drain).await;
    }
}

fn local_peer(stream: &UnixStream) -> Option<Peer> {
    let caller = stream.peer_cred().ok()?;
    let own = rustix::process::geteuid().as_raw();
    if caller.uid() != own && caller.uid() != 0 {
        tracing::warn!(uid = caller.uid(), "another user's connection was closed");
        return None;
    }
    Some(Peer::local(caller.uid(), caller.pid()))
}

/// The connections of one listener.
struct Connections {
    permits: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

impl Connections {
    fn new(limits: &Limits) -> Self {
        Self { permits: Arc::new(Semaphore::new(limits.connections)), tasks: JoinSet::new() }
    }

    /// The next connection, once there is room for it; `None` when the process is to end.
    async fn next<S, A, F>(
        &mut self,
        shutdown: &Shutdown,
        mut accept: impl FnMut() -> F,
    ) -> Option<(OwnedSemaphorePermit, S, A)>
    where
        F: Future<Output = io::Result<(S, A)>>,
    {
        loop {
            // Those that ended; nobody has to be woken for that.
            while self.tasks.try_join_next().is_some() {}
            let permits = self.permits.clone();
            let accepted = async {
                let permit = permits.acquire_owned().await.ok()?;
                Some((permit, accept().await))
            };
            tokio::select! {
                () = shutdown.requested() => return None,
                accepted = accepted => match accepted? {
                    (permit, Ok((stream, address))) => return Some((permit, stream, address)),
                    (_, Err(error)) => {
                        // Mostly out of descriptors; waiting lets some come back.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    async fn drain(mut self, limit: Duration) {
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all_ended).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "requests were cut off at the end");
            self.tasks.shutdown().await;
        }
    }
}
