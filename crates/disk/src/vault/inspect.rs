//! What a volume says to anyone: nothing of it is verified, for that takes a key.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use model::Kmi;

use super::{
    header::{Header, SLOT_BYTES, Suite},
    keyarea::{KeyArea, digest_of},
    keyslot::SlotKind,
    unlock::{HeaderCopy, START_BYTES, area_bytes, claims},
};
use crate::{Rejection, VolumeError};

/// The claims of a volume's header and key slots. **Unverified.**
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its cipher.
    pub suite: Suite,
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Its label.
    pub label: String,
    /// Size of the disk in bytes.
    pub size: u64,
    /// Generation of the header.
    pub generation: u64,
    /// Its anchor count.
    pub anchor_count: u64,
    /// Epoch of its key.
    pub epoch: u32,
    /// Number of attachments for writing so far.
    pub sessions: u32,
    /// Length of its log in bytes.
    pub log_bytes: u64,
    /// It was detached in good order.
    pub detached: bool,
    /// A re-keying is under way.
    pub rekeying: bool,
    /// Its key slots; none if the key area was altered.
    pub slots: Vec<SlotInspection>,
    /// What is wrong with the copies of the header, in words.
    pub damage: Option<String>,
}

/// The claims of a key slot. **Unverified.**
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInspection {
    /// Its number.
    pub number: usize,
    /// What its secret is.
    pub kind: SlotKind,
    /// Key-management information.
    pub kmi: Option<Kmi>,
    /// Label.
    pub label: String,
    /// What its owner needs to find the secret.
    pub token: Vec<u8>,
}

/// Reads the claims of the volume at `path`; takes no lock.
///
/// # Errors
/// [`Rejection::NotVault`], [`Rejection::Unsupported`], [`Rejection::MetadataMalformed`], or the
/// system's error.
pub fn inspect(path: &Path) -> Result<Inspection, VolumeError> {
    let file = File::open(path).map_err(VolumeError::io("open the volume"))?;
    let mut start = vec![0; START_BYTES];
    let mut done = 0;
    while let Some(rest) = start.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = u64::try_from(done).unwrap_or(u64::MAX);
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(VolumeError::io("read the header")(e)),
        }
    }
    let start: Box<[u8; START_BYTES]> =
        start.into_boxed_slice().try_into().map_err(|_| Rejection::Truncated)?;
    Ok(inspect_start(&start)?)
}

/// The claims in the first [`START_BYTES`] of a file.
pub(crate) fn inspect_start(start: &[u8; START_BYTES]) -> Result<Inspection, Rejection> {
    let copy = |copy| claims(start, copy).map(|shape| shape.claims().clone());
    let (header, damage) = match (copy(HeaderCopy::A), copy(HeaderCopy::B)) {
        (Ok(a), Ok(b)) if a.generation == b.generation => (a, None),
        (Ok(a), Ok(b)) => {
            let damage = "one copy of the header is older than the other".to_owned();
            (if a.generation > b.generation { a } else { b }, Some(damage))
        }
        (Ok(one), Err(why)) | (Err(why), Ok(one)) => {
            (one, Some(format!("one copy of the header is damaged: {why}")))
        }
        (Err(Rejection::NotVault), Err(why)) | (Err(why), Err(_)) => return Err(why),
    };
    let bytes = area_bytes(start, header.key_area);
    let whole = digest_of(bytes) == header.key_area_digest;
    let slots = if whole { slots(&KeyArea::decode(bytes)?) } else { Vec::new() };
    let altered = (!whole).then(|| Rejection::KeyAreaAltered.to_string());
    Ok(inspection(header, slots, damage.or(altered)))
}

fn inspection(header: Header, slots: Vec<SlotInspection>, damage: Option<String>) -> Inspection {
    let slot_bytes = u64::try_from(SLOT_BYTES).unwrap_or(0);
    Inspection {
        suite: header.suite,
        uuid: header.uuid,
        label: header.label.as_str().to_owned(),
        size: header.size,
        generation: header.generation,
        anchor_count: header.anchor_count,
        epoch: header.epoch,
        sessions: header.session.id,
        log_bytes: u64::from(header.log_slots).saturating_mul(slot_bytes),
        detached: header.clean,
        rekeying: header.old_key.is_some(),
        slots,
        damage,
    }
}

fn slots(area: &KeyArea) -> Vec<SlotInspection> {
    area.taken()
        .map(|(number, slot)| SlotInspection {
            number,
            kind: slot.kind,
            kmi: slot.kmi.clone(),
            label: slot.label.as_str().to_owned(),
            token: slot.token().to_vec(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use model::Secret;

    use super::*;
    use crate::vault::{Argon2Cost, NewSlot, NewVault, SlotSecret, create};

    #[test]
    fn a_volume_tells_anyone_what_it_is_and_which_slots_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let (key, phrase) = (Secret::new(vec![1; 32]), Secret::new(b"phrase".to_vec()));
        let cost = Argon2Cost { memory: 64, passes: 1, lanes: 1 };
        let sealed = SlotSecret::Sealed { key: &key, token: b"a TPM object" };
        let phrase = SlotSecret::Passphrase { phrase: &phrase, cost };
        let slots = [
            NewSlot { secret: sealed, kmi: None, label: "tpm" },
            NewSlot { secret: phrase, kmi: None, label: "recovery" },
        ];
        let suite = Suite::Aegis256X4;
        let new = NewVault {
            path: &path,
            size: 10_001,
            suite,
            log_bytes: None,
            label: "l",
            slots: &slots,
        };
        let created = create(&new).unwrap();
        let found = inspect(&path).unwrap();
        assert_eq!((found.suite, found.size, found.uuid), (suite, 10_001, created.uuid));
        assert_eq!((found.label.as_str(), found.damage.as_deref()), ("l", None));
        assert_eq!(found.slots[0].token, b"a TPM object");
        assert_eq!(found.slots[1].kind, SlotKind::Passphrase(cost));
        assert_eq!(found.slots[1].label, "recovery");
        std::fs::write(&path, b"something else").unwrap();
        let error = inspect(&path).unwrap_err();
        assert_eq!(error.rejection(), Some(&Rejection::NotVault));
    }
}
