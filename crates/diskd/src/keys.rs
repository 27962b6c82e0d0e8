//! The data key of a vault that is served: exchanged for a fresh one while the guest goes on.
//!
//! ```text
//!   Rekey { epoch + 1 } ─► new key area, same volume key ─► every sector anew ─► old key forgotten
//!   killed anywhere in it ─► the next process goes on by itself
//! ```
//!
//! **Invariant:** the key slot of both epochs is of the one volume key that the process was given, so
//! that the volume opens with it whenever the process ends.

use std::sync::Arc;

use disk::{
    Volume as _, VolumeError,
    vault::{NewSlot, Rekeying, SlotSecret, VaultVolume},
};
use model::{
    Secret,
    child::disk::{self as wire, Reply},
};
use serve::exit::chain;

use crate::control::failed;

/// A vault's keys.
#[derive(Debug)]
pub(crate) struct Keys {
    /// The volume key, which opens the slot of each epoch.
    secret: Arc<Secret<Vec<u8>>>,
    work: Arc<Rekeying>,
}

impl Keys {
    /// Of this volume, which `secret` has opened.
    pub(crate) fn new(volume: Arc<VaultVolume>, secret: Secret<Vec<u8>>) -> Self {
        Self { secret: Arc::new(secret), work: Rekeying::new(volume) }
    }

    pub(crate) fn volume(&self) -> &VaultVolume {
        self.work.volume()
    }

    /// The work in the background, to be stopped before the volume is closed.
    pub(crate) const fn work(&self) -> &Arc<Rekeying> {
        &self.work
    }

    /// Goes on with what an earlier process began.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn resume(&self) -> std::io::Result<()> {
        let volume = self.volume();
        if volume.rekeying() && !volume.read_only() {
            self.begin()?;
            tracing::info!(epoch = volume.epoch(), "re-keying goes on where it was interrupted");
        }
        Ok(())
    }

    /// Answers [`wire::Request::Rekey`].
    pub(crate) fn rekey(&self, epoch: u32) -> Reply {
        let (volume, now) = (self.volume(), self.volume().epoch());
        if volume.read_only() {
            return failed("read-only", "the volume is served for reading".to_owned());
        }
        let begins = now.checked_add(1) == Some(epoch) && !volume.rekeying();
        if !begins && epoch != now {
            let detail = format!("the data key is of epoch {now}, that of {epoch} was asked for");
            return failed("epoch-unfit", detail);
        }
        // One that runs and has not made its epoch yet is the one that is asked for.
        if (begins || volume.rekeying())
            && let Err(error) = self.begin()
        {
            return failed("rekey-failed", chain(&error));
        }
        Reply::Rekeying {}
    }

    fn begin(&self) -> std::io::Result<()> {
        let secret = Arc::clone(&self.secret);
        let begun = self.work.begin(move |volume, steps| {
            let secret = SlotSecret::RandomKey(&secret);
            volume.rekey(&[NewSlot { secret, kmi: volume.kmi(), label: "" }], steps)
        });
        begun.map(drop)
    }

    /// How far it is, as long as something is left to do.
    pub(crate) fn rekeying(&self) -> Option<wire::Rekeying> {
        let (progress, begun) = (self.work.progress(), self.volume().rekeying());
        if !progress.running && progress.failed.is_none() && !begun {
            return None;
        }
        let stopped = progress.failed.as_deref().map(stopped);
        Some(wire::Rekeying { begun, done: progress.done, total: progress.total, stopped })
    }
}

fn stopped(error: &VolumeError) -> wire::Stopped {
    match error.rejection() {
        Some(why) => wire::Stopped { code: Some(why.code().to_owned()), detail: why.to_string() },
        None => wire::Stopped { code: None, detail: chain(error) },
    }
}
