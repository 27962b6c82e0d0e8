//! The server: one front end at a time, its messages on one thread, its rings on one each.

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, poll};
use vhost::vhost_user::{BackendReqHandler, Error};

use super::{Rejection, device::Device};
use crate::{
    Volume,
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
    waker: UnixStream,
    acceptor: Mutex<Option<JoinHandle<()>>>,
    // Dropped last: the socket file goes when nobody serves any more.
    _socket: Arc<UnixSocket>,
}

#[derive(Debug)]
struct Shared {
    volume: Arc<dyn Volume>,
    counters: Arc<Counters>,
    options: ServerOptions,
    /// The connection that is served, to cut it off when the server stops.
    open: Mutex<Option<UnixStream>>,
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
        let socket = Arc::new(socket);
        let (waker, woken) = UnixStream::pair()?;
        let (for_thread, listening) = (Arc::clone(&shared), Arc::clone(&socket));
        let acceptor = thread::Builder::new()
            .name("vhost".to_owned())
            .spawn(move || for_thread.accept(&listening, &woken))?;
        Ok(Self { shared, waker, acceptor: Mutex::new(Some(acceptor)), _socket: socket })
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
        let _ = self.waker.shutdown(Shutdown::Both);
        if let Some(stream) = self.shared.open().as_ref() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(acceptor) = acceptor {
            let _ = acceptor.join();
        }
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
    fn open(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one front end after the other until the waker's other end closes.
    fn accept(&self, socket: &UnixSocket, woken: &UnixStream) {
        loop {
            let mut ready =
                [PollFd::new(woken, PollFlags::IN), PollFd::new(&socket.listener, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let [stop, _] = &ready;
            if !stop.revents().is_empty() {
                return;
            }
            let served = socket.listener.accept().and_then(|(stream, _)| {
                *self.open() = Some(stream.try_clone()?);
                // The server may have begun to stop before the connection could be cut off.
                let mut stop = [PollFd::new(woken, PollFlags::IN)];
                let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
                if poll(&mut stop, Some(&now))? == 0 {
                    self.serve(stream);
                }
                *self.open() = None;
                Ok(())
            });
            if let Err(error) = served {
                tracing::warn!(error = %error, "a connection could not be accepted");
                thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }

    fn serve(&self, stream: UnixStream) {
        if self.options.peers.admit(&stream).is_err() {
            let rejection = Rejection::WrongUser;
            add(&self.counters.connections_refused, 1);
            tracing::warn!(rejection = rejection.code(), "connection refused");
            return;
        }
        add(&self.counters.connections_accepted, 1);
        add(&self.counters.connections, 1);
        let (volume, counters) = (Arc::clone(&self.volume), Arc::clone(&self.counters));
        let device = Arc::new(Mutex::new(Device::new(volume, counters, self.options.queues)));
        let mut messages = BackendReqHandler::from_stream(stream, Arc::clone(&device));
        let ended = loop {
            if let Err(error) = messages.handle_request() {
                break error;
            }
        };
        device.lock().unwrap_or_else(PoisonError::into_inner).stop();
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
