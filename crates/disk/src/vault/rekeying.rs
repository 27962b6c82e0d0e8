//! A re-keying in a thread of its own, while the volume is served.
//!
//! ```text
//!   idle ─begin─► running ─► idle, or failed: told to whoever asks
//!                    └─stop─► idle; the next begin goes on, also in another process
//! ```
//!
//! **Invariant:** one at a time. Deliberately absent: what the new keys are; whoever begins says so.

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use super::volume::VaultVolume;
use crate::VolumeError;

/// How far a re-keying is.
#[derive(Clone, Debug, Default)]
pub struct RekeyProgress {
    /// It goes on.
    pub running: bool,
    /// Pages that are done.
    pub done: u64,
    /// Pages in all; 0 until the first is done.
    pub total: u64,
    /// Why the last one stopped before its end.
    pub failed: Option<Arc<VolumeError>>,
}

/// What a re-keying tells while it goes on: pages done, pages in all. It stops at a break.
pub type Steps<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

#[derive(Debug, Default)]
struct State {
    progress: RekeyProgress,
    /// The process ends: stop where it is.
    stopping: bool,
    thread: Option<JoinHandle<()>>,
}

/// Re-keys one volume in the background.
#[derive(Debug)]
pub struct Rekeying {
    volume: Arc<VaultVolume>,
    state: Mutex<State>,
}

impl Rekeying {
    /// Of this volume; nothing is begun.
    #[must_use]
    pub fn new(volume: Arc<VaultVolume>) -> Arc<Self> {
        Arc::new(Self { volume, state: Mutex::default() })
    }

    /// The volume.
    #[must_use]
    pub const fn volume(&self) -> &Arc<VaultVolume> {
        &self.volume
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> RekeyProgress {
        self.state().progress.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread do `work`, which calls [`VaultVolume::rekey`], unless one runs or the process
    /// ends. Says whether a re-keying was under way, which has its keys from then.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn begin(
        self: &Arc<Self>,
        work: impl FnOnce(&VaultVolume, Steps<'_>) -> Result<(), VolumeError> + Send + 'static,
    ) -> io::Result<bool> {
        let mut state = self.state();
        let resumed = state.progress.running || self.volume.rekeying();
        if !state.progress.running && !state.stopping {
            let this = Arc::clone(self);
            let thread = thread::Builder::new().name("re-keying".to_owned());
            state.thread = Some(thread.spawn(move || this.run(work))?);
            state.progress = RekeyProgress { running: true, ..RekeyProgress::default() };
        }
        Ok(resumed)
    }

    fn run(&self, work: impl FnOnce(&VaultVolume, Steps<'_>) -> Result<(), VolumeError>) {
        let done = work(&self.volume, &mut |done, total| {
            let mut state = self.state();
            (state.progress.done, state.progress.total) = (done, total);
            if state.stopping { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let mut state = self.state();
        state.progress.running = false;
        match done {
            Ok(()) => tracing::info!("all data are under a new key"),
            Err(VolumeError::Cancelled) if state.stopping => {
                tracing::info!("re-keying stops with the process; it goes on with the next one");
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "re-keying has stopped");
                state.progress.failed = Some(Arc::new(error));
            }
        }
    }

    /// Stops where it is, so that the volume can be closed; returns when it has. Nothing is begun
    /// any more.
    pub fn stop(&self) {
        let thread = {
            let mut state = self.state();
            state.stopping = true;
            state.thread.take()
        };
        if let Some(thread) = thread {
            // It panicked if this fails, and said so.
            let _ = thread.join();
        }
    }
}
