//! The phase of requests: many are received at a time, run where they lie in the buffer, and answered
//! in one write.
//!
//! Before it waits, the connection's thread lets requests gather ([`crate::gather`]).
//!
//! A large read with company, and every request of a volume that makes its reader wait, is handed to
//! a pool, a large write with the buffer it came in: its reply is written by the thread that did
//! it, so replies may come in another order than the requests, as the protocol allows.
//!
//! Memory of a connection: the receive buffer and the replies, each at most the longest payload
//! and a little, both shrink again after a long request; the buffers of writes in flight. The
//! replies once more for each thread of the pool.

use std::{
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::io::ioctl_fionread;

use super::{
    Command, Counters, Parsed, Request,
    answer::{Answering, REPLY_BYTES},
    connection::End,
    negotiate::Agreed,
    received::{LARGE_BYTES, RECEIVE_BYTES, Received},
    reply::Replies,
    request::REQUEST_BYTES,
};
use crate::{
    Volume,
    gather::Gather,
    spread::{Flying, Spread},
};

/// Receive buffers that are kept for the next large writes.
const SPARE_BUFFERS: usize = 8;

/// What a thread of the pool keeps between requests.
#[derive(Debug, Default)]
pub(super) struct Kept {
    replies: Replies,
}

/// What connections are served with.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) volume: Arc<dyn Volume>,
    pub(super) counters: Arc<Counters>,
    pub(super) pool: Spread<Kept>,
}

/// The other end, as the threads that answer it share it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) writer: Mutex<UnixStream>,
    pub(super) agreed: Agreed,
    flying: Flying,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// A request on its way to the pool: it begins at `start` of `bytes`.
struct Handed {
    request: Request,
    bytes: Vec<u8>,
    start: usize,
    whole: usize,
}

/// Serves requests until the stream ends; what was handed to the pool is done then.
pub(super) fn run(
    stream: &UnixStream,
    agreed: Agreed,
    service: &Service,
    received: &mut Received,
) -> Result<(), End> {
    let writer = Mutex::new(stream.try_clone()?);
    let (flying, spare) = (Flying::default(), Mutex::default());
    let peer = Arc::new(Peer { writer, agreed, flying, spare });
    let (volume, counters) = (&*service.volume, &*service.counters);
    let mut replies = Replies::default();
    let answering = Answering { peer: &peer, volume, counters, replies: &mut replies };
    let gather = Gather::here();
    let ended = Transmission { stream, service, peer: &peer, answering, gather }.run(received);
    peer.flying.wait();
    ended
}

/// The connection's own thread.
struct Transmission<'a> {
    stream: &'a UnixStream,
    service: &'a Service,
    peer: &'a Arc<Peer>,
    answering: Answering<'a>,
    gather: Gather,
}

impl Transmission<'_> {
    fn run(&mut self, received: &mut Received) -> Result<(), End> {
        loop {
            match Request::parse(received.waiting()) {
                Ok(Parsed::Request(request, _)) if request.command == Command::Disconnect => {
                    self.peer.flying.wait();
                    return self.answering.send();
                }
                Ok(Parsed::Request(request, payload)) => {
                    self.serve(&request, REQUEST_BYTES.saturating_add(payload), received)?;
                    self.gather.served();
                    if self.answering.replies.len() >= REPLY_BYTES {
                        self.answering.send()?;
                    }
                }
                Ok(Parsed::NeedMore(whole)) => {
                    self.answering.send()?;
                    if received.waiting().is_empty() {
                        self.gather.pause();
                    }
                    received.receive(self.stream, whole)?;
                }
                Err(rejection) => {
                    self.answering.send()?;
                    return Err(rejection.into());
                }
            }
        }
    }

    /// Runs the request that is the first `whole` bytes, or hands it over.
    fn serve(
        &mut self,
        request: &Request,
        whole: usize,
        received: &mut Received,
    ) -> Result<(), End> {
        if self.is_for_pool(request, received.waiting().len() > whole)
            && let Some((bytes, start)) = self.take(request, whole, received)
        {
            hand_over(Handed { request: *request, bytes, start, whole }, self.service, self.peer);
            return Ok(());
        }
        let waiting = received.waiting_mut();
        let data = waiting.get_mut(REQUEST_BYTES..whole).unwrap_or_default();
        self.answering.answer(request, data)?;
        received.consume(whole);
        Ok(())
    }

    /// Whether a request goes to the pool: a large read with company, or anything that may
    /// wait for the medium.
    fn is_for_pool(&self, request: &Request, more: bool) -> bool {
        let volume = &self.service.volume;
        let large = request.command == Command::Read && request.length >= LARGE_BYTES;
        let waits = match request.command {
            Command::Read => volume.waits(),
            Command::Write | Command::WriteZeroes => volume.writes_wait(),
            Command::Disconnect
            | Command::Flush
            | Command::Trim
            | Command::Cache
            | Command::BlockStatus
            | Command::Unknown(_) => false,
        };
        if !large && !waits || !self.service.pool.has_room() {
            return false;
        }
        more || self.peer.flying.any() || ioctl_fionread(self.stream).is_ok_and(|count| count > 0)
    }

    /// Takes the first `whole` bytes off: with their buffer if they are many, else a copy. None if
    /// that would cost more than it gains.
    fn take(
        &self,
        request: &Request,
        whole: usize,
        received: &mut Received,
    ) -> Option<(Vec<u8>, usize)> {
        if request.command == Command::Write && request.length >= LARGE_BYTES {
            if whole > RECEIVE_BYTES || self.peer.flying.count() >= SPARE_BUFFERS {
                return None;
            }
            return received.give_away(whole, || self.peer.fresh());
        }
        let bytes = received.waiting().get(..whole)?.to_vec();
        received.consume(whole);
        Some((bytes, 0))
    }
}

impl Peer {
    /// A receive buffer.
    fn fresh(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| vec![0; RECEIVE_BYTES])
    }

    fn keep(&self, bytes: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() == RECEIVE_BYTES && spare.len() < SPARE_BUFFERS {
            spare.push(bytes);
        }
    }
}

/// Gives a request to the pool.
fn hand_over(mut handed: Handed, service: &Service, peer: &Arc<Peer>) {
    let (volume, counters) = (Arc::clone(&service.volume), Arc::clone(&service.counters));
    let peer = Arc::clone(peer);
    peer.flying.begin();
    service.pool.give(move |kept: &mut Kept| {
        let replies = &mut kept.replies;
        let mut one = Answering { peer: &peer, volume: &*volume, counters: &counters, replies };
        let Handed { request, bytes, start, whole } = &mut handed;
        let payload = start.saturating_add(REQUEST_BYTES)..start.saturating_add(*whole);
        let data = bytes.get_mut(payload).unwrap_or_default();
        let done = one.answer(request, data).and_then(|()| one.send());
        peer.keep(handed.bytes);
        if done.is_err() {
            // The stream failed: its own thread sees that too, and ends.
            kept.replies.clear(0);
            let stream = peer.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        peer.flying.end();
    });
}
