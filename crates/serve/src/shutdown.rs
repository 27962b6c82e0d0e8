//! The wish to end, known to all parts of a process at once.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// A shared flag that is raised once: by SIGTERM, SIGINT or [`Shutdown::trigger`].
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A flag that only [`Shutdown::trigger`] raises.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// A flag that SIGTERM and SIGINT raise. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the signals cannot be caught.
    pub fn on_signals() -> io::Result<Self> {
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let flag = Self::new();
        let raised = flag.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            tracing::info!("asked to end");
            raised.trigger();
        });
        Ok(flag)
    }

    /// Raises the flag.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether the flag is raised.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the flag is raised. Long polls select on it, so that they do not hold up the
    /// drain.
    pub async fn requested(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|raised| *raised).await;
    }
}
