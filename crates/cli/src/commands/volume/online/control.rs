//! The control socket of `volume serve`: exchanges keys of the vault volume while it is used.
//!
//! ```text
//!   idle ─rekey, data─► running (a thread) ─► idle, or failed: told to whoever asks
//! ```
//!
//! **Invariant:** one re-keying at a time. Stopped with the process it goes on at the next call.
//! Deliberately absent: anything that shows or lists keys.

use std::{
    ops::ControlFlow,
    os::unix::net::UnixListener,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::Context as _;
use disk::{
    Volume as _,
    nbd::{PeerPolicy, UnixSocket, bind},
    vault::{NewSlot, VaultVolume},
};
use model::child::FrameError;
use serve::{control, exit::chain, shutdown::Shutdown};

use super::{Reply, Request, Told};
use crate::{
    commands::volume::{failure, keys::Fresh},
    output::Failure,
};

/// What is known of a re-keying.
#[derive(Debug, Default)]
struct State {
    running: bool,
    /// The process ends: stop where it is.
    stopping: bool,
    done: u64,
    total: u64,
    failed: Option<Told>,
    /// The key slot that opens the volume.
    slot: usize,
}

#[derive(Debug)]
struct Work {
    volume: Arc<VaultVolume>,
    state: Mutex<State>,
}

/// The control socket, bound and not yet served.
#[derive(Debug)]
pub(in crate::commands::volume) struct Control {
    work: Arc<Work>,
    socket: UnixSocket,
}

/// Stops a re-keying where it is, so that the volume can be closed, and removes the socket.
#[derive(Debug)]
pub(in crate::commands::volume) struct Running(Arc<Work>, std::path::PathBuf);

impl Control {
    /// Binds `path`; only processes of our own user may connect.
    ///
    /// # Errors
    /// The system's.
    pub(in crate::commands::volume) fn bind(
        path: &Path,
        volume: Arc<VaultVolume>,
    ) -> Result<Self, Failure> {
        let socket = bind(path, &PeerPolicy::default())
            .with_context(|| format!("the control socket {}", path.display()))?;
        let state = State { slot: volume.key_slot(), ..State::default() };
        Ok(Self { work: Arc::new(Work { volume, state: Mutex::new(state) }), socket })
    }

    /// Answers until the process ends.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(in crate::commands::volume) fn start(self, stop: &Shutdown) -> Result<Running, Failure> {
        let running = Running(Arc::clone(&self.work), self.socket.path().to_owned());
        control::start(self, stop.clone())?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state().stopping = true;
        // The thread that has the socket ends with the process.
        let _ = std::fs::remove_file(&self.1);
    }
}

impl control::Service for Control {
    type Request = Request;
    type Reply = Reply;

    fn listener(&self) -> &UnixListener {
        &self.socket.listener
    }

    fn answer(&self, request: Request) -> Reply {
        let done = match request {
            Request::Rekey { data, keep, new } => new.fresh().and_then(|new| {
                if data { self.work.begin(new) } else { self.work.exchange(&new, keep) }
            }),
            Request::State {} => {
                let state = self.work.state();
                Ok(Reply::State {
                    ended: !state.running,
                    done: state.done,
                    total: state.total,
                    failed: state.failed.clone(),
                })
            }
        };
        done.unwrap_or_else(|failure| Reply::Failed(failure.into()))
    }

    fn malformed(&self, error: &FrameError) -> Reply {
        Reply::Failed(Failure::error(chain(error), "are both of one version?").into())
    }

    fn ends(_: &Request) -> bool {
        false
    }
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges the key slot that opens the volume, or adds one: the same time for any size.
    fn exchange(&self, new: &Fresh, keep: bool) -> Result<Reply, Failure> {
        let state = self.state();
        if state.running {
            let hint = "wait for its end; the new key opens the volume then";
            return Err(Failure::error("all data are being re-keyed", hint));
        }
        let kmi = self.volume.kmi().filter(|_| !keep);
        let fresh = NewSlot { secret: new.slot_secret(), kmi, label: "" };
        let slot = if keep {
            self.volume.add_key_slot(&fresh).map_err(failure::of)?
        } else {
            self.volume.replace_key_slot(state.slot, &fresh).map_err(failure::of)?;
            state.slot
        };
        tracing::info!(slot, kept = keep, "a key slot was exchanged");
        Ok(Reply::Exchanged { slot })
    }

    /// Begins to seal all data anew, or goes on with it; a second call only watches.
    fn begin(self: &Arc<Self>, new: Fresh) -> Result<Reply, Failure> {
        let mut state = self.state();
        let resumed = state.running || self.volume.rekeying();
        if !state.running {
            let work = Arc::clone(self);
            thread::Builder::new()
                .name("re-keying".to_owned())
                .spawn(move || work.rekey(&new, resumed))?;
            *state = State { running: true, slot: state.slot, ..State::default() };
        }
        Ok(Reply::Started { resumed })
    }

    fn rekey(&self, new: &Fresh, resumed: bool) {
        let kmi = self.volume.kmi();
        let slots = [NewSlot { secret: new.slot_secret(), kmi, label: "" }];
        let done = self.volume.rekey(&slots, &mut |done, total| {
            let mut state = self.state();
            (state.done, state.total) = (done, total);
            if !resumed {
                // From the first step on there is one key slot, the new one.
                state.slot = 0;
            }
            if state.stopping { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match &done {
            Ok(()) => tracing::info!("all data are under a new key"),
            Err(error) => tracing::warn!(error = chain(error), "re-keying has stopped"),
        }
        let mut state = self.state();
        state.running = false;
        state.failed = done.err().map(|error| failure::of(error).into());
    }
}
