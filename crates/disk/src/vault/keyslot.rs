//! One key slot: the volume key, sealed under a key that comes from the slot's secret
//! (`docs/formats/vault.md`, "Key areas").
//!
//! **Invariant:** a slot's key-management information, token and label are associated data of its
//! sealed key: a slot whose information was exchanged does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use model::{Kmi, Secret};

use super::{
    bytes::{Text, field, put, reserved, run, u16_at, u32_at},
    kdf::{self, Argon2Cost, Key, VolumeKey},
};
use crate::{Rejection, VolumeError};

/// Length of a key slot.
pub(crate) const KEY_SLOT_BYTES: usize = 2048;
/// Longest key-management information.
const KMI_MAX: usize = 640;
/// Longest token.
const TOKEN_MAX: usize = 1024;

const SALT_AT: usize = 16;
const NONCE_AT: usize = 48;
const SEALED_AT: usize = 60;
const TAG_AT: usize = 92;
const LENGTHS_AT: usize = 108;
const KMI_AT: usize = 112;
const TOKEN_AT: usize = 752;
const LABEL_AT: usize = 1776;
const END_AT: usize = 1824;

/// What a key slot's secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// A random key.
    RandomKey,
    /// A pass phrase, stretched.
    Passphrase(Argon2Cost),
    /// A random key that the token says how to unseal.
    Sealed,
    /// A random key of a peer.
    Peer,
}

impl SlotKind {
    /// The kind's name, for people and machines.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RandomKey => "random-key",
            Self::Passphrase(_) => "passphrase",
            Self::Sealed => "sealed",
            Self::Peer => "peer",
        }
    }

    const fn code(&self) -> u8 {
        match self {
            Self::RandomKey => 1,
            Self::Passphrase(_) => 2,
            Self::Sealed => 3,
            Self::Peer => 4,
        }
    }

    const fn cost(&self) -> Option<Argon2Cost> {
        match self {
            Self::Passphrase(cost) => Some(*cost),
            Self::RandomKey | Self::Sealed | Self::Peer => None,
        }
    }

    /// Lengths of the secret in bytes.
    const fn lengths(&self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::RandomKey | Self::Passphrase(_) => 1..=512,
            Self::Sealed | Self::Peer => 16..=512,
        }
    }
}

/// The secret of a new key slot.
#[derive(Clone, Copy, Debug)]
pub enum SlotSecret<'a> {
    /// A random key of 1 to 512 bytes.
    RandomKey(&'a Secret<Vec<u8>>),
    /// A pass phrase of 1 to 512 bytes.
    Passphrase {
        /// The pass phrase.
        phrase: &'a Secret<Vec<u8>>,
        /// What stretching it costs.
        cost: Argon2Cost,
    },
    /// A random key of 16 to 512 bytes that was sealed elsewhere.
    Sealed {
        /// The key.
        key: &'a Secret<Vec<u8>>,
        /// What its owner needs to unseal it, at most 1024 bytes, stored with the slot.
        token: &'a [u8],
    },
    /// A random key of 16 to 512 bytes that a peer holds.
    Peer {
        /// The key.
        key: &'a Secret<Vec<u8>>,
        /// What the peer needs to find it, at most 1024 bytes, stored with the slot.
        token: &'a [u8],
    },
}

/// A key slot to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewSlot<'a> {
    /// Its secret.
    pub secret: SlotSecret<'a>,
    /// Key-management information to store with it.
    pub kmi: Option<&'a Kmi>,
    /// Label, at most 48 bytes.
    pub label: &'a str,
}

/// A key slot that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeySlot {
    pub(crate) kind: SlotKind,
    pub(crate) kmi: Option<Kmi>,
    pub(crate) label: Text<48>,
    bytes: Box<[u8; KEY_SLOT_BYTES]>,
}

impl KeySlot {
    /// A slot that holds `key` of `epoch`.
    ///
    /// # Errors
    /// A [`Rejection`] for a secret of a wrong length, a cost over the limits, or information that
    /// does not fit.
    pub(crate) fn seal(
        new: &NewSlot<'_>,
        key: &VolumeKey,
        uuid: &[u8; 16],
        epoch: u32,
    ) -> Result<Self, VolumeError> {
        let mut salt = [0; 32];
        kdf::random(&mut salt)?;
        Self::seal_with(new, key, uuid, epoch, salt)
    }

