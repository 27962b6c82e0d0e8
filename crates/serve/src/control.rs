//! The control socket of a process that serves one VM: the agent's requests, answered in turn on
//! each connection by a thread of its own. The frames are those of [`model::child`].
//!
//! ```text
//!   accept -> own user? -> a place free? -> { receive -> answer -> send } -> agent leaves, or
//!                                             malformed: told so, connection ends
//!                                             shutdown: replied, then the flag is raised
//! ```
//!
//! **Invariant:** at most [`CONNECTIONS_MAX`] connections at a time, all of processes that run as
//! our own user. Deliberately absent: a way to stop listening; the process's end does that.

use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use model::child::{self, FrameError};
use serde::{Serialize, de::DeserializeOwned};

use crate::{exit::chain, shutdown::Shutdown};

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 8;

/// What stands behind a control socket.
pub trait Service: Send + Sync + 'static {
    /// What the agent asks.
    type Request: DeserializeOwned;
    /// What it is told.
    type Reply: Serialize;

    /// The socket, listening.
    fn listener(&self) -> &UnixListener;

    /// Does a request.
    fn answer(&self, request: Self::Request) -> Self::Reply;

    /// The answer to what is not a request; the connection ends with it.
    fn malformed(&self, error: &FrameError) -> Self::Reply;

    /// Whether the process is to end once this request has its reply.
    fn ends(request: &Self::Request) -> bool;
}

/// Answers in threads of their own until the process ends; raises `stop` if the agent asks to end.
///
/// # Errors
/// If no thread can be started.
pub fn start<S: Service>(service: S, stop: Shutdown) -> io::Result<()> {
    let service = Arc::new(service);
    let open = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        loop {
            let accepted = service.listener().accept();
            let admitted = accepted.and_then(|(stream, _)| admit(stream, &service, &open, &stop));
            if let Err(error) = admitted {
                tracing::warn!(%error, "a control connection could not be accepted");
                thread::sleep(Duration::from_millis(50));
            }
        }
    };
    thread::Builder::new().name("control-accept".to_owned()).spawn(accept).map(drop)
}

/// Whether the process at the other end runs as us or as one of `others`.
#[must_use]
pub fn is_admitted(stream: &UnixStream, others: &[u32]) -> bool {
    let own = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == own || others.contains(&peer.uid.as_raw()))
}

fn admit<S: Service>(
    stream: UnixStream,
    service: &Arc<S>,
    open: &Arc<AtomicUsize>,
    stop: &Shutdown,
) -> io::Result<()> {
    if !is_admitted(&stream, &[]) {
        tracing::warn!(rejection = "wrong-user", "control connection refused");
        return Ok(());
    }
    if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
        open.fetch_sub(1, Ordering::SeqCst);
        tracing::warn!(rejection = "too-many-connections", "control connection refused");
        return Ok(());
    }
    let (shared, counted, stop) = (Arc::clone(service), Arc::clone(open), stop.clone());
    let spawned = thread::Builder::new().name("control".to_owned()).spawn(move || {
        converse(&stream, &*shared, &stop);
        counted.fetch_sub(1, Ordering::SeqCst);
    });
    if spawned.is_err() {
        open.fetch_sub(1, Ordering::SeqCst);
    }
    spawned.map(drop)
}

/// Requests and replies in turn, until the agent leaves or sends something else.
fn converse<S: Service>(mut stream: &UnixStream, service: &S, stop: &Shutdown) {
    loop {
        let request = match child::receive::<S::Request>(&mut stream) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(detail = chain(&error), "malformed control message");
                // The connection ends in any case.
                let _ = child::send(&mut stream, &service.malformed(&error));
                return;
            }
        };
        let ends = S::ends(&request);
        let reply = service.answer(request);
        if let Err(error) = child::send(&mut stream, &reply) {
            tracing::warn!(detail = chain(&error), "the agent left before its reply");
            return;
        }
        if ends {
            stop.trigger();
        }
    }
}
