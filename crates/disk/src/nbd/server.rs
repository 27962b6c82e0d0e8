//! The server: accepts, one thread per connection, and stops in good order.
//!
//! Stopping shuts the connections' receiving side: requests that were received are finished and
//! answered, then the threads end; a client that does not take its answers is cut off after a
//! grace. The volume is closed last.

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    Counters, Export, PeerPolicy, Rejection, UnixSocket,
    connection::{End, serve},
    counters::add,
    transmission::Service,
};
use crate::{Volume, accept::Acceptor, spread::Spread};

/// Steps of a tenth of a second that a client has to take its answers when the server stops.
const GRACE_STEPS: u32 = 50;

/// Threads for large requests, at most.
const CORES_MAX: usize = 4;
/// Threads for a medium that makes its reader wait: as many requests as it works on at once.
const WAITING_THREADS: usize = 16;

/// How a volume is exported.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Export names; the first is the proper one.
    pub names: Vec<String>,
    /// Who may connect.
    pub peers: PeerPolicy,
    /// Connections at a time.
    pub connections_max: usize,
    /// A client that says nothing for so long before transmission is sent away.
    pub negotiation_patience: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            names: vec![String::new()],
            peers: PeerPolicy::default(),
            connections_max: 16,
            negotiation_patience: Duration::from_secs(10),
        }
    }
}

/// A running export.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Acceptor,
}

#[derive(Debug)]
struct Shared {
    export: Export,
    service: Service,
    options: ServerOptions,
    open: Mutex<Vec<Open>>,
}

/// One connection, seen from the server.
#[derive(Debug)]
struct Open {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Server {
    /// Starts to serve `volume` on `socket`.
    ///
    /// # Errors
    /// The system's, if there is no thread or descriptor for it.
    pub fn start(
        volume: Arc<dyn Volume>,
        socket: UnixSocket,
        options: ServerOptions,
    ) -> io::Result<Self> {
        let export = Export {
            names: options.names.clone(),
            size: volume.size(),
            read_only: volume.read_only(),
            preferred_block: volume.sector_size().max(4096),
        };
        let counters = Arc::new(Counters::default());
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if volume.writes_wait() { WAITING_THREADS } else { cores.min(CORES_MAX) };
        let service = Service { volume, counters, pool: Spread::new(threads)? };
        let shared = Arc::new(Shared { export, service, options, open: Mutex::default() });
        let for_thread = Arc::clone(&shared);
        let acceptor =
            Acceptor::start("nbd-accept", socket, move |stream, _| for_thread.accepted(stream))?;
        Ok(Self { shared, acceptor })
    }

    /// Serves a connection that came by another way than the socket, and whose peer was judged by
    /// who gives it: a TLS session's plaintext side, for example. It counts with the others.
    ///
    /// # Errors
    /// The system's, if there is no thread for it.
    pub fn adopt(&self, stream: UnixStream) -> io::Result<()> {
        self.shared.admit(stream, Ok(()))
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.service.counters
    }

    /// The volume that is served.
    #[must_use]
    pub fn volume(&self) -> &dyn Volume {
        &*self.shared.service.volume
    }

    /// Stops: no new connections, the received requests finished, the volume closed. A second
    /// call does nothing more.
    ///
    /// # Errors
    /// The flush's error.
    pub fn stop(&self) -> io::Result<()> {
        self.acceptor.stop(|| ());
        let open: Vec<Open> = self.shared.open().drain(..).collect();
        for connection in &open {
            let _ = connection.stream.shutdown(Shutdown::Read);
        }
        for _ in 0..GRACE_STEPS {
            if open.iter().all(|connection| connection.thread.is_finished()) {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        for connection in open {
            let _ = connection.stream.shutdown(Shutdown::Both);
            let _ = connection.thread.join();
        }
        self.shared.service.volume.close()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about a failed flush here; who wants to know calls `stop`.
        let _ = self.stop();
    }
}

impl Shared {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        let admitted = self.options.peers.admit(&stream);
        self.admit(stream, admitted)
    }

    /// Gives a connection a thread, if its peer may connect and there is a place.
    fn admit(self: &Arc<Self>, stream: UnixStream, peer: Result<(), Rejection>) -> io::Result<()> {
        self.open().retain(|connection| !connection.thread.is_finished());
        let full = self.open().len() >= self.options.connections_max;
        let admitted = match peer {
            Ok(()) if full => Err(Rejection::TooManyConnections),
            other => other,
        };
        if let Err(rejection) = admitted {
            self.refused(rejection);
            return Ok(());
        }
        add(&self.service.counters.connections_accepted, 1);
        let shared = Arc::clone(self);
        let for_thread = stream.try_clone()?;
        let thread = thread::Builder::new()
            .name("nbd".to_owned())
            .spawn(move || shared.serve(&for_thread))?;
        self.open().push(Open { stream, thread });
        Ok(())
    }

    fn serve(&self, stream: &UnixStream) {
        add(&self.service.counters.connections, 1);
        let patience = self.options.negotiation_patience;
        match serve(stream, &self.export, patience, &self.service) {
            End::Closed => {}
            End::Rejected(rejection) => self.refused(rejection),
            End::Io(error) => tracing::info!(error = %error, "connection lost"),
        }
        let _ = stream.shutdown(Shutdown::Both);
        self.service.counters.connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn refused(&self, rejection: Rejection) {
        add(&self.service.counters.connections_refused, 1);
        tracing::warn!(rejection = rejection.code(), detail = %rejection, "connection refused");
    }
}
