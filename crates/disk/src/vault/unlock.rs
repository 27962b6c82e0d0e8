//! From the first slots of a file and a secret to an authentic header and the volume key.
//!
//! ```text
//!   copy A -+-> shape -> its key area, digest -> key slot -> volume key -> HMAC -> candidate
//!   copy B -+                                          the candidate of the higher generation
//! ```
//!
//! **Invariant:** the function is pure, and what it spends on a hostile file is bounded by the
//! limits of [`super::kdf`] times two areas of 16 slots.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use model::Kmi;

use super::{
    header::{Header, KeyAreaSide, SLOT_BYTES, Unverified},
    kdf::{HeaderKey, Key, VolumeKey},
    keyarea::{KEY_AREA_BYTES, KeyArea, Unsealed, digest_of},
    keyslot::{open_key, seal_key},
};
use crate::{Rejection, VolumeError};

/// What [`unlock`] reads: both headers and both key areas.
pub(crate) const START_BYTES: usize = 18 * SLOT_BYTES;

/// One of the two copies of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderCopy {
    A,
    B,
}

impl HeaderCopy {
    /// Byte of the file where it is.
    pub(crate) const fn at(self) -> u64 {
        match self {
            Self::A => 0,
            Self::B => 4096,
        }
    }

    /// The other one.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// A volume whose header is authentic and whose key is known.
#[derive(Debug)]
pub(crate) struct Unlocked {
    pub(crate) header: Header,
    pub(crate) volume_key: VolumeKey,
    /// The key of the epoch before, while re-keying.
    pub(crate) old_key: Option<VolumeKey>,
    pub(crate) header_key: HeaderKey,
    /// The copy that the header came from: the next commit writes the other one first.
    pub(crate) in_force: HeaderCopy,
    pub(crate) area: KeyArea,
    /// The key slot that opened.
    pub(crate) slot: usize,
    pub(crate) kmi: Option<Kmi>,
    /// What is wrong with the other copy, in words.
    pub(crate) damage: Option<String>,
}

/// Finds the header in force with `secret`, among the key slots of `kmi` if given. `start` is the
/// first [`START_BYTES`] of the file.
///
/// # Errors
/// Of two unusable copies, the reason that was met furthest: [`Rejection::NotVault`],
/// [`Rejection::Unsupported`], [`Rejection::HeaderDamaged`], [`Rejection::KeyAreaAltered`],
/// [`Rejection::KmiNotFound`], [`Rejection::WrongKey`], [`Rejection::KdfTooCostly`]; and
/// [`Rejection::HeaderForked`].
pub(crate) fn unlock(
    start: &[u8; START_BYTES],
    secret: &[u8],
    kmi: Option<&Kmi>,
) -> Result<Unlocked, VolumeError> {
    let request = Request { start, secret, kmi };
    let a = request.candidate(HeaderCopy::A, None);
    let b = request.candidate(HeaderCopy::B, a.as_ref().ok());
    let (found, damage) = match (a, b) {
        (Ok(a), Ok(b)) if a.header.generation == b.header.generation => {
            if a.header != b.header {
                return Err(Rejection::HeaderForked.into());
            }
            (a, None)
        }
        (Ok(a), Ok(b)) if a.header.generation > b.header.generation => (a, Some(older(b.copy))),
        (Ok(a), Ok(b)) => (b, Some(older(a.copy))),
        (Ok(a), Err(why)) => (a, Some(unusable(HeaderCopy::B, &why))),
        (Err(why), Ok(b)) => (b, Some(unusable(HeaderCopy::A, &why))),
        (Err(a), Err(b)) => return Err(if a.rank >= b.rank { a.error } else { b.error }),
    };
    let old_key = unwrap_old(&found.header, &found.unsealed.key)?;
    Ok(Unlocked {
        old_key,
        volume_key: found.unsealed.key,
        header: found.header,
        header_key: found.header_key,
        in_force: found.copy,
        area: found.area,
        slot: found.unsealed.slot,
        kmi: found.unsealed.kmi,
        damage,
    })
}

/// Reads the shape of one copy of the header; nothing of it is verified.
pub(crate) fn claims(start: &[u8; START_BYTES], copy: HeaderCopy) -> Result<Unverified, Rejection> {
    let (slots, _) = start.as_chunks::<SLOT_BYTES>();
    let index = match copy {
        HeaderCopy::A => 0,
        HeaderCopy::B => 1,
    };
    Header::decode(slots.get(index).ok_or(Rejection::Truncated)?)
}

/// The bytes of one key area.
pub(crate) fn area_bytes(start: &[u8; START_BYTES], side: KeyAreaSide) -> &[u8; KEY_AREA_BYTES] {
    const EMPTY: &[u8; KEY_AREA_BYTES] = &[0; KEY_AREA_BYTES];
    start.get(side.at()..).and_then(|rest| rest.first_chunk()).unwrap_or(EMPTY)
}

/// Seals `old`, the volume key of the epoch before, under `new`, that of `epoch`.
pub(crate) fn wrap_old(
    old: &VolumeKey,
    new: &VolumeKey,
    uuid: &[u8; 16],
    epoch: u32,
) -> Result<super::header::WrappedKey, VolumeError> {
    let mut sealed = *old.0.expose();
    let tag = seal_key(&new.wrapping_key(uuid)?, &old_key_aad(uuid, epoch), &mut sealed)?;
    Ok(super::header::WrappedKey { sealed, tag })
}

fn unwrap_old(header: &Header, key: &VolumeKey) -> Result<Option<VolumeKey>, VolumeError> {
    let Some(old) = &header.old_key else { return Ok(None) };
    let wrapping: Key = key.wrapping_key(&header.uuid)?;
    let aad = old_key_aad(&header.uuid, header.epoch);
    let old = open_key(&wrapping, &aad, &old.sealed, &old.tag)
        .map_err(|_| Rejection::malformed("the key of the epoch before does not open"))?;
    Ok(Some(VolumeKey(old)))
}

fn old_key_aad(uuid: &[u8; 16], epoch: u32) -> Vec<u8> {
    [uuid.as_slice(), &epoch.to_le_bytes()].concat()
}

struct Request<'a> {
    start: &'a [u8; START_BYTES],
    secret: &'a [u8],
    kmi: Option<&'a Kmi>,
}

