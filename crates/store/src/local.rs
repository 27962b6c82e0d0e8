//! The back ends of one process: in memory, or in one file.

use std::{path::Path, sync::Arc};

use aws_lc_rs::rand;
use model::Digest;

use crate::{
    backend::{BoxFuture, State, Store, StoreId, Watch},
    digest,
    engine::{
        compact, lease,
        read::{self, Follow},
        record::Meta,
        rows::Backing,
        scrub, txn,
    },
    error::{StoreError, WatchError},
    file::FileBacking,
    key::{Key, Prefix},
    memory::MemoryBacking,
    types::{Batch, KeyValue, Lease, LeaseId, Range, RangeReply, Revision, Txn, TxnReply},
    writer::{Shared, Tick, Writer},
};

/// A store of one process. Reads run in the caller's task on a snapshot of the last commit; writes
/// go through one writer thread with group commit.
#[derive(Debug)]
pub struct LocalStore {
    writer: Writer,
}

impl LocalStore {
    /// A new, empty store in memory.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system gives no thread or no random bytes.
    pub fn memory() -> Result<Self, StoreError> {
        Self::start(Arc::new(MemoryBacking::default()))
    }

    /// Opens the store in the file at `path`, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, [`StoreError::Format`] if it was
    /// written by another version, else [`StoreError::Io`], `Database` or `Corrupt`.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::start(Arc::new(FileBacking::open(path)?))
    }

    /// A store on other storage than a file, to simulate power cuts.
    #[cfg(test)]
    pub(crate) fn on_backend(backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        Self::start(Arc::new(FileBacking::on(backend)?))
    }

    fn start(backing: Arc<dyn Backing>) -> Result<Self, StoreError> {
        backing.write(&mut |rows| match Meta::find(rows)? {
            Some(_) => Ok(()),
            None => Meta::genesis(random_id()?).save(rows),
        })?;
        Ok(Self { writer: Writer::start(backing)? })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.writer.shared
    }
}

fn random_id() -> Result<StoreId, StoreError> {
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| StoreError::Io {
        doing: "take random bytes for",
        path: "a new store".into(),
        source: std::io::ErrorKind::Other.into(),
    })?;
    Ok(StoreId(id))
}

impl Store for LocalStore {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<KeyValue>, StoreError>> {
        Box::pin(async move { self.shared().read(|rows| read::current(rows, key)) })
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeReply, StoreError>> {
        Box::pin(async move { self.shared().read(|rows| read::range(rows, &range)) })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnReply, StoreError>> {
        Box::pin(async move {
            txn.check()?;
            self.writer.submit(txn.bytes(), move |rows| txn::apply(rows, &txn)).await
        })
    }

    fn watch(
        &self,
        prefix: Prefix,
        from: Revision,
    ) -> BoxFuture<'_, Result<Box<dyn Watch>, WatchError>> {
        Box::pin(async move {
            let mut watch = LocalWatch {
                ticks: self.shared().subscribe(),
                shared: Arc::clone(self.shared()),
                prefix,
                next: from.max(1),
                ready: Vec::new(),
            };
            watch.fill()?;
            Ok(Box::new(watch) as Box<dyn Watch>)
        })
    }

    fn lease_grant(&self, ttl_ms: u64, now: u64) -> BoxFuture<'_, Result<Lease, StoreError>> {
        Box::pin(self.writer.submit(0, move |rows| lease::grant(rows, ttl_ms, now)))
    }

    fn lease_keepalive(&self, id: LeaseId, now: u64) -> BoxFuture<'_, Result<Lease, StoreError>> {
        Box::pin(self.writer.submit(0, move |rows| lease::keepalive(rows, id, now)))
    }

    fn lease_revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(self.writer.submit(0, move |rows| lease::revoke(rows, id)))
    }

    fn lease_expire(&self, now: u64) -> BoxFuture<'_, Result<Vec<LeaseId>, StoreError>> {
        Box::pin(self.writer.submit(0, move |rows| lease::expire(rows, now)))
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            let state = digest::of(Arc::clone(self.shared()), revision).await?;
            self.writer.submit(0, move |rows| compact::compact(rows, revision, state)).await
        })
    }

    fn state(&self) -> BoxFuture<'_, Result<State, StoreError>> {
        Box::pin(async move {
            self.shared().check_alive()?;
            self.shared().read(|rows| Ok(Meta::load(rows)?.state()))
        })
    }

    fn commit_at(&self, revision: Revision) -> BoxFuture<'_, Result<Option<Digest>, StoreError>> {
        Box::pin(async move {
            let commit = self.shared().read(|rows| read::commit_at(rows, revision))?;
            Ok(commit.map(Digest::sha256))
        })
    }

    fn scrub(&self) -> BoxFuture<'_, Result<State, StoreError>> {
        Box::pin(async move { self.shared().read(scrub::scrub) })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.writer.close().await;
            Ok(())
        })
    }
}

/// A watch that reads the commits from the store itself, so that it needs no buffer that could
/// overflow: it is woken by a commit and reads on from where it was.
#[derive(Debug)]
struct LocalWatch {
    shared: Arc<Shared>,
    ticks: tokio::sync::watch::Receiver<Tick>,
    prefix: Prefix,
    next: Revision,
    /// Batches that were read and not yet handed out, last first.
    ready: Vec<Batch>,
}

impl LocalWatch {
    /// Reads on; afterwards `ready` is empty only if there is nothing more at this tick.
    fn fill(&mut self) -> Result<(), WatchError> {
        while self.ready.is_empty() {
            let before = self.next;
            match self.shared.read(|rows| read::follow(rows, &self.prefix, self.next))? {
                Follow::Batches { mut batches, next } => {
                    batches.reverse();
                    self.ready = batches;
                    self.next = next;
                }
                Follow::Compacted { compacted } => {
                    return Err(WatchError::Compacted { next: self.next, compacted });
                }
            }
            if self.next == before {
                break;
            }
        }
        Ok(())
    }
}

impl Watch for LocalWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, WatchError>> {
        Box::pin(async move {
            loop {
                if let Some(batch) = self.ready.pop() {
                    return Ok(batch);
                }
                let tick = *self.ticks.borrow_and_update();
                if tick.closed {
                    return Err(StoreError::Closed.into());
                }
                if tick.revision >= self.next {
                    self.fill()?;
                    continue;
                }
                self.ticks.changed().await.map_err(|_| StoreError::Closed)?;
            }
        })
    }
}
