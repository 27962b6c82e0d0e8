//! The one writer of a local store. Callers queue jobs; the writer thread takes all that are
//! waiting, runs them in order in one transaction of the backing, syncs once, and only then
//! answers each.
//!
//! **Invariant:** a job is answered `Ok` only after the batch that holds it is durable. A refused
//! job wrote nothing and does not disturb its batch. Any other failure drops the whole batch and
//! stops the writer for good: what a failed sync left behind is known only after opening again.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    engine::{
        record::Meta,
        rows::{Backing, Rows, RowsMut},
    },
    error::{RequestRejection, StoreError},
    types::Revision,
};

/// Most jobs in one batch.
const BATCH_JOBS: usize = 512;
/// A batch takes no more jobs after this many bytes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Jobs that may wait; further callers wait to queue.
const QUEUE: usize = 2048;

/// What watchers are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick {
    pub(crate) revision: Revision,
    pub(crate) closed: bool,
}

/// What the writer, the readers and the watches share.
#[derive(Debug)]
pub(crate) struct Shared {
    backing: RwLock<Option<Arc<dyn Backing>>>,
    failed: AtomicBool,
    tick: watch::Sender<Tick>,
}

impl Shared {
    /// Reads from a consistent view of the last commit.
    pub(crate) fn read<T>(
        &self,
        f: impl FnOnce(&dyn Rows) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let backing = self.backing.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut f, mut out) = (Some(f), None);
        backing.ok_or(StoreError::Closed)?.read(&mut |rows| {
            out = f.take().map(|f| f(rows)).transpose()?;
            Ok(())
        })?;
        out.ok_or(StoreError::Closed)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Tick> {
        self.tick.subscribe()
    }

    pub(crate) fn check_alive(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) { Err(StoreError::Failed) } else { Ok(()) }
    }

    fn close(&self) {
        self.backing.write().unwrap_or_else(PoisonError::into_inner).take();
        self.tick.send_modify(|tick| tick.closed = true);
    }
}

/// A job with its way back.
trait Job: Send {
    fn bytes(&self) -> usize;
    fn run(&mut self, rows: &mut dyn RowsMut) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, durable: bool);
}

struct Pending<T, F> {
    bytes: usize,
    op: Option<F>,
    result: Option<Result<T, RequestRejection>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Pending<T, F>
where
    T: Send,
    F: FnOnce(&mut dyn RowsMut) -> Result<T, StoreError> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, rows: &mut dyn RowsMut) -> Result<(), StoreError> {
        let op = self.op.take().ok_or(StoreError::Failed)?;
        self.result = match op(rows) {
            Ok(value) => Some(Ok(value)),
            Err(StoreError::Rejected(rejection)) => Some(Err(rejection)),
            Err(error) => return Err(error),
        };
        Ok(())
    }

    fn answer(self: Box<Self>, durable: bool) {
        let result = match self.result {
            Some(result) if durable => result.map_err(StoreError::Rejected),
            Some(_) | None => Err(StoreError::Failed),
        };
        // A caller that stopped waiting has no use for the answer.
        let _ = self.reply.send(result);
    }
}

type Queue = mpsc::Sender<Box<dyn Job>>;

/// The callers' side of the writer.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    queue: Mutex<Option<Queue>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: tokio::sync::Mutex<oneshot::Receiver<()>>,
}

impl Writer {
    /// Starts the writer of `backing`, which has its meta row.
    pub(crate) fn start(backing: Arc<dyn Backing>) -> Result<Self, StoreError> {
        let mut revision = 0;
        backing.read(&mut |rows| {
            revision = Meta::load(rows)?.revision;
            Ok(())
        })?;
        let (tick, _) = watch::channel(Tick { revision, closed: false });
        let shared = Arc::new(Shared {
            backing: RwLock::new(Some(Arc::clone(&backing))),
            failed: AtomicBool::new(false),
            tick,
        });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (end, ended) = oneshot::channel();
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            drain(&*backing, &for_thread, jobs);
            drop(backing);
            let _ = end.send(());
        });
        let thread = thread.map_err(|source| StoreError::Io {
            doing: "start the writer of",
            path: "the store".into(),
            source,
        })?;
        Ok(Self {
            shared,
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
            ended: tokio::sync::Mutex::new(ended),
        })
    }

    /// Queues a job and waits until it is durable or refused.
    pub(crate) async fn submit<T: Send + 'static>(
        &self,
        bytes: usize,
        op: impl FnOnce(&mut dyn RowsMut) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.check_alive()?;
        let queue = lock(&self.queue).clone().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job = Pending { bytes, op: Some(op), result: None, reply };
        queue.send(Box::new(job)).await.map_err(|_| StoreError::Closed)?;
        drop(queue);
        answer.await.map_err(|_| StoreError::Failed)?
    }

    /// Answers what is queued, then lets go of the backing.
    pub(crate) async fn close(&self) {
        lock(&self.queue).take();
        // An error only says that it has ended before.
        let _ = (&mut *self.ended.lock().await).await;
        self.shared.close();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.queue).take();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
        self.shared.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn drain(backing: &dyn Backing, shared: &Shared, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_JOBS && bytes < BATCH_BYTES {
            let Ok(job) = jobs.try_recv() else { break };
            bytes = bytes.saturating_add(job.bytes());
            batch.push(job);
        }
        let committed = commit(backing, &mut batch);
        match committed {
            Ok(revision) => shared.tick.send_modify(|tick| tick.revision = revision),
            Err(_) => shared.failed.store(true, Ordering::Release),
        }
        let durable = committed_or_log(committed);
        batch.into_iter().for_each(|job| job.answer(durable));
        if !durable {
            return;
        }
    }
}

fn committed_or_log(committed: Result<Revision, StoreError>) -> bool {
    if let Err(error) = &committed {
        tracing::error!(error = error as &dyn std::error::Error, "store.commit-failed");
    }
    committed.is_ok()
}

fn commit(backing: &dyn Backing, batch: &mut [Box<dyn Job>]) -> Result<Revision, StoreError> {
    let mut revision = 0;
    backing.write(&mut |rows| {
        for job in &mut *batch {
            job.run(rows)?;
        }
        revision = Meta::load(rows)?.revision;
        Ok(())
    })?;
    Ok(revision)
}
