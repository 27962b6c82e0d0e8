//! The task that owns an anchor: it writes a head whenever its pace says so and something changed,
//! and at once for those who wait. All who wait share a head, so that the counter moves at most once
//! a round.

use std::{
    sync::mpsc::{SyncSender, sync_channel},
    time::Duration,
};

use serve::shutdown::Shutdown;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{anchored::Anchored, fault::AnchorFault};

/// Requests that may wait.
const QUEUE: usize = 256;

/// When heads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// What changed is anchored at least so often.
    pub every: Duration,
    /// Between two heads that were asked for lies at least so much: who asks earlier is told that
    /// it will be done then, and not kept waiting. It bounds the wear of the counter.
    pub rest: Duration,
}

/// Whoever wants to know that what is committed now is anchored: `true` once it is, `false` if it
/// will be after the rest.
#[derive(Debug)]
enum Ask {
    Async(oneshot::Sender<bool>),
    Blocking(SyncSender<bool>),
    /// One last head, and no more.
    End,
}

impl Ask {
    fn answer(self, done: bool) {
        // The one who asked may have stopped waiting.
        match self {
            Self::Async(answer) => drop(answer.send(done)),
            Self::Blocking(answer) => drop(answer.try_send(done)),
            Self::End => {}
        }
    }
}

/// Asks the anchor's task.
#[derive(Clone, Debug)]
pub struct AnchorHandle {
    requests: mpsc::Sender<Ask>,
    counter: watch::Receiver<u64>,
}

impl AnchorHandle {
    /// Waits until everything that is committed now is anchored. Only for a pace without rest:
    /// otherwise it may be done later.
    ///
    /// # Errors
    /// [`AnchorFault::Stopped`] if it cannot be.
    pub async fn now(&self) -> Result<(), AnchorFault> {
        let (done, answer) = oneshot::channel();
        self.requests.send(Ask::Async(done)).await.map_err(|_| AnchorFault::Stopped)?;
        answer.await.map(drop).map_err(|_| AnchorFault::Stopped)
    }

    /// Has what is committed now anchored soon, and waits on this thread, so long at most, whether
    /// it is already.
    #[must_use]
    pub fn soon(&self, most: Duration) -> bool {
        let (done, answer) = sync_channel(1);
        if self.requests.try_send(Ask::Blocking(done)).is_err() {
            return false;
        }
        // No answer in time, or none at all: it is not known to be anchored.
        answer.recv_timeout(most).unwrap_or_default()
    }

    /// One last head, and no more after it. The task ends.
    pub fn end(&self) {
        // It may have ended before.
        let _ = self.requests.try_send(Ask::End);
    }

    /// The counter's value.
    #[must_use]
    pub fn counter(&self) -> u64 {
        *self.counter.borrow()
    }
}

impl Anchored {
    /// Starts the task that owns the anchor from now on. A refusal ends the process.
    pub fn spawn(
        self,
        pace: Pace,
        shutdown: Shutdown,
    ) -> (AnchorHandle, JoinHandle<Result<(), AnchorFault>>) {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (tell, counter) = watch::channel(self.counter());
        let task = tokio::spawn(self.run(pace, queue, tell, shutdown));
        (AnchorHandle { requests, counter }, task)
    }

    async fn run(
        mut self,
        pace: Pace,
        mut queue: mpsc::Receiver<Ask>,
        tell: watch::Sender<u64>,
        shutdown: Shutdown,
    ) -> Result<(), AnchorFault> {
        let began = Instant::now();
        let mut due = Due { regular: began + pace.every, rested: began, owed: false };
        loop {
            let asked = tokio::select! {
                asked = queue.recv() => Some(asked.unwrap_or(Ask::End)),
                () = tokio::time::sleep_until(due.at()) => None,
            };
            let regular = asked.is_none();
            let mut waiting: Vec<Ask> = asked.into_iter().collect();
            while let Ok(ask) = queue.try_recv() {
                waiting.push(ask);
            }
            let last = waiting.iter().any(|ask| matches!(ask, Ask::End));
            if !regular && !last && Instant::now() < due.rested {
                due.owed = true;
                waiting.into_iter().for_each(|ask| ask.answer(false));
                continue;
            }
            let done = self.round(&shutdown).await?;
            if done {
                tell.send_replace(self.counter());
            }
            let now = Instant::now();
            if !regular || due.owed {
                due.rested = now + pace.rest;
            }
            // What could not be anchored is tried again after the rest.
            due = Due { regular: now + pace.every, owed: !done && due.rested > now, ..due };
            if done {
                waiting.into_iter().for_each(|ask| ask.answer(true));
            }
            if last {
                return Ok(());
            }
        }
    }

    /// One head; whether it is anchored.
    async fn round(&mut self, shutdown: &Shutdown) -> Result<bool, AnchorFault> {
        match self.advance().await {
            Ok(()) => Ok(true),
            Err(fault) if fault.refusal().is_some() => {
                shutdown.trigger();
                if matches!(fault, AnchorFault::Anchor(_)) {
                    self.disown();
                }
                Err(fault)
            }
            Err(fault) => {
                tracing::error!(error = serve::exit::chain(&fault), "cannot anchor the store");
                Ok(false)
            }
        }
    }
}

/// When the next head is due without anyone asking.
#[derive(Clone, Copy, Debug)]
struct Due {
    regular: Instant,
    /// From then on one may be asked for.
    rested: Instant,
    /// Somebody asked too early.
    owed: bool,
}

impl Due {
    fn at(&self) -> Instant {
        if self.owed { self.regular.min(self.rested) } else { self.regular }
    }
}
