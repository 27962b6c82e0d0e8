//! The server: one front end at a time, its messages on one thread, its rings on one each.

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vhost::vhost_user::{BackendReqHandler, Error};

use super::{Rejection, device::Device};
use crate::{
    Volume,
    accept::{Acceptor, Stopping},
    nbd::{Counters, PeerPolicy, UnixSocket, add},
};

/// How a volume is exported.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Who may connect.
    pub peers: PeerPolicy,
    /// Queues that are offered, 1 to 16; each has a thread while the driver uses it.
    pub queues: u16,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { peers: PeerPolicy::default(), queues: 4 }
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
    volume: Arc<dyn Volume>,
    counters: Arc<Counters>,
    options: ServerOptions,
    /// The connection that is served, to end it when the server stops.
    open: Mutex<Option<Open>>,
}

/// A connection, and what it drives.
#[derive(Debug)]
struct Open {
    stream: UnixStream,
    device: Arc<Mutex<Device>>,
}

impl Open {
    /// Ends the rings first, then the connection. A front end that sees it cut begins again where the
    /// used ring then stands: what was given back later would be done, and given back, twice.
    fn end(&self) {
        locked(&self.device).end();
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn locked(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Starts to serve `volume` on `socket`.
    ///
    /// # Errors
    /// The system's, if there is no thread or descriptor for it.
    pub fn start(
        volume: Arc<dyn Volume>,
        socket: UnixSocket,
        mut options: ServerOptions,
    ) -> io::Result<Self> {
        options.queues = options.queues.clamp(1, 16);
        let counters = Arc::new(Counters::default());
        let shared = Arc::new(Shared { volume, counters, options, open: Mutex::new(None) });
        let for_thread = Arc::clone(&shared);
        let acceptor = Acceptor::start("vhost", socket, move |stream, stopping| {
            for_thread.accepted(stream, stopping)
        })?;
        Ok(Self { shared, acceptor })
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The volume that is served.
    #[must_use]
    pub fn volume(&self) -> &dyn Volume {
        &*self.shared.volume
    }

    /// Stops: the requests at hand are finished, the front end is cut off, the volume flushed. What
    /// the driver made available and nobody took stays for the next process.
    ///
    /// # Errors
    /// The flush's error.
    pub fn stop(&self) -> io::Result<()> {
        self.acceptor.stop(|| {
            if let Some(open) = self.shared.open().as_ref() {
                open.end();
            }
        });
        self.shared.volume.close()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about a failed flush here; who wants to know calls `stop`.
        let _ = self.stop();
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one front end to its end.
    fn accepted(&self, stream: UnixStream, stopping: &Stopping) -> io::Result<()> {
        let (volume, counters) = (Arc::clone(&self.volume), Arc::clone(&self.counters));
        let device = Arc::new(Mutex::new(Device::new(volume, counters, self.options.queues)));
        *self.open() = Some(Open { stream: stream.try_clone()?, device: Arc::clone(&device) });
        // The server may have begun to stop before the connection could be cut off.
        if !stopping.told() {
            self.serve(stream, device);
        }
        *self.open() = None;
        Ok(())
    }

    fn serve(&self, stream: UnixStream, device: Arc<Mutex<Device>>) {
        if self.options.peers.admit(&stream).is_err() {
            let rejection = Rejection::WrongUser;
            add(&self.counters.connections_refused, 1);
            tracing::warn!(rejection = rejection.code(), "connection refused");
            return;
        }
        add(&self.counters.connections_accepted, 1);
        add(&self.counters.connections, 1);
        let mut messages = BackendReqHandler::from_stream(stream, Arc::clone(&device));
        let ended = loop {
            if let Err(error) = messages.handle_request() {
                break error;
            }
        };
        locked(&device).end();
        if matches!(ended, Error::Disconnected | Error::SocketBroken(_)) {
            tracing::info!("front end left");
        } else {
            add(&self.counters.connections_refused, 1);
            tracing::warn!(
                rejection = Rejection::MessageMalformed.code(),
                error = %ended,
                "vhost-user connection ended"
            );
        }
        self.counters.connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}
