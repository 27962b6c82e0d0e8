//! Connections that are kept for the next request, and how sure one may be of them.
//!
//! ```text
//! open ─► busy ─ answered ─► idle ─ taken ─► busy
//!                              └─ closed by either side, or one too many ─► gone
//! ```
//! **Invariants:** what the other side is known to have closed is not handed out; a request that may
//! not be repeated is given only a connection that was answered on a moment ago, on which nothing
//! came since, and never again one to a server that ends connections so early.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tokio::time::Instant;

/// Writes requests to a connection.
pub(super) type Sender = http1::SendRequest<Full<Bytes>>;

/// Most connections that are kept.
const MOST: usize = 8;
/// How long after an answer a connection is good for a request that may not be repeated. Servers
/// that keep connections at all wait longer for the next request than this.
const FRESH: Duration = Duration::from_secs(1);

/// How a connection is doing, without taking part in it: its socket, until the connection ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Probe(Arc<Mutex<Option<OwnedFd>>>);

impl Probe {
    /// Looks at this socket. One that cannot be looked at is as good as closed.
    pub(super) fn of(socket: &impl AsFd) -> Self {
        Self(Arc::new(Mutex::new(rustix::io::fcntl_dupfd_cloexec(socket, 0).ok())))
    }

    /// The connection has ended.
    pub(super) fn end(&self) {
        self.socket().take();
    }

    /// Whether the other side is there, and has said nothing that nobody asked for.
    fn is_silent(&self) -> bool {
        let socket = self.socket();
        let Some(socket) = socket.as_ref() else { return false };
        let came = recv(socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(came, Err(Errno::AGAIN))
    }

    fn socket(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection between two requests.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) sender: Sender,
    pub(super) probe: Probe,
}

#[derive(Debug)]
struct Kept {
    open: Open,
    since: Instant,
    /// How long it is fresh.
    fresh: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    kept: Vec<Kept>,
    /// The server ended a connection that was fresh, without a word before.
    hasty: bool,
}

/// For how long connections are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Until the server ends them.
    #[default]
    Long,
    /// As long as they are fresh: a server that serves one connection at a time is not kept from
    /// the next one.
    Briefly,
}

/// The kept connections to one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Idle {
    state: Arc<Mutex<State>>,
    keeping: Keeping,
}

impl Idle {
    /// None yet.
    pub(super) fn new(keeping: Keeping) -> Self {
        Self { state: Arc::default(), keeping }
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is ready, the newest; for a request that may not be repeated, a fresh one.
    pub(super) fn take(&self, repeatable: bool) -> Option<Open> {
        let mut state = self.held();
        let now = Instant::now();
        let State { kept, hasty } = &mut *state;
        kept.retain(|one| {
            // One whose answer is still being read is neither here nor there.
            let gone = one.open.sender.is_closed()
                || one.open.sender.is_ready() && !one.open.probe.is_silent();
            *hasty |= gone && now.duration_since(one.since) < one.fresh;
            !gone
        });
        let usable = |one: &Kept| {
            let fresh = !*hasty && now.duration_since(one.since) < one.fresh;
            one.open.sender.is_ready() && (repeatable || fresh)
        };
        let at = kept.iter().rposition(usable)?;
        Some(kept.remove(at).open)
    }

    /// Keeps a connection on which an answer with these fields begins.
    pub(super) fn keep(&self, open: Open, head: &HeaderMap) {
        if ends(head) {
            return;
        }
        let fresh = announced(head).map_or(FRESH, |seconds| FRESH.min(seconds / 2));
        let mut state = self.held();
        if open.sender.is_closed() {
            state.hasty = true;
        } else if state.kept.len() < MOST {
            state.kept.push(Kept { open, since: Instant::now(), fresh });
            drop(state);
            if self.keeping == Keeping::Briefly {
                let idle = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(fresh).await;
                    idle.held().kept.retain(|one| one.since.elapsed() < one.fresh);
                });
            }
        }
    }
}

/// Whether the server said that it ends the connection.
fn ends(head: &HeaderMap) -> bool {
    let said = head.get(header::CONNECTION).and_then(|field| field.to_str().ok());
    said.is_some_and(|said| said.eq_ignore_ascii_case("close"))
}

/// How long the server says that it waits for the next request: `Keep-Alive: timeout=SECONDS`.
fn announced(head: &HeaderMap) -> Option<Duration> {
    let field = head.get(HeaderName::from_static("keep-alive"))?.to_str().ok()?;
    let seconds = field.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}
