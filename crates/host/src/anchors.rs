//! The counters that vault volumes are anchored in: one table for the host, authenticated under the
//! guard's cache key and itself anchored in a counter of the host's TPM.
//!
//! ```text
//!   volume's header (count) <-> entry of the table <-> count of the table <-> TPM counter
//!   every change: the file with count + 1, durable -> increment of the TPM -> done
//!   start: file's count = counter, or one ahead: advanced twice; older: rolled-back
//! ```
//!
//! Both arrows run [`model::anchor::step`], the protocol that is model-checked: here for the table,
//! in [`attached`] for the volumes. One change of the table may move many volumes on: [`clock`]
//! advances all that were written to with one increment.
//!
//! **Invariants:** a count that was given out is in the file and covered by the TPM; a volume that
//! the table does not know is not opened, so an empty table admits nothing old.

mod attached;
pub(crate) mod clock;
pub(crate) mod services;
mod standing;
mod table;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, MutexGuard, PoisonError},
};

use model::{
    Epoch, Secret, VmId,
    anchor::{Action, Event, Rejection, State, record, step},
    api::anchor::AnchorStart,
};
use serve::fsfile;
use tokio::sync::{Mutex, watch};

use self::{
    attached::Attached,
    table::{Count, Table},
};
pub(crate) use self::{
    attached::{Next, Party},
    standing::Standing,
};
use crate::{hosttpm::HostTpm, plan::Volume, trouble::Trouble};

const LIMIT: usize = 4 << 20;

/// The table in memory, attached to the TPM's counter.
#[derive(Debug)]
struct Held {
    table: Table,
    state: State,
}

/// The counters of this host's vault volumes.
#[derive(Debug)]
pub(crate) struct Anchors {
    tpm: HostTpm,
    file: PathBuf,
    held: Mutex<Option<Held>>,
    attached: std::sync::Mutex<Entries>,
    /// Counts the changes of the table that this agent made.
    changed: watch::Sender<u64>,
}

/// The attachments by what the volumes are called in the table.
type Entries = BTreeMap<String, Arc<Mutex<Attached>>>;

/// What a volume is called in the table.
pub(crate) fn name(vm: &VmId, epoch: Epoch, volume: Volume) -> String {
    format!("{vm}/{}/{}", epoch.0, volume.word())
}

impl Anchors {
    /// The table is read when it is first needed.
    pub(crate) fn new(tpm: HostTpm, state_dir: &std::path::Path) -> Self {
        let file = state_dir.join("anchors.json");
        let (attached, changed) = (std::sync::Mutex::default(), watch::Sender::new(0));
        Self { tpm, file, held: Mutex::new(None), attached, changed }
    }

    /// The count of a volume.
    ///
    /// # Errors
    /// Refused as `anchor-missing` if the table does not know it, `rolled-back` or
    /// `anchor-mismatch` if the table is not the TPM's.
    pub(crate) async fn count(&self, key: &Secret<Vec<u8>>, name: &str) -> Result<u64, Trouble> {
        self.known(key, name).await?.ok_or_else(|| missing(name))
    }

    async fn known(&self, key: &Secret<Vec<u8>>, name: &str) -> Result<Option<u64>, Trouble> {
        self.look(key, |table| table.volumes.get(name).copied()).await
    }

    async fn look<T>(
        &self,
        key: &Secret<Vec<u8>>,
        look: impl FnOnce(&Table) -> T,
    ) -> Result<T, Trouble> {
        let mut place = self.held.lock().await;
        let held = self.load(key, place.take()).await?;
        let seen = look(&held.table);
        *place = Some(held);
        Ok(seen)
    }

    /// The count to open a volume with, by the table and by what the grant says of the authority's
    /// record. A volume that was handed over begins at the record's.
    ///
    /// # Errors
    /// As [`Self::count`]; refused as `rolled-back` if the table counts less than the record, too.
    pub(crate) async fn opening(
        &self,
        key: &Secret<Vec<u8>>,
        name: &str,
        told: Option<AnchorStart>,
    ) -> Result<u64, Trouble> {
        let own = self.known(key, name).await?;
        let count = record::begin(told.map(Into::into), own)
            .map_err(|why| set_back(name, why, own))?
            .ok_or_else(|| missing(name))?;
        if own != Some(count) {
            self.begin_again(key, name, count).await?;
        }
        Ok(count)
    }

