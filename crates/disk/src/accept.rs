//! The thread that accepts the connections of an export, until it is told to stop.
//!
//! ```text
//!   listening -> accepted(stream) -> listening ... stop: told -> cut off what is open -> joined
//! ```

use std::{
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::nbd::UnixSocket;

/// How long nothing is accepted after an error: most often the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether the export is to stop, for what runs on the accepting thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping(Arc<AtomicBool>);

impl Stopping {
    pub(crate) fn told(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A listening socket and its thread.
#[derive(Debug)]
pub(crate) struct Acceptor {
    stopping: Stopping,
    waker: UnixStream,
    thread: Mutex<Option<JoinHandle<()>>>,
    // Dropped last: the socket file goes when nobody serves any more.
    _socket: Arc<UnixSocket>,
}

impl Acceptor {
    /// Calls `accepted` with each connection on `socket`, on a thread called `name`.
    ///
    /// # Errors
    /// The system's, if there is no thread or descriptor for it.
    pub(crate) fn start(
        name: &str,
        socket: UnixSocket,
        accepted: impl Fn(UnixStream, &Stopping) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let (waker, woken) = UnixStream::pair()?;
        let stopping = Stopping::default();
        let (listening, seen) = (Arc::clone(&socket), stopping.clone());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            while wait(&listening, &woken) {
                let served =
                    listening.listener.accept().and_then(|(stream, _)| accepted(stream, &seen));
                if let Err(error) = served {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    thread::sleep(PAUSE);
                }
            }
        })?;
        Ok(Self { stopping, waker, thread: Mutex::new(Some(thread)), _socket: socket })
    }

    /// Accepts nothing any more. `cut` ends what `accepted` may be at; then the thread has ended. A
    /// second call does nothing more.
    pub(crate) fn stop(&self, cut: impl FnOnce()) {
        self.stopping.0.store(true, Ordering::SeqCst);
        let _ = self.waker.shutdown(Shutdown::Both);
        cut();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It panicked if this fails, and said so.
            let _ = thread.join();
        }
    }
}

/// Waits for a connection; false when the waker's other end is closed.
fn wait(socket: &UnixSocket, woken: &UnixStream) -> bool {
    loop {
        let mut ready =
            [PollFd::new(woken, PollFlags::IN), PollFd::new(&socket.listener, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return false,
        }
        let [stop, connection] = &ready;
        if !stop.revents().is_empty() {
            return false;
        }
        if !connection.revents().is_empty() {
            return true;
        }
    }
}
