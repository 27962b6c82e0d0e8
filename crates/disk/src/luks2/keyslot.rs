//! A key slot: the volume key, split, encrypted under a key derived from the slot's secret.

use aws_lc_rs::constant_time;
use model::Secret;

use super::{
    kdf,
    metadata::{Area, KeyDigest, Luks2Keyslot},
};
use crate::{
    Rejection, VolumeError,
    cipher::{KEY_BYTES, SectorCipher, af, hash},
};

/// Sector of a key slot's area, whatever the volume's.
const AREA_SECTOR: usize = 512;
/// The most stripes that we merge; cryptsetup writes 4000.
const STRIPES_MAX: u32 = 8192;

const CRYPTO: VolumeError = VolumeError::Crypto { what: "work on a key slot" };

/// Bytes of the split key in the slot's area.
pub(super) fn split_bytes(slot: &Luks2Keyslot) -> Result<usize, Rejection> {
    if slot.af.kind != "luks1" || slot.af.stripes == 0 || slot.af.stripes > STRIPES_MAX {
        return Err(Rejection::unsupported("this anti-forensic splitting"));
    }
    if slot.key_size != 64 || slot.area.key_size != 64 {
        return Err(Rejection::unsupported("a key size other than 512 bits"));
    }
    if slot.area.kind != "raw" || slot.area.encryption != "aes-xts-plain64" {
        return Err(Rejection::unsupported("the encryption of a key slot"));
    }
    let stripes = usize::try_from(slot.af.stripes).unwrap_or(usize::MAX);
    let bytes = KEY_BYTES.saturating_mul(stripes).next_multiple_of(AREA_SECTOR);
    if !area_holds(&slot.area, bytes) {
        return Err(Rejection::malformed("a key slot's area is too small"));
    }
    Ok(bytes)
}

fn area_holds(area: &Area, bytes: usize) -> bool {
    u64::try_from(bytes).is_ok_and(|bytes| bytes <= area.size.0)
}

/// The area's content for `volume_key` under `secret`.
pub(super) fn seal(
    slot: &Luks2Keyslot,
    id: u32,
    secret: &[u8],
    volume_key: &[u8],
) -> Result<Vec<u8>, VolumeError> {
    let algorithm = hash::hash_named(&slot.af.hash)?;
    let bytes = split_bytes(slot)?;
    let mut split = af::split(volume_key, slot.af.stripes, algorithm)?;
    let area = split.expose_mut();
    area.resize(bytes, 0);
    let key = kdf::derive(&slot.kdf, id, secret, KEY_BYTES)?;
    let cipher = SectorCipher::new(key, AREA_SECTOR, 0).map_err(|_| CRYPTO)?;
    cipher.seal(0, area).map_err(|_| CRYPTO)?;
    // Encrypted now: no secret any more.
    Ok(std::mem::take(area))
}

/// The candidate for the volume key in an area's content; whether it is one, [`matches()`] says.
pub(super) fn unseal(
    slot: &Luks2Keyslot,
    id: u32,
    secret: &[u8],
    area: Vec<u8>,
) -> Result<Secret<Vec<u8>>, VolumeError> {
    let algorithm = hash::hash_named(&slot.af.hash)?;
    let key = kdf::derive(&slot.kdf, id, secret, KEY_BYTES)?;
    let cipher = SectorCipher::new(key, AREA_SECTOR, 0).map_err(|_| CRYPTO)?;
    let mut split = Secret::new(area);
    cipher.open(0, split.expose_mut()).map_err(|_| CRYPTO)?;
    let stripes = usize::try_from(slot.af.stripes).unwrap_or(usize::MAX);
    let bytes = KEY_BYTES.saturating_mul(stripes);
    af::merge(split.expose().get(..bytes).ok_or(CRYPTO)?, KEY_BYTES, algorithm)
}

/// Whether `candidate` is the key that `digest` describes.
pub(super) fn matches(digest: &KeyDigest, candidate: &[u8]) -> Result<bool, Rejection> {
    let length = digest.digest.0.len();
    if digest.kind != "pbkdf2" || !(20..=64).contains(&length) || digest.iterations > 100_000_000 {
        return Err(Rejection::unsupported("this key digest"));
    }
    let mut found = vec![0; length];
    hash::pbkdf2(&digest.hash, digest.iterations, &digest.salt.0, candidate, &mut found)?;
    Ok(constant_time::verify_slices_are_equal(&found, &digest.digest.0).is_ok())
}
