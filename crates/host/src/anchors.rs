//! The counters that vault volumes are anchored in: one table for the host, authenticated under the
//! guard's cache key and itself anchored in a counter of the host's TPM.
//!
//! ```text
//!   volume's header (count) <-> entry of the table <-> count of the table <-> TPM counter
//!   every change: the file with count + 1, durable -> increment of the TPM -> done
//!   start: file's count = counter, or one ahead (finished now); older: rolled-back
//!          then two empty changes, so that a copy that an interrupted change left is dead as well
//! ```
//!
//! **Invariants:** a count that was given out is in the file and covered by the TPM; a volume that
//! the table does not know is not opened, so an empty table admits nothing old.

use std::{collections::BTreeMap, path::PathBuf};

use aws_lc_rs::hmac;
use model::{Epoch, Secret, VmId};
use serde::{Deserialize, Serialize};
use serve::fsfile;
use tokio::sync::Mutex;

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

/// The counters of this host's vault volumes.
#[derive(Debug)]
pub(crate) struct Anchors {
    tpm: HostTpm,
    file: PathBuf,
    table: Mutex<Option<Table>>,
}

/// What a volume is called in the table.
pub(crate) fn name(vm: &VmId, epoch: Epoch, volume: Volume) -> String {
    format!("{vm}/{}/{}", epoch.0, volume.word())
}

impl Anchors {
    /// The table is read when it is first needed.
    pub(crate) fn new(tpm: HostTpm, state_dir: &std::path::Path) -> Self {
        Self { tpm, file: state_dir.join("anchors.json"), table: Mutex::new(None) }
    }

    /// The count of a volume.
    ///
    /// # Errors
    /// Refused as `anchor-missing` if the table does not know it, `rolled-back` if the table is an
    /// earlier one.
    pub(crate) async fn count(&self, key: &Secret<Vec<u8>>, name: &str) -> Result<u64, Trouble> {
        let mut held = self.table.lock().await;
        let table = self.load(key, held.take()).await?;
        let count = table.volumes.get(name).copied();
        *held = Some(table);
        count.ok_or_else(|| {
            Trouble::refused(
                "anchor-missing",
                format!("this host has no counter for {name}: whether it is the latest is unknown"),
                "a volume moves only with its VM; `vouchsafe vm fence NAME` makes the VM anew",
            )
        })
    }

    /// Sets the count of a volume that was just made, or moves it on.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) async fn set(
        &self,
        key: &Secret<Vec<u8>>,
        name: &str,
        count: u64,
    ) -> Result<(), Trouble> {
        let mut held = self.table.lock().await;
        let mut table = self.load(key, held.take()).await?;
        table.volumes.insert(name.to_owned(), count);
        *held = Some(self.commit(key, table).await?);
        Ok(())
    }

    /// Forgets the volumes of a VM.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) async fn forget(&self, key: &Secret<Vec<u8>>, vm: &VmId) -> Result<(), Trouble> {
        let mut held = self.table.lock().await;
        let mut table = self.load(key, held.take()).await?;
        let prefix = format!("{vm}/");
        let before = table.volumes.len();
        table.volumes.retain(|name, _| !name.starts_with(&prefix));
        if table.volumes.len() != before {
            table = self.commit(key, table).await?;
        }
        *held = Some(table);
        Ok(())
    }

    async fn load(&self, key: &Secret<Vec<u8>>, held: Option<Table>) -> Result<Table, Trouble> {
        if let Some(table) = held {
            return Ok(table);
        }
        let counter = self.tpm.anchor_counter().await?;
        let mut table = match fsfile::read_limited(&self.file, LIMIT) {
            Err(error) if error.is_missing() => Table { count: counter, ..Table::default() },
            other => opened(key, &other?)?,
        };
        if table.count == counter.saturating_add(1) {
            self.tpm.raise_anchor_counter(counter, table.count).await?;
        } else if table.count != counter {
            return Err(Trouble::refused(
                "rolled-back",
                format!("the table of anchors is of count {}, the TPM's is {counter}", table.count),
                "put the latest anchors.json back; without it, its volumes are not opened",
            ));
        }
        for _ in 0..2 {
            table = self.commit(key, table).await?;
        }
        Ok(table)
    }

    /// The file first, then the TPM. If either fails, the table is read again next time.
    async fn commit(&self, key: &Secret<Vec<u8>>, mut table: Table) -> Result<Table, Trouble> {
        let from = table.count;
        table.count = from.saturating_add(1);
        let text = serde_json::to_string(&table)?;
        let tag = hmac::sign(&mac(key), text.as_bytes()).as_ref().to_vec();
        let stored = serde_json::to_vec(&Stored { table: text, tag })?;
        fsfile::write_atomic(&self.file, &stored, 0o600)?;
        self.tpm.raise_anchor_counter(from, table.count).await?;
        Ok(table)
    }
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