    fn seal_with(
        new: &NewSlot<'_>,
        key: &VolumeKey,
        uuid: &[u8; 16],
        epoch: u32,
        salt: [u8; 32],
    ) -> Result<Self, VolumeError> {
        let (kind, secret, token) = new.secret.parts();
        let label = Text::new(new.label)?;
        let mut bytes = Box::new([0; KEY_SLOT_BYTES]);
        let out = bytes.as_mut_slice();
        put(out, 0, &[kind.code()]);
        if let Some(cost) = kind.cost() {
            put(out, 4, &cost.memory.to_le_bytes());
            put(out, 8, &cost.passes.to_le_bytes());
            put(out, 12, &cost.lanes.to_le_bytes());
        }
        put(out, SALT_AT, &salt);
        let kmi = match new.kmi {
            Some(kmi) => {
                serde_json::to_vec(kmi).map_err(|e| Rejection::malformed(e.to_string()))?
            }
            None => Vec::new(),
        };
        if kmi.len() > KMI_MAX || token.len() > TOKEN_MAX {
            return Err(Rejection::malformed("what is stored with a key slot is too long").into());
        }
        put(out, LENGTHS_AT, &u16::try_from(kmi.len()).unwrap_or(u16::MAX).to_le_bytes());
        put(out, LENGTHS_AT + 2, &u16::try_from(token.len()).unwrap_or(u16::MAX).to_le_bytes());
        put(out, KMI_AT, &kmi);
        put(out, TOKEN_AT, token);
        label.encode(out, LABEL_AT);
        let mut slot = Self { kind, kmi: new.kmi.cloned(), label, bytes };
        let wrapping = slot.wrapping_key(0, uuid, secret.expose())?;
        let aad = slot.associated_data(uuid, epoch)?;
        let mut sealed = *key.0.expose();
        let tag = seal_key(&wrapping, &aad, &mut sealed)?;
        put(slot.bytes.as_mut_slice(), SEALED_AT, &sealed);
        put(slot.bytes.as_mut_slice(), TAG_AT, &tag);
        Ok(slot)
    }

    /// Reads a key slot; `None` if it is empty.
    ///
    /// # Errors
    /// [`Rejection::MetadataMalformed`], [`Rejection::Unsupported`] for another kind.
    pub(crate) fn decode(bytes: &[u8; KEY_SLOT_BYTES]) -> Result<Option<Self>, Rejection> {
        let [kind, ..] = *bytes;
        if kind == 0 {
            reserved(bytes, 0, KEY_SLOT_BYTES)?;
            return Ok(None);
        }
        reserved(bytes, 1, 3)?;
        let cost = Argon2Cost {
            memory: u32_at(bytes, 4)?,
            passes: u32_at(bytes, 8)?,
            lanes: u32_at(bytes, 12)?,
        };
        let kind = match kind {
            1 => SlotKind::RandomKey,
            2 => SlotKind::Passphrase(cost),
            3 => SlotKind::Sealed,
            4 => SlotKind::Peer,
            other => return Err(Rejection::unsupported(format!("key slots of kind {other}"))),
        };
        if kind.cost().is_none() {
            reserved(bytes, 4, 12)?;
        }
        reserved(bytes, NONCE_AT, 12)?;
        reserved(bytes, END_AT, KEY_SLOT_BYTES - END_AT)?;
        let kmi = padded(bytes, KMI_AT, KMI_MAX, u16_at(bytes, LENGTHS_AT)?)?;
        padded(bytes, TOKEN_AT, TOKEN_MAX, u16_at(bytes, LENGTHS_AT + 2)?)?;
        let kmi = if kmi.is_empty() {
            None
        } else {
            let parsed = serde_json::from_slice(kmi);
            Some(parsed.map_err(|_| Rejection::malformed("key-management information"))?)
        };
        let label = Text::decode(bytes, LABEL_AT)?;
        Ok(Some(Self { kind, kmi, label, bytes: Box::new(*bytes) }))
    }

    /// The slot as bytes.
    pub(crate) const fn bytes(&self) -> &[u8; KEY_SLOT_BYTES] {
        &self.bytes
    }

    /// What is stored for whoever looks for the secret.
    pub(crate) fn token(&self) -> &[u8] {
        let length = u16_at(self.bytes.as_slice(), LENGTHS_AT + 2).unwrap_or(0);
        run(self.bytes.as_slice(), TOKEN_AT, usize::from(length)).unwrap_or_default()
    }

