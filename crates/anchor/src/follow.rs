//! What a service holds of its anchor: where it is to be, and, once the store is open, who follows it.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serve::shutdown::Shutdown;
use tokio::task::JoinHandle;

use crate::{
    fault::AnchorFault,
    settings::{AnchorSettings, Bound},
    task::{AnchorHandle, Pace},
};

/// How long an order waits at most for its anchor.
const MOST: Duration = Duration::from_secs(2);

/// Where a store is anchored, and how often.
#[derive(Clone, Debug)]
pub struct Anchoring {
    /// Where.
    pub bound: Bound,
    /// When.
    pub pace: Pace,
    /// Where a copy of each head is left.
    pub witness: Option<PathBuf>,
    /// Is triggered when the store turns out to be a second copy.
    pub shutdown: Shutdown,
}

impl Anchoring {
    /// Nowhere: an older copy is not noticed.
    #[must_use]
    pub fn none() -> Self {
        AnchorSettings::default().anchoring(Bound::None, &Shutdown::new())
    }
}

impl AnchorSettings {
    /// As it is set, at `bound`.
    #[must_use]
    pub fn anchoring(&self, bound: Bound, shutdown: &Shutdown) -> Anchoring {
        let (pace, witness) = (self.pace(), self.witness.clone());
        Anchoring { bound, pace, witness, shutdown: shutdown.clone() }
    }
}

/// The anchor of a store that is open; none if it was said that there is none.
#[derive(Debug)]
pub struct Following(Option<Followed>);

#[derive(Debug)]
struct Followed {
    handle: AnchorHandle,
    task: Mutex<Option<JoinHandle<Result<(), AnchorFault>>>>,
}

impl Following {
    /// Nobody follows.
    pub(crate) const fn nobody() -> Self {
        Self(None)
    }

    pub(crate) fn new((handle, task): (AnchorHandle, JoinHandle<Result<(), AnchorFault>>)) -> Self {
        Self(Some(Followed { handle, task: Mutex::new(Some(task)) }))
    }

    /// Has what was just committed anchored: now, or at the end of the rest since the last one.
    /// Blocks this thread, which must not be the runtime's, for two seconds at most.
    pub fn soon(&self) {
        let Some(Followed { handle, .. }) = &self.0 else { return };
        if !handle.soon(MOST) {
            tracing::info!("what was just done is anchored a little later");
        }
    }

    /// The same, without waiting: for callers on the runtime.
    pub fn later(&self) {
        if let Some(Followed { handle, .. }) = &self.0 {
            let _ = handle.soon(Duration::ZERO);
        }
    }

    /// Has everything that is committed anchored before history is forgotten: whether it is.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.0.as_ref().is_none_or(|followed| followed.handle.soon(MOST))
    }

    /// A last head, and no more.
    ///
    /// # Errors
    /// [`AnchorFault`]: why the anchor ended before, if it did.
    pub async fn end(&self) -> Result<(), AnchorFault> {
        let Some(Followed { handle, task }) = &self.0 else { return Ok(()) };
        let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
        handle.end();
        match task {
            Some(task) => task.await.unwrap_or(Err(AnchorFault::Stopped)),
            None => Ok(()),
        }
    }
}
