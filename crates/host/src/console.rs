//! A VM's console: QEMU keeps what the serial port says in a ring in its memory; whoever reads takes
//! it out, so what was taken is kept here, bounded. Nothing of it touches a disk.

use std::sync::{Mutex, PoisonError};

use crate::{
    plan::CONSOLE_RING,
    qmp::{Qmp, QmpError},
};

/// The most that is kept of a VM's console.
const KEPT: usize = 1 << 20;

/// The console of one VM.
#[derive(Debug, Default)]
pub(crate) struct Console {
    text: Mutex<Vec<u8>>,
    qemu: Mutex<Option<Qmp>>,
    reading: tokio::sync::Mutex<()>,
}

impl Console {
    /// A QEMU to read from; its predecessor's text is dropped if it is a new launch.
    pub(crate) fn attach(&self, qmp: Qmp, new_launch: bool) {
        if new_launch {
            self.text.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        *self.qemu.lock().unwrap_or_else(PoisonError::into_inner) = Some(qmp);
    }

    /// QEMU is gone; its text stays.
    pub(crate) fn detach(&self) {
        *self.qemu.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes what QEMU has.
    ///
    /// # Errors
    /// [`QmpError`] if QEMU does not answer; what was taken earlier is still there.
    pub(crate) async fn take(&self) -> Result<(), QmpError> {
        let Some(qmp) = self.qemu.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(());
        };
        // Two readers would mix up the order.
        let _one = self.reading.lock().await;
        let new = qmp.take_ring("console", CONSOLE_RING).await?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(&new);
        let surplus = text.len().saturating_sub(KEPT);
        text.drain(..surplus);
        Ok(())
    }

    /// What was taken so far.
    pub(crate) fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether what was taken holds this.
    pub(crate) fn holds(&self, words: &[u8]) -> bool {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.windows(words.len()).any(|window| window == words)
    }
}