/// An authentic copy.
struct Candidate {
    copy: HeaderCopy,
    header: Header,
    header_key: HeaderKey,
    area: KeyArea,
    unsealed: Unsealed,
}

/// Why a copy is not one.
struct Unusable {
    rank: u8,
    error: VolumeError,
}

impl Request<'_> {
    /// `first` is the other copy, if it is usable: opening the same key area twice could cost a
    /// second.
    fn candidate(
        &self,
        copy: HeaderCopy,
        first: Option<&Candidate>,
    ) -> Result<Candidate, Unusable> {
        let unverified = claims(self.start, copy).map_err(at_shape)?;
        let claimed = unverified.claims();
        let bytes = area_bytes(self.start, claimed.key_area);
        let digest = digest_of(bytes);
        verify_slices_are_equal(&digest, &claimed.key_area_digest)
            .map_err(|_| unusable_at(3, Rejection::KeyAreaAltered))?;
        let area = KeyArea::decode(bytes).map_err(|why| unusable_at(4, why))?;
        let unsealed = match first.filter(|first| first.header.key_area_digest == digest) {
            Some(first) => first.unsealed.clone(),
            None => area
                .unseal(self.secret, self.kmi, &claimed.uuid, claimed.epoch)
                .map_err(at_key_slot)?,
        };
        let header_key = unsealed.key.header_key(&claimed.uuid).map_err(at_key_slot)?;
        let header = unverified.verify(&header_key).map_err(|why| unusable_at(8, why))?;
        Ok(Candidate { copy, header, header_key, area, unsealed })
    }
}

fn unusable_at(rank: u8, why: Rejection) -> Unusable {
    Unusable { rank, error: why.into() }
}

/// Nothing vouches for a copy's fields, so malformed ones mean damage.
fn at_shape(why: Rejection) -> Unusable {
    if why == Rejection::NotVault {
        unusable_at(0, why)
    } else if matches!(why, Rejection::Unsupported { .. }) {
        unusable_at(1, why)
    } else {
        unusable_at(2, Rejection::HeaderDamaged)
    }
}

fn at_key_slot(error: VolumeError) -> Unusable {
    let rank = if error.rejection() == Some(&Rejection::KmiNotFound) {
        5
    } else if error.rejection() == Some(&Rejection::WrongKey) {
        6
    } else {
        7
    };
    Unusable { rank, error }
}

fn older(copy: HeaderCopy) -> String {
    format!("copy {} of the header is older than the other", copy.name())
}

fn unusable(copy: HeaderCopy, why: &Unusable) -> String {
    let reason = why.error.rejection().map_or_else(|| why.error.to_string(), Rejection::to_string);
    format!("copy {} of the header is not usable: {reason}", copy.name())
}

#[cfg(test)]
mod tests;
