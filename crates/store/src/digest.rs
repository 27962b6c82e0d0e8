//! The digest of a whole state, beside everything else: a thread of its own reads it in slices, each
//! from a view of its own, and rests between them, so that neither writes nor reads wait for it and
//! no old view is held.

use std::{sync::Arc, thread, time::Duration};

use tokio::sync::oneshot;

use crate::{engine::compact::StateDigest, error::StoreError, types::Revision, writer::Shared};

/// The rest between two slices.
const REST: Duration = Duration::from_millis(10);

/// The digest of the state at `revision`.
///
/// # Errors
/// [`StoreError`], also if `revision` was compacted meanwhile or the store was closed.
pub(crate) async fn of(shared: Arc<Shared>, revision: Revision) -> Result<[u8; 32], StoreError> {
    let (answer, digest) = oneshot::channel();
    let run = move || {
        // Whoever asked may have stopped waiting.
        let _ = answer.send(slices(&shared, revision));
    };
    let started = thread::Builder::new().name("store-digest".to_owned()).spawn(run);
    started.map_err(|source| StoreError::Io {
        doing: "start the digest of",
        path: "the store".into(),
        source,
    })?;
    digest.await.map_err(|_| StoreError::Failed)?
}

fn slices(shared: &Shared, revision: Revision) -> Result<[u8; 32], StoreError> {
    let mut digest = StateDigest::new(revision);
    loop {
        if let Some(done) = shared.read(|rows| digest.step(rows))? {
            return Ok(done);
        }
        thread::sleep(REST);
    }
}
