//! The control socket of `volume serve`: exchanges keys of the vault volume while it is used, all
//! data in the background ([`Rekeying`]).
//!
//! Deliberately absent: anything that shows or lists keys.

use std::{os::unix::net::UnixListener, path::Path, sync::Arc};

use anyhow::Context as _;
use disk::{
    Volume as _,
    nbd::{PeerPolicy, UnixSocket, bind},
    vault::{NewSlot, Rekeying, VaultVolume},
};
use model::child::FrameError;
use serve::{control, exit::chain, shutdown::Shutdown};

use super::{Reply, Request};
use crate::{
    commands::volume::{failure, keys::Fresh},
    output::Failure,
};

/// The control socket, bound and not yet served.
#[derive(Debug)]
pub(in crate::commands::volume) struct Control {
    work: Arc<Rekeying>,
    socket: UnixSocket,
}

/// Stops a re-keying where it is, so that the volume can be closed, and removes the socket.
#[derive(Debug)]
pub(in crate::commands::volume) struct Running(Arc<Rekeying>, std::path::PathBuf);

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
        Ok(Self { work: Rekeying::new(volume), socket })
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
        self.0.stop();
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
            Request::Rekey { data, keep, new } => new
                .fresh()
                .and_then(|new| if data { self.begin(new) } else { self.exchange(&new, keep) }),
            Request::State {} => {
                let progress = self.work.progress();
                Ok(Reply::State {
                    ended: !progress.running,
                    done: progress.done,
                    total: progress.total,
                    failed: progress.failed.map(|error| failure::said(&error).into()),
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

impl Control {
    /// Exchanges the key slot that opens the volume, or adds one: the same time for any size.
    fn exchange(&self, new: &Fresh, keep: bool) -> Result<Reply, Failure> {
        if self.work.progress().running {
            let hint = "wait for its end; the new key opens the volume then";
            return Err(Failure::error("all data are being re-keyed", hint));
        }
        let volume = self.work.volume();
        let kmi = volume.kmi().filter(|_| !keep);
        let fresh = NewSlot { secret: new.slot_secret(), kmi, label: "" };
        let slot = if keep {
            volume.add_key_slot(&fresh).map_err(failure::of)?
        } else {
            let slot = volume.key_slot();
            volume.replace_key_slot(slot, &fresh).map_err(failure::of)?;
            slot
        };
        tracing::info!(slot, kept = keep, "a key slot was exchanged");
        Ok(Reply::Exchanged { slot })
    }

    /// Begins to seal all data anew, or goes on with it; a second call only watches.
    fn begin(&self, new: Fresh) -> Result<Reply, Failure> {
        let resumed = self.work.begin(move |volume, steps| {
            let slot = NewSlot { secret: new.slot_secret(), kmi: volume.kmi(), label: "" };
            volume.rekey(&[slot], steps)
        })?;
        Ok(Reply::Started { resumed })
    }
}
