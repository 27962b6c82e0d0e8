//! The reader's channels to the keeper: one request at a time on each, so many at once as there are
//! channels. Questions and orders have channels of their own, so that orders that wait for the disk
//! hold up no question.
//!
//! **Invariant:** a channel that comes free goes to whoever waits longest; nobody overtakes.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Read},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    time::Duration,
};

use model::{
    child::FrameError,
    guest::GuestRequest,
    keys::{
        order::KeyFailure,
        rpc::{KeyAnswer, KeyRequest},
    },
};
use serve::exit::chain;

use super::turn::Turn;

/// How long a request waits for a free channel before it is told to come later.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a request has its turn while it waits for an answer.
const SOON: Duration = Duration::from_millis(10);

/// What comes from the keeper: the socket gives up waiting after [`SOON`].
#[derive(Debug)]
struct Ear {
    socket: UnixStream,
    /// Whether it waits on all the same.
    patient: bool,
}

impl Read for Ear {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(into) {
                Err(error) if is_late(&error) && self.patient => {}
                read => return read,
            }
        }
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// One channel.
#[derive(Debug)]
struct Channel {
    /// What is read from it: a whole answer at once, mostly.
    answers: BufReader<Ear>,
}

impl Channel {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_read_timeout(Some(SOON))?;
        let ear = Ear { socket, patient: true };
        Ok(Self { answers: BufReader::with_capacity(16 << 10, ear) })
    }

    /// Gives up its turn if the answer takes long: of a question, because the keeper asks others.
    fn ask(&mut self, request: &KeyRequest, turn: &Turn) -> Result<KeyAnswer, FrameError> {
        request.send(&mut self.answers.get_mut().socket)?;
        if !self.comes_soon()? {
            turn.wait(|| self.answers.fill_buf().map(drop))?;
        }
        KeyAnswer::receive(&mut self.answers)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof).into())
    }

    /// Whether the answer, or its beginning, is there; from then on it is waited for.
    fn comes_soon(&mut self) -> io::Result<bool> {
        self.answers.get_mut().patient = false;
        let come = self.answers.fill_buf().map(drop);
        self.answers.get_mut().patient = true;
        match come {
            Ok(()) => Ok(true),
            Err(error) if is_late(&error) || error.kind() == io::ErrorKind::Interrupted => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Channels that are free, or who waits for one; never both.
#[derive(Debug, Default)]
struct Line {
    free: Vec<Channel>,
    waiting: VecDeque<(Place, SyncSender<Channel>)>,
    next: Place,
}

/// What one who waits is known by.
type Place = u64;

/// Channels for requests of one kind.
#[derive(Debug, Default)]
struct Pool(Mutex<Line>);

impl Pool {
    /// # Errors
    /// What the kernel says.
    fn new(sockets: impl IntoIterator<Item = OwnedFd>) -> io::Result<Self> {
        let free = sockets.into_iter().map(Channel::new).collect::<io::Result<_>>()?;
        Ok(Self(Mutex::new(Line { free, ..Line::default() })))
    }

    /// A panic ends the process, so nobody leaves the lock behind.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel, or where one will come.
    fn queue(&self) -> Result<Channel, (Place, Receiver<Channel>)> {
        let mut line = self.line();
        line.free.pop().ok_or_else(|| {
            let (give, got) = mpsc::sync_channel(1);
            let place = line.next;
            line.next = place.wrapping_add(1);
            line.waiting.push_back((place, give));
            (place, got)
        })
    }

    /// One who leaves the line, with the channel that came in the very moment.
    fn leave(&self, (place, got): (Place, &Receiver<Channel>)) -> Option<Channel> {
        // Who has no place any more is given nothing.
        self.line().waiting.retain(|(other, _)| *other != place);
        got.try_recv().ok()
    }

    fn take(&self) -> Option<Channel> {
        let (place, got) = match self.queue() {
            Ok(channel) => return Some(channel),
            Err(waiting) => waiting,
        };
        got.recv_timeout(PATIENCE).ok().or_else(|| self.leave((place, &got)))
    }

    fn give_back(&self, mut channel: Channel) {
        let mut line = self.line();
        while let Some((_, next)) = line.waiting.pop_front() {
            match next.try_send(channel) {
                Ok(()) => return,
                // Nobody is there, or has one already; whoever it was, the channel is not lost.
                Err(mpsc::TrySendError::Disconnected(back) | mpsc::TrySendError::Full(back)) => {
                    channel = back;
                }
            }
        }
        line.free.push(channel);
    }

    fn ask(&self, request: &KeyRequest, turn: &Turn) -> KeyAnswer {
        let Some(mut channel) = self.take() else {
            tracing::warn!(rejection = "channels-busy", "no channel to the keeper came free");
            return KeyAnswer::Failed(KeyFailure::Busy);
        };
        match channel.ask(request, turn) {
            Ok(answer) => {
                self.give_back(channel);
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
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn new(mut sockets: Vec<OwnedFd>, orders: usize) -> io::Result<Self> {
        let for_orders = sockets.split_off(sockets.len().saturating_sub(orders));
        Ok(Self { questions: Pool::new(sockets)?, orders: Pool::new(for_orders)? })
    }

    /// Asks the keeper, and waits for the answer; what waits for a disk gives up its turn.
    pub(super) fn ask(&self, request: &KeyRequest, turn: &Turn) -> KeyAnswer {
        if is_question(request) {
            self.questions.ask(request, turn)
        } else {
            turn.wait(|| self.orders.ask(request, &Turn::aside()))
        }
    }
}

/// Whether the keeper answers without waiting for a disk.
fn is_question(request: &KeyRequest) -> bool {
    match request {
        KeyRequest::Guest(GuestRequest::Ask { request, .. }) => is_question(request),
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
        | KeyRequest::Health => true,
        KeyRequest::AuthenticationFailed { .. }
        | KeyRequest::Register { .. }
        | KeyRequest::Reissue(_)
        | KeyRequest::Revoke(_)
        | KeyRequest::Recover(_)
        | KeyRequest::Collect(_)
        | KeyRequest::Guest(_)
        | KeyRequest::Refused { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, sync::Arc, thread};

    use super::*;

    fn pool(count: usize) -> Pool {
        Pool::new((0..count).map(|_| UnixStream::pair().unwrap().0.into())).unwrap()
    }

    #[test]
    fn an_answer_that_comes_late_and_in_parts_is_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(ours.into()).unwrap();
        let keeper = thread::spawn(move || {
            let mut question = Vec::new();
            KeyRequest::Health.send(&mut question).unwrap();
            theirs.read_exact(&mut question).unwrap();
            let mut answer = Vec::new();
            KeyAnswer::Noted.send(&mut answer).unwrap();
            for byte in answer {
                thread::sleep(SOON * 2);
                theirs.write_all(&[byte]).unwrap();
            }
        });
        let answer = channel.ask(&KeyRequest::Health, &Turn::aside()).unwrap();
        assert!(matches!(answer, KeyAnswer::Noted));
        keeper.join().unwrap();
        // Its end is no answer, and is not waited for either.
        assert!(channel.ask(&KeyRequest::Health, &Turn::aside()).is_err());
    }

    #[test]
    fn a_channel_goes_to_whoever_waits_longest() {
        let pool = Arc::new(pool(1));
        let held = pool.take().unwrap();
        let (had, seen) = mpsc::channel();
        let threads: Vec<_> = (0..6)
            .map(|number| {
                let (mine, had) = (Arc::clone(&pool), had.clone());
                let thread = thread::spawn(move || {
                    let channel = mine.take().unwrap();
                    had.send(number).unwrap();
                    mine.give_back(channel);
                });
                while pool.line().waiting.len() <= number {
                    thread::yield_now();
                }
                thread
            })
            .collect();
        pool.give_back(held);
        let order: Vec<_> = seen.iter().take(6).collect();
        assert_eq!(order, [0, 1, 2, 3, 4, 5]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(pool.line().free.len(), 1);
    }

    #[test]
    fn who_left_the_line_takes_no_channel_along_and_leaves_nothing_behind() {
        let pool = pool(1);
        let held = pool.take().unwrap();
        let (place, got) = pool.queue().unwrap_err();
        let (second, late) = pool.queue().unwrap_err();
        assert!(pool.leave((place, &got)).is_none());
        assert_eq!(pool.line().waiting.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [second]);
        // It comes while the one it is given to gives up.
        pool.give_back(held);
        let held = pool.leave((second, &late)).unwrap();
        pool.give_back(held);
        let line = pool.line();
        assert_eq!((line.free.len(), line.waiting.len()), (1, 0));
    }
}
