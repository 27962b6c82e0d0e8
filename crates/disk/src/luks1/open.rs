//! Opening a LUKS1 volume: the header, the key slot that the key opens, the volume key checked
//! against its digest.

use std::{fs::File, path::Path};

use aws_lc_rs::constant_time;
use model::Secret;

use super::header::{HEADER_BYTES, Header, KeySlot, SECTOR};
use crate::{
    OpenOptions, Rejection, VolumeError,
    cipher::{CryptVolume, Geometry, Identity, SectorCipher, af, hash},
    open::{Medium, check_secret, read_whole},
};

const CRYPTO: VolumeError = VolumeError::Crypto { what: "work on a key slot" };
/// [`SECTOR`], to measure memory with.
const SECTOR_BYTES: usize = 512;

/// Opens the LUKS1 volume at `path` with the secret of one of its key slots, and locks it: alone,
/// or shared if read-only.
///
/// # Errors
/// A [`Rejection`] if the file, its header or the key is refused, or the system's error.
pub fn open(
    path: &Path,
    secret: &Secret<Vec<u8>>,
    options: &OpenOptions,
) -> Result<CryptVolume, VolumeError> {
    open_on(Medium::open(path, options)?, secret, options)
}

/// Opens the LUKS1 volume on `medium`.
pub(crate) fn open_on(
    medium: Medium,
    secret: &Secret<Vec<u8>>,
    options: &OpenOptions,
) -> Result<CryptVolume, VolumeError> {
    check_secret(secret)?;
    if options.kmi.is_some() {
        // LUKS1 has no place for it.
        return Err(Rejection::KmiNotFound.into());
    }
    let header = read_header(medium.file())?;
    let there = medium.end().checked_sub(header.data_at).ok_or(Rejection::Truncated)?;
    let size = there - there % SECTOR;
    if size == 0 {
        return Err(Rejection::SizeInvalid { size, sector: SECTOR }.into());
    }
    let key = unlock(medium.file(), &header, secret.expose())?;
    let cipher = SectorCipher::new(key, SECTOR_BYTES, 0)
        .map_err(|_| VolumeError::Crypto { what: "take the volume key" })?;
    let geometry = Geometry { data_at: header.data_at, size, sector: 512, trim: options.trim };
    let identity = Identity { format: "luks1", kmi: None, damage: None };
    Ok(CryptVolume::new(medium, geometry, cipher, identity))
}

/// Reads the header of a volume; needs no key.
///
/// # Errors
/// Those of [`Header::parse`], or the system's.
pub fn read_header(file: &File) -> Result<Header, VolumeError> {
    let mut bytes = [0; HEADER_BYTES];
    if read_whole(file, 0, &mut bytes)? {
        Ok(Header::parse(&bytes)?)
    } else {
        Err(Rejection::NotLuks1.into())
    }
}

fn unlock(file: &File, header: &Header, secret: &[u8]) -> Result<Secret<Vec<u8>>, VolumeError> {
    for (_, slot) in &header.slots {
        let candidate = unseal(file, header, slot, secret)?;
        if matches(header, candidate.expose())? {
            return Ok(candidate);
        }
    }
    Err(Rejection::WrongKey.into())
}

/// The candidate for the volume key in one key slot.
fn unseal(
    file: &File,
    header: &Header,
    slot: &KeySlot,
    secret: &[u8],
) -> Result<Secret<Vec<u8>>, VolumeError> {
    let algorithm = hash::hash_named(&header.hash)?;
    let mut material = Secret::new(vec![0; header.material_bytes(slot)]);
    if !read_whole(file, slot.material_at, material.expose_mut())? {
        return Err(Rejection::Truncated.into());
    }
    let mut key = Secret::new(vec![0; header.key_bytes]);
    hash::pbkdf2(&header.hash, slot.iterations, &slot.salt, secret, key.expose_mut())?;
    let cipher = SectorCipher::new(key, SECTOR_BYTES, 0).map_err(|_| CRYPTO)?;
    cipher.open(0, material.expose_mut()).map_err(|_| CRYPTO)?;
    let stripes = usize::try_from(slot.stripes).unwrap_or(usize::MAX);
    let split = material.expose().get(..header.key_bytes.saturating_mul(stripes));
    af::merge(split.ok_or(CRYPTO)?, header.key_bytes, algorithm)
}

/// Whether `candidate` is the volume key.
fn matches(header: &Header, candidate: &[u8]) -> Result<bool, Rejection> {
    let mut found = [0; 20];
    hash::pbkdf2(
        &header.hash,
        header.digest_iterations,
        &header.digest_salt,
        candidate,
        &mut found,
    )?;
    Ok(constant_time::verify_slices_are_equal(&found, &header.digest).is_ok())
}
