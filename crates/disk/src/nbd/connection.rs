//! One connection: negotiation, then transmission. Requests are received many at a time, run where
//! they lie in the buffer, and answered in one write.
//!
//! A large request with company, and every request of a volume that makes its reader wait, is handed
//! to a pool: its reply is written by the thread that did it, so replies may come in another order
//! than the requests, as the protocol allows.
//!
//! Memory of a connection: the receive buffer and the replies, each at most the longest payload
//! and a little; both shrink again after a long request. The same for each thread of the pool.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    Command, Counters, Export, Negotiation, Outcome, Parsed, Progress, Rejection, Request,
    counters::add,
    negotiate::Agreed,
    reply::{Replies, error_number},
    request::REQUEST_BYTES,
    wire,
};
use crate::{
    Volume,
    spread::{Flying, Spread},
    steps::step,
};

/// The receive buffer's usual size.
const RECEIVE_BYTES: usize = 1 << 20;
/// Replies are sent when so many bytes are waiting, or when no complete request is left.
const REPLY_BYTES: usize = 512 << 10;
/// A request of so many bytes is worth a thread of its own.
const LARGE_BYTES: u32 = 128 << 10;
/// The most extents of one block status.
const EXTENTS_MAX: usize = 4096;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client left, or the server is stopping.
    Closed,
    /// The client broke the protocol.
    Rejected(Rejection),
    /// The stream failed.
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Rejection> for End {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// What a thread of the pool keeps between requests.
#[derive(Debug, Default)]
pub(super) struct Kept {
    replies: Replies,
}

/// What a connection is served with.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) volume: Arc<dyn Volume>,
    pub(super) counters: Arc<Counters>,
    pub(super) pool: Spread<Kept>,
}

/// Serves `stream` until it ends.
pub(super) fn serve(
    stream: &UnixStream,
    export: &Export,
    patience: Duration,
    service: &Service,
) -> End {
    let run = || -> Result<(), End> {
        let mut received = Received::new();
        let agreed = negotiate(stream, export.clone(), patience, &mut received)?;
        let writer = Mutex::new(stream.try_clone()?);
        let peer = Arc::new(Peer { writer, flying: Flying::default(), agreed });
        let (volume, counters) = (&*service.volume, &*service.counters);
        let mut replies = Replies::default();
        let ended = Transmission { peer: &peer, volume, counters, replies: &mut replies }.run(
            stream,
            service,
            &peer,
            &mut received,
        );
        peer.flying.wait();
        ended
    };
    run().err().unwrap_or(End::Closed)
}

/// The other end, as the threads that answer it share it.
#[derive(Debug)]
struct Peer {
    writer: Mutex<UnixStream>,
    flying: Flying,
    agreed: Agreed,
}

/// Bytes that came and were not yet worked on: `bytes[start..end]`.
struct Received {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Received {
    fn new() -> Self {
        Self { bytes: vec![0; RECEIVE_BYTES], start: 0, end: 0 }
    }

    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn waiting_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.bytes.len() > RECEIVE_BYTES {
                self.bytes.truncate(RECEIVE_BYTES);
                self.bytes.shrink_to_fit();
            }
        }
    }

    /// Receives what is there, at least one byte, with room for a message of `whole` bytes.
    fn receive(&mut self, mut stream: &UnixStream, whole: usize) -> Result<(), End> {
        if self.start.saturating_add(whole) > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
            if whole > self.bytes.len() {
                self.bytes.resize(whole, 0);
            }
        }
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        loop {
            match stream.read(room) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => {
                    self.end = self.end.saturating_add(count);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn negotiate(
    mut stream: &UnixStream,
    export: Export,
    patience: Duration,
    received: &mut Received,
) -> Result<Agreed, End> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut out = Vec::new();
    let mut negotiation = Negotiation::begin(export, &mut out);
    loop {
        let progress = negotiation.advance(received.waiting(), &mut out);
        if !matches!(progress, Ok(Progress::Consumed(_))) && !out.is_empty() {
            stream.write_all(&out)?;
            out.clear();
        }
        match progress? {
            Progress::Consumed(count) => received.consume(count),
            Progress::NeedMore => match received.receive(stream, 1 << 16) {
                Err(End::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Rejection::NegotiationTimeout.into());
                }
                other => other?,
            },
            Progress::Done(_, Outcome::Ended) => return Err(End::Closed),
            Progress::Done(count, Outcome::Transmission(agreed)) => {
                received.consume(count);
                stream.set_read_timeout(None)?;
                stream.set_write_timeout(None)?;
                return Ok(agreed);
            }
        }
    }
}

/// The phase of requests.
struct Transmission<'a> {
    peer: &'a Peer,
    volume: &'a dyn Volume,
    counters: &'a Counters,
    replies: &'a mut Replies,
}

