//! What the commands need of the vault format in particular.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use anyhow::Context as _;
use disk::vault::{self, Argon2Cost, NewSlot, NewVault, SlotSecret, Suite};
use serde_json::{Value, json};

use super::{create::Wish, failure, keys::Fresh};
use crate::{args::Cipher, output::Failure};

impl Fresh {
    /// As the secret of a new key slot.
    pub(super) fn slot_secret(&self) -> SlotSecret<'_> {
        match self {
            Self::Key(secret) => SlotSecret::RandomKey(secret),
            Self::Passphrase(phrase) => {
                SlotSecret::Passphrase { phrase, cost: Argon2Cost::default() }
            }
            Self::Sealed { key, token } => SlotSecret::Sealed { key, token },
        }
    }
}

/// Makes an empty vault volume; gives its UUID.
///
/// # Errors
/// A refusal, or the system's error.
pub(super) fn create(wish: &Wish<'_>) -> Result<String, Failure> {
    let slots = [NewSlot { secret: wish.key.slot_secret(), kmi: wish.kmi, label: "" }];
    let suite = match wish.cipher {
        Cipher::Aes256Gcm => Suite::Aes256Gcm,
        Cipher::Aegis256X4 => Suite::Aegis256X4,
    };
    let new = NewVault {
        path: wish.path,
        size: wish.size,
        suite,
        log_bytes: None,
        label: wish.label,
        slots: &slots,
    };
    let made = vault::create(&new).map_err(failure::of)?;
    Ok(uuid_text(&made.uuid))
}

/// A UUID as people write it.
pub(super) fn uuid_text(uuid: &[u8; 16]) -> String {
    let digits = hex::encode(uuid);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    parts.map(|part| digits.get(part).unwrap_or_default().to_owned()).join("-")
}

/// Where the key areas are, and one key slot's layout (`docs/formats/vault.md`).
const KEY_AREAS: [u64; 2] = [2 * 4096, 10 * 4096];
const KEY_SLOT: usize = 2048;
const KINDS: [&str; 5] = ["empty", "random-key", "passphrase", "sealed", "peer"];

/// One copy of the header with its key area, unverified.
#[derive(Debug)]
struct Unverified {
    header: Vec<u8>,
    keys: Vec<u8>,
}

impl Unverified {
    /// The copy with the higher generation.
    fn read(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut newest: Option<Vec<u8>> = None;
        for at in [0, 4096] {
            let mut copy = vec![0; 4096];
            if file.read_exact_at(&mut copy, at).is_err() || !copy.starts_with(b"VSAFEVLT") {
                continue;
            }
            if newest.as_ref().is_none_or(|other| number(other, 40, 8) < number(&copy, 40, 8)) {
                newest = Some(copy);
            }
        }
        let header = newest.ok_or_else(|| {
            let detail = format!("{} is no vault volume", path.display());
            Failure::refused("not-vault", detail, "")
        })?;
        let [a, b] = KEY_AREAS;
        let mut keys = vec![0; 16 * KEY_SLOT];
        file.read_exact_at(&mut keys, if number(&header, 12, 1) == 0 { a } else { b })?;
        Ok(Self { header, keys })
    }

    fn slots(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let slots = self.keys.chunks_exact(KEY_SLOT).enumerate();
        slots.filter(|(_, slot)| slot.first() != Some(&0))
    }
}

/// A little-endian number of `length` bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = bytes.get(at..at + length).unwrap_or_default();
    field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// `length` bytes, at most `max`, from `at`.
fn part(bytes: &[u8], at: usize, length: u64, max: usize) -> &[u8] {
    let length = usize::try_from(length).unwrap_or(max).min(max);
    bytes.get(at..at + length).unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// The UUID that the header of the volume at `path` says.
///
/// # Errors
/// `not-vault`, or the system's error.
pub(super) fn uuid(path: &Path) -> Result<[u8; 16], Failure> {
    let found = Unverified::read(path)?;
    Ok(part(&found.header, 16, 16, 16).try_into()?)
}

/// The tokens of the sealed key slots of the volume at `path`.
///
/// # Errors
/// `not-vault`, or the system's error.
pub(super) fn tokens(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let found = Unverified::read(path)?;
    let sealed = found.slots().filter(|(_, slot)| slot.first() == Some(&3));
    Ok(sealed.map(|(_, slot)| part(slot, 752, number(slot, 110, 2), 1024).to_vec()).collect())
}

/// What the header says to anyone.
///
/// # Errors
/// `not-vault`, or the system's error.
pub(super) fn inspect(path: &Path) -> Result<Value, Failure> {
    let found = Unverified::read(path)?;
    let header = &found.header;
    let slots: Vec<Value> = found
        .slots()
        .map(|(index, slot)| {
            let kind = slot.first().and_then(|kind| KINDS.get(usize::from(*kind)));
            let kmi = part(slot, 112, number(slot, 108, 2), 640);
            json!({
                "index": index, "kind": kind, "label": text(part(slot, 1776, 48, 48)),
                "kmi": serde_json::from_slice::<Value>(kmi).ok(),
            })
        })
        .collect();
    let cipher = match number(header, 10, 1) {
        1 => "aes-256-gcm",
        2 => "aegis-256x4",
        _ => "unknown",
    };
    let flags = number(header, 13, 1);
    let session = number(header, 64, 4);
    Ok(json!({
        "format": "vault", "verified": false, "version": number(header, 8, 2), "cipher": cipher,
        "uuid": uuid_text(part(header, 16, 16, 16).try_into()?), "size": number(header, 32, 8),
        "label": text(part(header, 336, 64, 64)), "generation": number(header, 40, 8),
        "anchor_count": number(header, 48, 8), "log_bytes": number(header, 56, 4) * 4096,
        "epoch": number(header, 60, 4), "session": session,
        "detached": flags & 1 != 0, "rekeying": flags & 2 != 0, "key_slots": slots,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_five_groups() {
        assert_eq!(uuid_text(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }
}
