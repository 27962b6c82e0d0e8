//! The table itself, and how it is stored: JSON and its HMAC under a key of the guard's.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use model::{Digest, Secret};
use serde::{Deserialize, Serialize};

use crate::trouble::Trouble;

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// What the TPM's counter shows.
    pub(super) count: u64,
    /// What the volumes count.
    pub(super) volumes: BTreeMap<String, u64>,
    /// The headers behind the counts; none for a volume that was not advanced yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) heads: BTreeMap<String, Head>,
}

/// The header behind a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    /// Its SHA-256.
    pub(crate) digest: Digest,
    /// The volume was detached with it.
    pub(crate) rest: bool,
}

/// A count that is to be incremented.
#[derive(Clone, Debug)]
pub(super) struct Count {
    /// What the volume is called in the table.
    pub(super) name: String,
    /// What the count must be.
    pub(super) from: u64,
    /// The header with the next one.
    pub(super) head: Option<Head>,
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

impl Table {
    /// Increments a count if it is what is said; whether it was.
    pub(super) fn increment(&mut self, wanted: &Count) -> bool {
        let Count { name, from, head } = wanted;
        let Some(count) = self.volumes.get_mut(name).filter(|count| **count == *from) else {
            return false;
        };
        *count = from.saturating_add(1);
        match head {
            Some(head) => self.heads.insert(name.clone(), *head),
            None => self.heads.remove(name),
        };
        true
    }

    /// The table as it is stored.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) fn stored(&self, key: &Secret<Vec<u8>>) -> Result<Vec<u8>, Trouble> {
        let table = serde_json::to_string(self)?;
        let tag = hmac::sign(&mac(key), table.as_bytes()).as_ref().to_vec();
        Ok(serde_json::to_vec(&Stored { table, tag })?)
    }

    /// The table as it was stored.
    ///
    /// # Errors
    /// Refused as `anchor-damaged` if it was altered, or is another host's.
    pub(super) fn opened(key: &Secret<Vec<u8>>, bytes: &[u8]) -> Result<Self, Trouble> {
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
}

fn mac(key: &Secret<Vec<u8>>) -> hmac::Key {
    let parent = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let derived = hmac::sign(&parent, b"vouchsafe:anchors:v1");
    hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
}
