//! The control socket: the agent asks how the volume stands, flushes it, ends the process.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use disk::nbd::{PeerPolicy, Server, UnixSocket};
use model::child::{
    self,
    disk::{PROTOCOL, Reply, Request, Status},
};
use serve::{exit::chain, shutdown::Shutdown};

/// Control connections at a time.
const CONNECTIONS_MAX: usize = 8;

/// Answers on `socket` in threads of its own until the process ends.
pub(crate) fn start(
    server: Arc<Server>,
    socket: Arc<UnixSocket>,
    stop: Shutdown,
) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        loop {
            let admitted = socket.listener.accept().and_then(|(stream, _)| {
                admit(stream, Arc::clone(&server), Arc::clone(&open), stop.clone())
            });
            if let Err(error) = admitted {
                tracing::warn!(error = %error, "a control connection could not be accepted");
                thread::sleep(Duration::from_millis(50));
            }
        }
    };
    thread::Builder::new().name("control-accept".to_owned()).spawn(accept)?;
    Ok(())
}

fn admit(
    stream: UnixStream,
    server: Arc<Server>,
    open: Arc<AtomicUsize>,
    stop: Shutdown,
) -> io::Result<()> {
    if let Err(rejection) = PeerPolicy::default().admit(&stream) {
        tracing::warn!(rejection = rejection.code(), "control connection refused");
        return Ok(());
    }
    if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
        open.fetch_sub(1, Ordering::SeqCst);
        tracing::warn!(rejection = "too-many-connections", "control connection refused");
        return Ok(());
    }
    let counted = Arc::clone(&open);
    let spawned = thread::Builder::new().name("control".to_owned()).spawn(move || {
        converse(&stream, &server, &stop);
        counted.fetch_sub(1, Ordering::SeqCst);
    });
    if spawned.is_err() {
        open.fetch_sub(1, Ordering::SeqCst);
    }
    spawned.map(drop)
}

/// Requests and replies in turn, until the agent leaves or sends something else.
fn converse(mut stream: &UnixStream, server: &Server, stop: &Shutdown) {
    loop {
        let request = match child::receive::<Request>(&mut stream) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(detail = chain(&error), "malformed control message");
                let detail = chain(&error);
                let failed = Reply::Failed { code: "malformed-request".to_owned(), detail };
                let _ = child::send(&mut stream, &failed);
                return;
            }
        };
        let reply = answer(&request, server);
        if child::send(&mut stream, &reply).is_err() {
            return;
        }
        if request == (Request::Shutdown {}) {
            stop.trigger();
        }
    }
}

fn answer(request: &Request, server: &Server) -> Reply {
    let volume = server.volume();
    match request {
        Request::Status {} => Reply::Status(Status {
            protocol: PROTOCOL,
            pid: std::process::id(),
            format: volume.format().to_owned(),
            size: volume.size(),
            sector_size: volume.sector_size(),
            read_only: volume.read_only(),
            header_damaged: volume.header_damage().map(str::to_owned),
            kmi: volume.kmi().cloned(),
            flush_failed: volume.flush_failed(),
            counters: server.counters().snapshot(),
        }),
        Request::Flush {} => match volume.flush() {
            Ok(()) => Reply::Flushed {},
            Err(error) => {
                Reply::Failed { code: "flush-failed".to_owned(), detail: error.to_string() }
            }
        },
        Request::Shutdown {} => Reply::ShuttingDown { counters: server.counters().snapshot() },
    }
}
