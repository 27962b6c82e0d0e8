//! One ring, one thread: takes requests, asks the volume, gives them back.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::{
    Fault,
    execute::{CHUNK, Done, Trouble},
    inflight::Marks,
    request::Request,
    ring::{Ring, Segment},
};
use crate::{
    Volume,
    gather::Gather,
    nbd::{Counters, add},
};

/// The driver is interrupted after so many requests at the latest.
const TELL_REQUESTS: u32 = 16;
/// Faults that are logged a queue; a guest must not fill the log.
const FAULTS_LOGGED: u32 = 8;

const STATUS_OK: u8 = 0;
const STATUS_ERROR: u8 = 1;
const STATUS_UNSUPPORTED: u8 = 2;

/// What a worker serves.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) queue: u32,
    pub(super) ring: Ring,
    pub(super) marks: Option<Marks>,
    pub(super) kick: File,
    pub(super) call: Arc<Mutex<Option<File>>>,
    pub(super) volume: Arc<dyn Volume>,
    pub(super) counters: Arc<Counters>,
    /// The driver knows no flush: every write must be durable when it is given back.
    pub(super) write_through: bool,
}

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    /// Wakes the worker from its wait.
    stop: File,
    /// Tells it without a system call while it works.
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<u16>>,
}

impl Worker {
    pub(super) fn start(job: Job) -> io::Result<Self> {
        let stop = File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stopping = Arc::new(AtomicBool::new(false));
        let work = Work {
            job,
            stopped: stop.try_clone()?,
            stopping: Arc::clone(&stopping),
            buf: vec![0; CHUNK],
            segments: Vec::new(),
            faults: 0,
            untold: 0,
        };
        let thread =
            thread::Builder::new().name("vhost-queue".to_owned()).spawn(move || work.run())?;
        Ok(Self { stop, stopping, thread: Some(thread) })
    }

    /// Ends the worker after the request at hand; the next available entry.
    pub(super) fn stop(mut self) -> u16 {
        self.end()
    }

    fn end(&mut self) -> u16 {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.stop.write(&1_u64.to_ne_bytes());
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// A worker from inside.
pub(super) struct Work {
    pub(super) job: Job,
    stopped: File,
    stopping: Arc<AtomicBool>,
    pub(super) buf: Vec<u8>,
    segments: Vec<Segment>,
    faults: u32,
    untold: u32,
}

impl Work {
    fn run(mut self) -> u16 {
        let mut gather = Gather::here();
        let mut broken = self.take_over().err();
        while broken.is_none() {
            match self.round(&mut gather) {
                Ok(true) => {}
                Ok(false) => return self.job.ring.next_available,
                Err(fault) => broken = Some(fault),
            }
        }
        if let Some(fault) = broken {
            tracing::warn!(
                queue = self.job.queue,
                fault = fault.code(),
                detail = %fault,
                "the queue is stopped: its ring is broken"
            );
            add(&self.job.counters.errors, 1);
        }
        self.job.ring.next_available
    }

    /// Does again what an earlier process had taken.
    fn take_over(&mut self) -> Result<(), Fault> {
        let used = self.job.ring.next_used();
        let heads = match &mut self.job.marks {
            Some(marks) => marks.take_over(used),
            None => Vec::new(),
        };
        if !heads.is_empty() {
            tracing::info!(queue = self.job.queue, requests = heads.len(), "taken up again");
        }
        for head in heads {
            // They were taken, so the available entries behind them are next.
            self.job.ring.taken();
            self.serve(head)?;
        }
        self.tell()
    }

    /// Serves what waits, then waits for more; false when it is to end.
    fn round(&mut self, gather: &mut Gather) -> Result<bool, Fault> {
        self.job.ring.no_kicks()?;
        loop {
            let mut waiting = self.job.ring.waiting()?;
            if waiting == 0 {
                // Meanwhile the driver need not kick.
                gather.pause();
                waiting = self.job.ring.waiting()?;
            }
            for _ in 0..waiting {
                let head = self.job.ring.head()?;
                if let Some(marks) = &mut self.job.marks {
                    marks.taken(head);
                }
                self.job.ring.taken();
                self.serve(head)?;
                gather.served();
                if self.untold >= TELL_REQUESTS {
                    self.tell()?;
                }
            }
            self.tell()?;
            if waiting == 0 && !self.job.ring.ask_for_kick()? {
                break;
            }
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
        Ok(self.wait())
    }

    /// Waits for a kick; false when it is to end.
    fn wait(&mut self) -> bool {
        loop {
            let mut ready = [
                PollFd::new(&self.stopped, PollFlags::IN),
                PollFd::new(&self.job.kick, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return false,
            }
            let [stop, kick] = &ready;
            if !stop.revents().is_empty() {
                return false;
            }
            if kick.revents().contains(PollFlags::IN) {
                let _ = (&self.job.kick).read(&mut [0; 8]);
                return true;
            }
            if !kick.revents().is_empty() {
                // The other end is gone; nothing will come any more.
                return false;
            }
        }
    }

    /// Interrupts the driver if it wants to be.
    fn tell(&mut self) -> Result<(), Fault> {
        self.untold = 0;
        if self.job.ring.wants_interrupt()? {
            let call = self.job.call.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(mut call) = call.as_ref() {
                // A full counter means that an interrupt is pending anyway.
                let _ = call.write(&1_u64.to_ne_bytes());
            }
        }
        Ok(())
    }

    /// Runs the request at `head` and gives it back. The error is the ring's.
    fn serve(&mut self, head: u16) -> Result<(), Fault> {
        let mut segments = std::mem::take(&mut self.segments);
        let written = match self.answer(head, &mut segments) {
            Ok(written) => written,
            Err(fault) => {
                self.note(fault);
                0
            }
        };
        self.segments = segments;
        if let Some(marks) = &self.job.marks {
            marks.giving_back(head);
        }
        self.job.ring.give_back(head, written)?;
        if let Some(marks) = &self.job.marks {
            marks.given_back(head, self.job.ring.next_used());
        }
        self.untold = self.untold.saturating_add(1);
        Ok(())
    }

    fn note(&mut self, fault: Fault) {
        add(&self.job.counters.errors, 1);
        self.faults = self.faults.saturating_add(1);
        if self.faults <= FAULTS_LOGGED {
            let queue = self.job.queue;
            tracing::warn!(queue, fault = fault.code(), detail = %fault, "a malformed request");
        }
    }

    /// Bytes that were written to the guest's memory.
    fn answer(&mut self, head: u16, segments: &mut Vec<Segment>) -> Result<u32, Fault> {
        self.job.ring.chain(head, segments)?;
        let request = Request::read(self.job.ring.memory(), segments)?;
        let done = self.execute(&request, segments);
        let (status, data) = match done {
            Ok(Done::Bytes(bytes)) => (STATUS_OK, bytes),
            Ok(Done::Unsupported) => (STATUS_UNSUPPORTED, 0),
            Err(Trouble::Fault(fault)) => {
                self.note(fault);
                (STATUS_ERROR, 0)
            }
            Err(Trouble::Io(error)) => {
                self.job.counters.failed(request.sector.saturating_mul(512), &error);
                self.faults = self.faults.saturating_add(1);
                if self.faults <= FAULTS_LOGGED {
                    let kind = format!("{:?}", request.kind);
                    tracing::warn!(kind, sector = request.sector, error = %error, "request failed");
                }
                (STATUS_ERROR, 0)
            }
        };
        self.job.ring.memory().write(request.status_at, &[status])?;
        Ok(data.saturating_add(1))
    }
}
