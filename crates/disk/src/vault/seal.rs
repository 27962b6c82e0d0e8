//! The two ciphers of the format, one key of one session: sealing and opening in place with a
//! detached tag.
//!
//! **Invariant:** the caller never seals two units with one sequence number under one key; see
//! [`keyring`](super::keyring) for how that is kept.

use aegis::aegis256x4::Aegis256X4;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use model::Secret;

use super::header::Suite;

/// A unit was not what its tag says, or the cipher failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// What binds a unit to its place: 32 bytes of associated data.
pub(crate) type Place = [u8; 32];

/// The kinds of sealed units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A data sector, by its number.
    Sector(u64),
    /// A tree page, by its level (from 1) and its number in the level.
    Page(u8, u64),
    /// A session page, by its position in the chain.
    Sessions(u64),
    /// The snapshot page.
    Snapshots,
    /// A log record, by its log number.
    Record(u64),
}

impl Unit {
    /// The associated data of the unit in the volume `uuid`.
    pub(crate) fn place(self, uuid: &[u8; 16]) -> Place {
        let (kind, index) = match self {
            Self::Sector(number) => (0, number),
            Self::Page(level, number) => (level, number),
            Self::Sessions(number) => (16, number),
            Self::Snapshots => (17, 0),
            Self::Record(number) => (18, number),
        };
        let mut place = [0; 32];
        let (id, rest) = place.split_at_mut(16);
        id.copy_from_slice(uuid);
        let (at, rest) = rest.split_at_mut(8);
        at.copy_from_slice(&u64::to_le_bytes(index));
        rest.fill(0);
        if let Some(first) = rest.first_mut() {
            *first = kind;
        }
        place
    }
}

/// The key of one session, expanded.
pub(crate) enum Cipher {
    Gcm(Box<LessSafeKey>),
    Aegis(Secret<[u8; 32]>),
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// The cipher of `suite` under `key`.
    pub(crate) fn new(suite: Suite, key: &Secret<[u8; 32]>) -> Result<Self, NotAuthentic> {
        match suite {
            Suite::Aes256Gcm => {
                let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| NotAuthentic)?;
                Ok(Self::Gcm(Box::new(LessSafeKey::new(key))))
            }
            Suite::Aegis256X4 => Ok(Self::Aegis(key.clone())),
        }
    }

    /// Encrypts `unit` in place and returns its tag. `about` is the associated data.
    pub(crate) fn seal(
        &self,
        sequence: u64,
        about: &[u8],
        unit: &mut [u8],
    ) -> Result<[u8; 16], NotAuthentic> {
        match self {
            Self::Gcm(key) => {
                let sealed =
                    key.seal_in_place_separate_tag(nonce(sequence), Aad::from(about), unit);
                let tag = sealed.map_err(|_| NotAuthentic)?;
                tag.as_ref().try_into().map_err(|_| NotAuthentic)
            }
            Self::Aegis(key) => {
                let cipher = Aegis256X4::<16>::new(key.expose(), &long_nonce(sequence));
                Ok(cipher.encrypt_in_place(unit, about))
            }
        }
    }

    /// Decrypts `unit` in place. On failure its content is unspecified, and never plaintext.
    pub(crate) fn open(
        &self,
        sequence: u64,
        about: &[u8],
        unit: &mut [u8],
        tag: &[u8; 16],
    ) -> Result<(), NotAuthentic> {
        let opened = match self {
            Self::Gcm(key) => key
                .open_in_place_separate_tag(nonce(sequence), Aad::from(about), tag, unit)
                .map(|_| ())
                .map_err(|_| NotAuthentic),
            Self::Aegis(key) => Aegis256X4::<16>::new(key.expose(), &long_nonce(sequence))
                .decrypt_in_place(unit, tag, about)
                .map_err(|_| NotAuthentic),
        };
        if opened.is_err() {
            unit.fill(0);
        }
        opened
    }

    /// Decrypts `unit` in place without asking its tag, so that whatever was altered comes out with
    /// the rest. AES-GCM encrypts by a key stream, which sealing once more takes off again; the
    /// plaintext of AEGIS cannot be had without its tag.
    pub(crate) fn release(&self, sequence: u64, unit: &mut [u8]) -> Result<(), NotAuthentic> {
        match self {
            Self::Gcm(key) => key
                .seal_in_place_separate_tag(nonce(sequence), Aad::empty(), unit)
                .map(|_| ())
                .map_err(|_| NotAuthentic),
            Self::Aegis(_) => Err(NotAuthentic),
        }
    }
}

fn nonce(sequence: u64) -> Nonce {
    let mut bytes = [0; 12];
    let (low, _) = bytes.split_at_mut(8);
    low.copy_from_slice(&sequence.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn long_nonce(sequence: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    let (low, _) = bytes.split_at_mut(8);
    low.copy_from_slice(&sequence.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_opens_only_where_and_as_it_was_sealed() {
        for suite in [Suite::Aes256Gcm, Suite::Aegis256X4] {
            let cipher = Cipher::new(suite, &Secret::new([7; 32])).unwrap();
            let place = Unit::Sector(9).place(&[1; 16]);
            let mut unit = vec![5; 4096];
            let tag = cipher.seal(3, &place, &mut unit).unwrap();
            assert_ne!(unit, vec![5; 4096]);
            let open = |sequence, place: &Place, flip: usize| {
                let mut copy = unit.clone();
                if let Some(byte) = copy.get_mut(flip) {
                    *byte ^= 1;
                }
                cipher.open(sequence, place, &mut copy, &tag).map(|()| copy)
            };
            assert_eq!(open(3, &place, usize::MAX), Ok(vec![5; 4096]));
            assert_eq!(open(4, &place, usize::MAX), Err(NotAuthentic));
            assert_eq!(open(3, &Unit::Sector(8).place(&[1; 16]), 9999), Err(NotAuthentic));
            assert_eq!(open(3, &Unit::Page(1, 9).place(&[1; 16]), 9999), Err(NotAuthentic));
            assert_eq!(open(3, &place, 4095), Err(NotAuthentic));
            let mut altered = unit.clone();
            altered[9] ^= 1;
            let released = cipher.release(3, &mut altered).map(|()| altered);
            let mut expected = vec![5; 4096];
            expected[9] ^= 1;
            let gcm = suite == Suite::Aes256Gcm;
            assert_eq!(released, if gcm { Ok(expected) } else { Err(NotAuthentic) });
        }
    }
}