    /// Sets the count of a volume that was just made.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) async fn begin(
        &self,
        key: &Secret<Vec<u8>>,
        name: &str,
        count: u64,
    ) -> Result<(), Trouble> {
        self.change(key, |table| {
            table.volumes.insert(name.to_owned(), count);
            table.heads.remove(name);
            true
        })
        .await
    }

    /// Has a volume that may be older count on from where it is, or from where its name was, if that
    /// is further: every header that exists counts less than the next one then. Gives that count.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) async fn begin_again(
        &self,
        key: &Secret<Vec<u8>>,
        name: &str,
        header: u64,
    ) -> Result<u64, Trouble> {
        let mut count = header;
        self.change(key, |table| {
            let entry = table.volumes.entry(name.to_owned()).or_default();
            count = header.max(*entry);
            *entry = count;
            table.heads.remove(name);
            true
        })
        .await?;
        Ok(count)
    }

    /// Increments the counts of these volumes, each if it is what is said; says which were. All of
    /// them cost one increment of the TPM.
    ///
    /// # Errors
    /// [`Trouble`]; whether they were incremented is unknown then.
    async fn increment(
        &self,
        key: &Secret<Vec<u8>>,
        volumes: &[Count],
    ) -> Result<Vec<bool>, Trouble> {
        let mut moved = Vec::new();
        self.change(key, |table| {
            moved = volumes.iter().map(|count| table.increment(count)).collect();
            moved.contains(&true)
        })
        .await?;
        Ok(moved)
    }

    /// Forgets the volumes of a VM.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) async fn forget(&self, key: &Secret<Vec<u8>>, vm: &VmId) -> Result<(), Trouble> {
        let prefix = format!("{vm}/");
        self.entries().retain(|name, _| !name.starts_with(&prefix));
        self.change(key, |table| {
            let before = table.volumes.len();
            table.volumes.retain(|name, _| !name.starts_with(&prefix));
            table.heads.retain(|name, _| !name.starts_with(&prefix));
            table.volumes.len() != before
        })
        .await
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the table, and anchors it if `change` says that it did. If that fails, the table is
    /// read again next time.
    async fn change(
        &self,
        key: &Secret<Vec<u8>>,
        change: impl FnOnce(&mut Table) -> bool,
    ) -> Result<(), Trouble> {
        let mut place = self.held.lock().await;
        let mut held = self.load(key, place.take()).await?;
        if change(&mut held.table) {
            self.anchor(key, &mut held, Event::Tick).await?;
            self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
        *place = Some(held);
        Ok(())
    }

    async fn load(&self, key: &Secret<Vec<u8>>, held: Option<Held>) -> Result<Held, Trouble> {
        if let Some(held) = held {
            return Ok(held);
        }
        let counter = self.tpm.anchor_counter().await?;
        let table = match fsfile::read_limited(&self.file, LIMIT) {
            Err(error) if error.is_missing() => Table { count: counter, ..Table::default() },
            other => Table::opened(key, &other?)?,
        };
        let opened = Event::Opened { counter, header: table.count };
        let mut held = Held { table, state: State::default() };
        self.anchor(key, &mut held, opened).await?;
        Ok(held)
    }

    /// Runs the protocol between the table's file and the TPM's counter.
    async fn anchor(
        &self,
        key: &Secret<Vec<u8>>,
        held: &mut Held,
        mut event: Event,
    ) -> Result<(), Trouble> {
        loop {
            let (state, action) = step(held.state, event)
                .map_err(|why| stale("the table of anchors", why, held.table.count))?;
            held.state = state;
            event = match action {
                Action::Rest => return Ok(()),
                Action::WriteHeader { count, .. } => {
                    held.table.count = count;
                    self.write(key, &held.table)?;
                    Event::HeaderDurable
                }
                Action::Increment { from } => {
                    let ours = self.tpm.increment_anchor_counter(from).await?;
                    if ours { Event::Incremented } else { Event::Moved }
                }
            };
        }
    }

    fn write(&self, key: &Secret<Vec<u8>>, table: &Table) -> Result<(), Trouble> {
        Ok(fsfile::write_atomic(&self.file, &table.stored(key)?, 0o600)?)
    }
}

/// The table is older than the authority's record.
fn set_back(name: &str, why: record::Rejection, own: Option<u64>) -> Trouble {
    let own = own.unwrap_or_default();
    Trouble::refused(
        why.code(),
        format!(
            "{name}: this host's table counts {own}: {why}; the host was set back, TPM and all"
        ),
        "put the latest state of the whole host back, or `vouchsafe vm reanchor NAME --reason WHY`",
    )
}

/// A volume of which the authority's record counts something is not made from nothing.
pub(crate) fn made_anew(name: &str, count: u64) -> Trouble {
    Trouble::refused(
        record::Rejection::RolledBack.code(),
        format!("{name}: the authority's record counts {count}, and there is no such volume here"),
        "bring the volume and the VM's state to this host; `vouchsafe vm fence NAME` makes it anew",
    )
}

/// The table knows nothing of the volume.
fn missing(name: &str) -> Trouble {
    Trouble::refused(
        "anchor-missing",
        format!("this host has no counter for {name}: whether it is the latest is unknown"),
        "a volume moves only with its VM; `vouchsafe vm fence NAME` makes the VM anew",
    )
}

/// What counts `count` is not what its anchor says.
fn stale(what: &str, why: Rejection, count: u64) -> Trouble {
    let hint = "put the latest one back; without it nothing that it covers is opened";
    Trouble::refused(why.code(), format!("{what} (count {count}): {why}"), hint)
}

#[cfg(test)]
mod tests;
