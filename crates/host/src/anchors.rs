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

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, MutexGuard, PoisonError},
};

use aws_lc_rs::hmac;
use model::{
    Epoch, Secret, VmId,
    anchor::{Action, Event, Rejection, State, step},
};
use serde::{Deserialize, Serialize};
use serve::fsfile;
use tokio::sync::Mutex;

use self::attached::Attached;
pub(crate) use self::attached::{Next, Party};
use crate::{hosttpm::HostTpm, plan::Volume, trouble::Trouble};

const LIMIT: usize = 4 << 20;

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    count: u64,
    volumes: BTreeMap<String, u64>,
}

/// The table as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// JSON of the table, as it was authenticated.
    table: String,
    #[serde(with = "hex")]
    tag: Vec<u8>,
}

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
        Self { tpm, file, held: Mutex::new(None), attached: std::sync::Mutex::default() }
    }

    /// The count of a volume.
    ///
    /// # Errors
    /// Refused as `anchor-missing` if the table does not know it, `rolled-back` or
    /// `anchor-mismatch` if the table is not the TPM's.
    pub(crate) async fn count(&self, key: &Secret<Vec<u8>>, name: &str) -> Result<u64, Trouble> {
        let mut place = self.held.lock().await;
        let held = self.load(key, place.take()).await?;
        let count = held.table.volumes.get(name).copied();
        *place = Some(held);
        count.ok_or_else(|| missing(name))
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
    pub(crate) async fn increment(
        &self,
        key: &Secret<Vec<u8>>,
        volumes: &[(String, u64)],
    ) -> Result<Vec<bool>, Trouble> {
        let mut moved = Vec::new();
        self.change(key, |table| {
            moved = volumes.iter().map(|(name, from)| table.increment(name, *from)).collect();
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
            other => opened(key, &other?)?,
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
        let text = serde_json::to_string(table)?;
        let tag = hmac::sign(&mac(key), text.as_bytes()).as_ref().to_vec();
        let stored = serde_json::to_vec(&Stored { table: text, tag })?;
        Ok(fsfile::write_atomic(&self.file, &stored, 0o600)?)
    }
}

impl Table {
    fn increment(&mut self, name: &str, from: u64) -> bool {
        let found = self.volumes.get_mut(name).filter(|count| **count == from);
        found.map(|count| *count = from.saturating_add(1)).is_some()
    }
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

fn opened(key: &Secret<Vec<u8>>, bytes: &[u8]) -> Result<Table, Trouble> {
    let stored: Stored = serde_json::from_slice(bytes)?;
    hmac::verify(&mac(key), stored.table.as_bytes(), &stored.tag).map_err(|_| {
        Trouble::refused(
            "anchor-damaged",
            "the table of anchors is not this host's, or was altered",
            "put the latest anchors.json back; without it, its volumes are not opened",
        )
    })?;
    Ok(serde_json::from_str(&stored.table)?)
}

fn mac(key: &Secret<Vec<u8>>) -> hmac::Key {
    let parent = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let derived = hmac::sign(&parent, b"vouchsafe:anchors:v1");
    hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
}

#[cfg(test)]
mod tests;
