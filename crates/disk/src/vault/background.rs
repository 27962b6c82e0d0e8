//! The thread behind an open volume: checkpoints when the log is half full, commits when much was
//! set aside, and a confirming record when a volume falls silent.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use super::engine::Engine;

/// How long a volume is silent before its last record is confirmed.
const SILENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Call {
    #[default]
    Nothing,
    Work,
    Stop,
}

/// Wakes the thread.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    call: Mutex<Call>,
    changed: Condvar,
}

impl Wake {
    /// There is work.
    pub(crate) fn now(&self) {
        self.set(Call::Work);
    }

    fn set(&self, call: Call) {
        let mut now = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != Call::Stop && *now != call {
            *now = call;
            self.changed.notify_one();
        }
    }

    /// What was called for; `Nothing` after a silence.
    fn wait(&self) -> Call {
        let mut now = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == Call::Nothing {
            let waited = self.changed.wait_timeout(now, SILENCE);
            now = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let call = *now;
        if call == Call::Work {
            *now = Call::Nothing;
        }
        call
    }
}

/// The running thread; stopped and joined on drop.
#[derive(Debug)]
pub(crate) struct Background {
    engine: Arc<Engine>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the thread of a volume that is open for writing.
    pub(crate) fn start(engine: &Arc<Engine>) -> std::io::Result<Self> {
        let worker = Arc::clone(engine);
        let thread =
            std::thread::Builder::new().name("vault".to_owned()).spawn(move || work(&worker))?;
        Ok(Self { engine: Arc::clone(engine), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.engine.wake.set(Call::Stop);
        if let Some(thread) = self.thread.take() {
            // It panicked if this fails, and said so.
            let _ = thread.join();
        }
    }
}

fn work(engine: &Engine) {
    let mut seen = 0;
    loop {
        let call = engine.wake.wait();
        if call == Call::Stop {
            return;
        }
        let Ok(shape) = engine.enter_to_write() else { continue };
        if shape.ring.tired() {
            drop(shape);
            if let Err(error) = engine.renew_session() {
                tracing::warn!(%error, "no new session could be begun");
            }
            continue;
        }
        let (commit, checkpoint) = engine.wants_relief();
        let (number, half_full) = {
            let committer = engine.committer();
            let log = u64::from(committer.header.log_slots);
            (committer.number, committer.position > log / 2)
        };
        let done = if engine.failed() {
            Ok(())
        } else if half_full || checkpoint {
            engine.relieve_now(&shape, true)
        } else if commit {
            engine.commit(&shape)
        } else if call == Call::Nothing && number == seen {
            engine.confirm(&shape)
        } else {
            Ok(())
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the volume could not be tidied in the background");
        }
        seen = number;
    }
}
