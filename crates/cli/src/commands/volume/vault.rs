//! What the commands need of the vault format in particular.

use std::path::Path;

use disk::vault::{self, Argon2Cost, NewSlot, NewVault, SlotKind, SlotSecret, Suite};
use serde_json::{Value, json};

use super::{create::Wish, failure, keys::Fresh};
use crate::{args::Cipher, output::Failure};

/// Bytes from which on the content of a key file is taken for random.
const RANDOM_BYTES: usize = 32;

impl Fresh {
    /// As the secret of a new key slot.
    pub(super) fn slot_secret(&self) -> SlotSecret<'_> {
        match self {
            Self::Key(secret) if secret.expose().len() >= RANDOM_BYTES => {
                SlotSecret::RandomKey(secret)
            }
            // What is shorter than a key may be a pass phrase: it is stretched like one.
            Self::Key(phrase) | Self::Passphrase(phrase) => {
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
        None | Some(Cipher::Aes256Gcm) => Suite::Aes256Gcm,
        Some(Cipher::Aegis256X4) => Suite::Aegis256X4,
    };
    let new = NewVault {
        path: wish.path,
        size: wish.size,
        suite,
        log_bytes: None,
        label: wish.label,
        slots: &slots,
    };
    let made = vault::create(&new).map_err(failure::at(wish.path))?;
    Ok(uuid_text(&made.uuid))
}

/// A UUID as people write it.
pub(super) fn uuid_text(uuid: &[u8; 16]) -> String {
    let digits = hex::encode(uuid);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    parts.map(|part| digits.get(part).unwrap_or_default().to_owned()).join("-")
}

/// The UUID that the header of the volume at `path` says.
///
/// # Errors
/// `not-vault`, or the system's error.
pub(super) fn uuid(path: &Path) -> Result<[u8; 16], Failure> {
    Ok(vault::inspect(path).map_err(failure::at(path))?.uuid)
}

/// The tokens of the sealed key slots of the volume at `path`.
///
/// # Errors
/// `not-vault`, or the system's error.
pub(super) fn tokens(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let found = vault::inspect(path).map_err(failure::at(path))?;
    let sealed = found.slots.into_iter().filter(|slot| slot.kind == SlotKind::Sealed);
    Ok(sealed.map(|slot| slot.token).collect())
}

/// What the header says to anyone.
///
/// # Errors
/// `not-vault`, or the system's error.
pub(super) fn inspect(path: &Path) -> Result<Value, Failure> {
    let found = vault::inspect(path).map_err(failure::at(path))?;
    let slots: Vec<Value> = found
        .slots
        .iter()
        .map(|slot| {
            json!({
                "index": slot.number, "kind": slot.kind.name(), "label": slot.label,
                "kmi": slot.kmi,
            })
        })
        .collect();
    Ok(json!({
        "format": "vault", "verified": false, "cipher": found.suite.name(), "uuid": uuid_text(&found.uuid),
        "size": found.size, "label": found.label, "generation": found.generation,
        "anchor_count": found.anchor_count, "log_bytes": found.log_bytes, "epoch": found.epoch,
        "session": found.sessions, "detached": found.detached, "rekeying": found.rekeying,
        "key_slots": slots, "damage": found.damage,
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