impl Transmission<'_> {
    fn run(
        &mut self,
        stream: &UnixStream,
        service: &Service,
        peer: &Arc<Peer>,
        received: &mut Received,
    ) -> Result<(), End> {
        loop {
            match Request::parse(received.waiting()) {
                Ok(Parsed::Request(request, payload)) => {
                    if request.command == Command::Disconnect {
                        peer.flying.wait();
                        return self.send();
                    }
                    let whole = REQUEST_BYTES.saturating_add(payload);
                    let company = received.waiting().len() > whole || peer.flying.any();
                    let waiting = received.waiting_mut();
                    let data = waiting.get_mut(REQUEST_BYTES..whole).unwrap_or_default();
                    if is_for_pool(&request, service, company) {
                        hand_over(request, data, service, peer);
                    } else {
                        self.answer(&request, data)?;
                    }
                    received.consume(whole);
                    if self.replies.len() >= REPLY_BYTES {
                        self.send()?;
                    }
                }
                Ok(Parsed::NeedMore(whole)) => {
                    self.send()?;
                    received.receive(stream, whole)?;
                }
                Err(rejection) => {
                    self.send()?;
                    return Err(rejection.into());
                }
            }
        }
    }

    fn send(&mut self) -> Result<(), End> {
        if self.replies.len() > 0 {
            let mut stream = self.peer.writer.lock().unwrap_or_else(PoisonError::into_inner);
            stream.write_all(self.replies.pending())?;
            self.replies.clear(REPLY_BYTES.saturating_mul(4));
        }
        Ok(())
    }

    /// Runs one request; its reply goes to the waiting ones.
    fn answer(&mut self, request: &Request, data: &mut [u8]) -> Result<(), End> {
        let refusal =
            request.refusal(self.peer.agreed, self.volume.size(), self.volume.read_only());
        if let Some(error) = refusal {
            self.fail(request, error);
            return Ok(());
        }
        let durable = request.flags & wire::CMD_FLAG_FUA != 0
            && matches!(request.command, Command::Write | Command::WriteZeroes | Command::Trim);
        if durable || request.command == Command::Flush {
            // What is done need not wait for the medium.
            self.send()?;
        }
        let mut done = self.execute(request, data);
        if durable && done.is_ok() {
            add(&self.counters.flushes, 1);
            done = self.volume.flush();
        }
        match done {
            Ok(()) => {
                if !matches!(request.command, Command::Read | Command::BlockStatus) {
                    self.replies.simple(request.cookie, 0);
                }
            }
            Err(error) => {
                tracing::warn!(
                    nbd.command = ?request.command,
                    nbd.offset = request.offset,
                    nbd.length = request.length,
                    error = %error,
                    "request failed"
                );
                self.counters.failed(request.offset, &error);
                self.refuse(request, error_number(&error));
            }
        }
        Ok(())
    }

    /// Does what is asked; reads and block status put their own replies.
    fn execute(&mut self, request: &Request, data: &mut [u8]) -> io::Result<()> {
        let Request { cookie, offset, length, .. } = *request;
        let bytes = u64::from(length);
        match request.command {
            Command::Read => {
                add(&self.counters.reads, 1);
                add(&self.counters.bytes_read, bytes);
                let volume = self.volume;
                step("S410", offset, usize::try_from(length).unwrap_or(usize::MAX));
                self.replies.data(self.peer.agreed.structured, cookie, offset, length, |place| {
                    volume.read(offset, place)?;
                    step("S440", offset, place.len());
                    Ok(())
                })
            }
            Command::Write => {
                add(&self.counters.writes, 1);
                add(&self.counters.bytes_written, bytes);
                step("S310", offset, data.len());
                self.volume.write(offset, data)
            }
            Command::WriteZeroes => {
                add(&self.counters.zeroes, 1);
                self.volume.write_zeroes(offset, bytes)
            }
            Command::Trim => {
                add(&self.counters.trims, 1);
                self.volume.trim(offset, bytes)
            }
            Command::Flush => {
                add(&self.counters.flushes, 1);
                self.volume.flush()
            }
            Command::Cache => self.volume.prefetch(offset, bytes),
            Command::BlockStatus => {
                let one = request.flags & wire::CMD_FLAG_REQ_ONE != 0;
                let max = if one { 1 } else { EXTENTS_MAX };
                let extents = self.volume.extents(offset, bytes, max)?;
                self.replies.block_status(cookie, &extents);
                Ok(())
            }
            Command::Disconnect | Command::Unknown(_) => Ok(()),
        }
    }

    /// Answers what is malformed or not allowed.
    fn fail(&mut self, request: &Request, error: u32) {
        add(&self.counters.errors, 1);
        self.refuse(request, error);
    }

    fn refuse(&mut self, request: &Request, error: u32) {
        let chunked = matches!(request.command, Command::Read | Command::BlockStatus);
        if self.peer.agreed.structured && chunked {
            self.replies.structured_error(request.cookie, error);
        } else {
            self.replies.simple(request.cookie, error);
        }
    }
}

/// Whether a request goes to the pool: a large read with company, or anything that may wait for the
/// medium.
fn is_for_pool(request: &Request, service: &Service, company: bool) -> bool {
    let waits = service.volume.waits()
        && matches!(request.command, Command::Read | Command::Write | Command::WriteZeroes);
    let large = request.command == Command::Read && request.length >= LARGE_BYTES;
    company && (waits || large) && service.pool.has_room()
}

/// Gives a request to the pool.
fn hand_over(request: Request, data: &[u8], service: &Service, peer: &Arc<Peer>) {
    let (volume, counters) = (Arc::clone(&service.volume), Arc::clone(&service.counters));
    let (peer, mut data) = (Arc::clone(peer), data.to_vec());
    peer.flying.begin();
    service.pool.give(move |kept: &mut Kept| {
        let replies = &mut kept.replies;
        let mut one = Transmission { peer: &peer, volume: &*volume, counters: &counters, replies };
        let done = one.answer(&request, &mut data).and_then(|()| one.send());
        if done.is_err() {
            // The stream failed: its own thread sees that too, and ends.
            kept.replies.clear(0);
            let stream = peer.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        peer.flying.end();
    });
}
