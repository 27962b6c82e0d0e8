//! The reader's channels to the keeper: one request at a time on each, so many at once as there are
//! channels. Questions and orders have channels of their own, so that orders that wait for the disk
//! hold up no question.

use std::{
    io::BufReader,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    child,
    guest::GuestRequest,
    keys::{
        order::KeyFailure,
        rpc::{KeyAnswer, KeyRequest},
    },
};
use serve::exit::chain;

/// How long a request waits for a free channel before it is told to come later.
const PATIENCE: Duration = Duration::from_secs(5);

/// One channel.
#[derive(Debug)]
struct Channel {
    /// What is read from it: a whole answer at once, mostly.
    answers: BufReader<UnixStream>,
}

impl Channel {
    fn ask(&mut self, request: &KeyRequest) -> Result<KeyAnswer, child::FrameError> {
        child::send(self.answers.get_mut(), request)?;
        child::receive(&mut self.answers)?
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into())
    }
}

/// Channels that are free.
#[derive(Debug, Default)]
struct Pool {
    free: Mutex<Vec<Channel>>,
    freed: Condvar,
}

impl Pool {
    fn new(sockets: impl IntoIterator<Item = OwnedFd>) -> Self {
        let channel =
            |fd| Channel { answers: BufReader::with_capacity(16 << 10, UnixStream::from(fd)) };
        Self { free: Mutex::new(sockets.into_iter().map(channel).collect()), freed: Condvar::new() }
    }

    /// A panic ends the process, so nobody leaves the lock behind.
    fn free(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Channel> {
        let waiting = self.freed.wait_timeout_while(self.free(), PATIENCE, |free| free.is_empty());
        waiting.unwrap_or_else(PoisonError::into_inner).0.pop()
    }

    fn ask(&self, request: &KeyRequest) -> KeyAnswer {
        let Some(mut channel) = self.take() else {
            tracing::warn!(rejection = "channels-busy", "no channel to the keeper came free");
            return KeyAnswer::Failed(KeyFailure::Busy);
        };
        match channel.ask(request) {
            Ok(answer) => {
                self.free().push(channel);
                self.freed.notify_one();
                answer
            }
            Err(error) => {
                // The two ends no longer agree on what comes next; this channel is not used again.
                tracing::error!(detail = chain(&error), "a channel to the keeper is lost");
                KeyAnswer::Failed(KeyFailure::Internal)
            }
        }
    }
}

/// All channels.
#[derive(Debug)]
pub(crate) struct Link {
    questions: Pool,
    orders: Pool,
}

impl Link {
    /// The last `orders` of `sockets` are for orders.
    pub(crate) fn new(mut sockets: Vec<OwnedFd>, orders: usize) -> Self {
        let for_orders = sockets.split_off(sockets.len().saturating_sub(orders));
        Self { questions: Pool::new(sockets), orders: Pool::new(for_orders) }
    }

    /// Asks the keeper, and waits for the answer.
    pub(crate) fn ask(&self, request: &KeyRequest) -> KeyAnswer {
        self.pool(request).ask(request)
    }

    fn pool(&self, request: &KeyRequest) -> &Pool {
        match request {
            KeyRequest::Guest(GuestRequest::Ask { request, .. }) => self.pool(request),
            KeyRequest::Locate(_)
            | KeyRequest::Validate(_)
            | KeyRequest::AskedBy { .. }
            | KeyRequest::AuthenticationKeys { .. }
            | KeyRequest::MessageKey(_)
            | KeyRequest::Progress(_)
            | KeyRequest::CaCertificate
            | KeyRequest::Crl
            | KeyRequest::DeltaCrl
            | KeyRequest::Ocsp(_)
            | KeyRequest::Health => &self.questions,
            KeyRequest::AuthenticationFailed { .. }
            | KeyRequest::Register { .. }
            | KeyRequest::Reissue(_)
            | KeyRequest::Revoke(_)
            | KeyRequest::Recover(_)
            | KeyRequest::Collect(_)
            | KeyRequest::Guest(_)
            | KeyRequest::Refused { .. } => &self.orders,
        }
    }
}