    /// The volume key, if `secret` is this slot's; `number` is the slot's own, for messages.
    ///
    /// # Errors
    /// [`Rejection::WrongKey`], or [`Rejection::KdfTooCostly`].
    pub(crate) fn open(
        &self,
        number: u32,
        secret: &[u8],
        uuid: &[u8; 16],
        epoch: u32,
    ) -> Result<VolumeKey, VolumeError> {
        let wrapping = self.wrapping_key(number, uuid, secret)?;
        let aad = self.associated_data(uuid, epoch)?;
        let bytes = self.bytes.as_slice();
        let key = open_key(&wrapping, &aad, &field(bytes, SEALED_AT)?, &field(bytes, TAG_AT)?)?;
        Ok(VolumeKey(key))
    }

    fn wrapping_key(
        &self,
        number: u32,
        uuid: &[u8; 16],
        secret: &[u8],
    ) -> Result<Key, VolumeError> {
        if !self.kind.lengths().contains(&secret.len()) {
            return Err(Rejection::KeyLength.into());
        }
        let salt = field(self.bytes.as_slice(), SALT_AT)?;
        match self.kind.cost() {
            Some(cost) => {
                let stretched = kdf::stretch(&cost, number, secret, &salt)?;
                kdf::slot_key(uuid, &salt, stretched.expose())
            }
            None => kdf::slot_key(uuid, &salt, secret),
        }
    }

    fn associated_data(&self, uuid: &[u8; 16], epoch: u32) -> Result<Vec<u8>, Rejection> {
        let bytes = self.bytes.as_slice();
        let epoch = epoch.to_le_bytes();
        let before = run(bytes, 0, NONCE_AT)?;
        let behind = run(bytes, LENGTHS_AT, END_AT - LENGTHS_AT)?;
        Ok([uuid.as_slice(), &epoch, before, behind].concat())
    }
}

impl<'a> SlotSecret<'a> {
    const fn parts(&self) -> (SlotKind, &'a Secret<Vec<u8>>, &'a [u8]) {
        match *self {
            Self::RandomKey(key) => (SlotKind::RandomKey, key, &[]),
            Self::Passphrase { phrase, cost } => (SlotKind::Passphrase(cost), phrase, &[]),
            Self::Sealed { key, token } => (SlotKind::Sealed, key, token),
            Self::Peer { key, token } => (SlotKind::Peer, key, token),
        }
    }
}

/// The first `length` bytes of the field at `at`, whose rest must be zeros.
fn padded(bytes: &[u8], at: usize, room: usize, length: u16) -> Result<&[u8], Rejection> {
    let length = usize::from(length);
    if length > room {
        return Err(Rejection::malformed("a length in a key slot"));
    }
    reserved(bytes, at.saturating_add(length), room - length)?;
    run(bytes, at, length)
}

const CRYPTO: VolumeError = VolumeError::Crypto { what: "work on a sealed key" };

fn cipher(key: &Key) -> Result<LessSafeKey, VolumeError> {
    UnboundKey::new(&AES_256_GCM, key.expose()).map(LessSafeKey::new).map_err(|_| CRYPTO)
}

/// The nonce of every sealed key: its wrapping key is never used twice.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Seals a volume key in place under a wrapping key that seals nothing else.
pub(crate) fn seal_key(
    wrapping: &Key,
    aad: &[u8],
    key: &mut [u8; 32],
) -> Result<[u8; 16], VolumeError> {
    let tag = cipher(wrapping)?
        .seal_in_place_separate_tag(nonce(), Aad::from(aad), key)
        .map_err(|_| CRYPTO)?;
    tag.as_ref().try_into().map_err(|_| CRYPTO)
}

/// Opens what [`seal_key`] sealed.
///
/// # Errors
/// [`Rejection::WrongKey`] if it is not authentic.
pub(crate) fn open_key(
    wrapping: &Key,
    aad: &[u8],
    sealed: &[u8; 32],
    tag: &[u8; 16],
) -> Result<Key, VolumeError> {
    let mut key = Secret::new([0; 32]);
    cipher(wrapping)?
        .open_separate_gather(nonce(), Aad::from(aad), sealed, tag, key.expose_mut())
        .map_err(|_| Rejection::WrongKey)?;
    Ok(key)
}

#[cfg(test)]
mod tests;
