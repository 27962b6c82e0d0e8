//! Opening a volume: the better header copy, the key slot that the key or the key-management
//! information points to, the volume key checked against its digest.

use std::{fs::File, path::Path};

use model::{Kmi, Secret};

use super::{
    binary::{BINARY_BYTES, BinaryHeader, COPY_MAX, COPY_MIN, Copy},
    keyslot,
    metadata::{CryptSegment, KeyDigest, Keyslot, Luks2Keyslot, Metadata},
};
use crate::{
    OpenOptions, Rejection, VolumeError,
    cipher::{CryptVolume, Geometry, Identity, SectorCipher},
    open::{Medium, check_secret, read_whole},
};

/// The header of a volume: the copy that counts, and what was wrong with the other.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderCopies {
    /// The binary header of the copy that is used.
    pub header: BinaryHeader,
    /// Its metadata.
    pub metadata: Metadata,
    /// Which copy it is.
    pub used: Copy,
    /// What is wrong with the other copy, in words.
    pub damage: Option<String>,
}

/// Opens the LUKS2 volume at `path` with the secret of one of its key slots, and locks it: alone,
/// or shared if read-only.
///
/// # Errors
/// A [`Rejection`] if the file, its header or the key is refused, or the system's error.
pub fn open(
    path: &Path,
    secret: &Secret<Vec<u8>>,
    options: &OpenOptions,
) -> Result<CryptVolume, VolumeError> {
    check_secret(secret)?;
    open_on(Medium::open(path, options)?, secret, options)
}

/// Opens the LUKS2 volume on `medium`.
pub(crate) fn open_on(
    medium: Medium,
    secret: &Secret<Vec<u8>>,
    options: &OpenOptions,
) -> Result<CryptVolume, VolumeError> {
    check_secret(secret)?;
    let copies = read_header(medium.file())?;
    let (segment_id, segment) = copies.metadata.segment()?;
    let geometry = geometry(&medium, segment, options)?;
    let digest = copies.metadata.digest_of(segment_id)?;
    let (slots, kmi) = candidates(&copies.metadata, digest, options.kmi.as_ref())?;
    let from = copies.header.hdr_size * 2;
    let areas = Areas { file: medium.file(), from, to: segment.offset.0 };
    let key = unlock(&areas, &copies.metadata, digest, &slots, secret.expose())?;
    let sector = usize::try_from(geometry.sector).unwrap_or(usize::MAX);
    let cipher = SectorCipher::new(key, sector, segment.iv_tweak.0)
        .map_err(|_| VolumeError::Crypto { what: "take the volume key" })?;
    let identity = Identity { format: "luks2", kmi, damage: copies.damage };
    Ok(CryptVolume::new(medium, geometry, cipher, identity))
}

/// Reads and judges both header copies of a volume; needs no key.
///
/// # Errors
/// [`Rejection::NotLuks2`], [`Rejection::HeaderDamaged`] if neither copy is whole,
/// [`Rejection::MetadataMalformed`], or the system's error.
pub fn read_header(file: &File) -> Result<HeaderCopies, VolumeError> {
    let primary = read_copy(file, 0, Copy::Primary)?;
    let secondary = match &primary {
        Ok((header, _)) => read_copy(file, header.hdr_size, Copy::Secondary)?,
        Err(_) => find_secondary(file)?,
    };
    let whole = |(header, metadata), used, damage| HeaderCopies { header, metadata, used, damage };
    match (primary, secondary) {
        (Ok(first), Ok(second)) if second.0.seqid > first.0.seqid => {
            let damage = Some("the primary header is older than the secondary".to_owned());
            Ok(whole(second, Copy::Secondary, damage))
        }
        (Ok(first), Ok(second)) => {
            let stale = second.0.seqid < first.0.seqid;
            let damage = "the secondary header is older than the primary".to_owned();
            Ok(whole(first, Copy::Primary, stale.then_some(damage)))
        }
        (Ok(first), Err(why)) => {
            let damage = format!("the secondary header is damaged: {why}");
            Ok(whole(first, Copy::Primary, Some(damage)))
        }
        (Err(why), Ok(second)) => {
            let damage = format!("the primary header is damaged: {why}");
            Ok(whole(second, Copy::Secondary, Some(damage)))
        }
        (Err(Rejection::NotLuks2), Err(second)) => Err(second.into()),
        (Err(first), Err(_)) => Err(first.into()),
    }
}

type CopyResult = Result<(BinaryHeader, Metadata), Rejection>;

/// One header copy; the outer error is the medium's, the inner one the content's.
fn read_copy(file: &File, at: u64, copy: Copy) -> Result<CopyResult, VolumeError> {
    let mut bytes = vec![0; BINARY_BYTES];
    if !read_whole(file, at, &mut bytes)? {
        return Ok(Err(Rejection::NotLuks2));
    }
    let header = match BinaryHeader::parse(&bytes, copy) {
        Ok(header) => header,
        Err(Rejection::NotLuks2) => return Ok(Err(Rejection::NotLuks2)),
        // Nothing vouches for these fields yet.
        Err(_) => return Ok(Err(Rejection::HeaderDamaged)),
    };
    let size = usize::try_from(header.hdr_size).unwrap_or(usize::MAX);
    bytes.resize(size, 0);
    if !read_whole(file, at, &mut bytes)? {
        return Ok(Err(Rejection::Truncated));
    }
    Ok(parse_copy(&bytes, header))
}

fn parse_copy(bytes: &[u8], header: BinaryHeader) -> CopyResult {
    BinaryHeader::verify(bytes)?;
    let json = bytes.get(BINARY_BYTES..).unwrap_or_default();
    Ok((header, Metadata::parse(json)?))
}

/// Without a primary nothing says where the secondary is; it is at one of a few powers of two.
fn find_secondary(file: &File) -> Result<CopyResult, VolumeError> {
    let mut at = COPY_MIN;
    let mut worst = Rejection::NotLuks2;
    while at <= COPY_MAX {
        match read_copy(file, at, Copy::Secondary)? {
            Ok(found) => return Ok(Ok(found)),
            Err(Rejection::NotLuks2) => {}
            Err(why) => worst = why,
        }
        at *= 2;
    }
    Ok(Err(worst))
}

fn geometry(
    medium: &Medium,
    segment: &CryptSegment,
    options: &OpenOptions,
) -> Result<Geometry, VolumeError> {
    let sector = u64::from(segment.sector_size);
    let there = medium.end().checked_sub(segment.offset.0).ok_or(Rejection::Truncated)?;
    let size = match segment.size.as_str() {
        "dynamic" => there - there % sector,
        fixed => fixed.parse().map_err(|_| Rejection::malformed("segment size"))?,
    };
    if size > there {
        return Err(Rejection::Truncated.into());
    }
    if size == 0 || !size.is_multiple_of(sector) {
        return Err(Rejection::SizeInvalid { size, sector }.into());
    }
    if !segment.offset.0.is_multiple_of(512) {
        return Err(Rejection::malformed("segment offset").into());
    }
    Ok(Geometry {
        data_at: segment.offset.0,
        size,
        sector: segment.sector_size,
        trim: options.trim,
    })
}

/// The key slots to try, best first, and the key-management information they belong to.
fn candidates(
    metadata: &Metadata,
    digest: &KeyDigest,
    wanted: Option<&Kmi>,
) -> Result<(Vec<u32>, Option<Kmi>), Rejection> {
    if let Some(wanted) = wanted {
        let (kmi, slots) =
            metadata.kmis().find(|(kmi, _)| kmi == wanted).ok_or(Rejection::KmiNotFound)?;
        return Ok((slots, Some(kmi)));
    }
    let mut slots: Vec<(u8, u32)> = digest
        .keyslots
        .iter()
        .filter_map(|id| u32::try_from(id.0).ok())
        .filter_map(|id| match metadata.keyslots.get(&id) {
            Some(Keyslot::Luks2(slot)) => Some((slot.priority.unwrap_or(1), id)),
            Some(Keyslot::Other) | None => None,
        })
        .filter(|(priority, _)| *priority > 0)
        .collect();
    slots.sort_by_key(|(priority, id)| (u8::MAX - priority, *id));
    slots.dedup();
    let kmi = metadata.kmis().next().map(|(kmi, _)| kmi);
    Ok((slots.into_iter().map(|(_, id)| id).collect(), kmi))
}

/// Where key slot areas may be.
struct Areas<'a> {
    file: &'a File,
    from: u64,
    to: u64,
}

impl Areas<'_> {
    fn read(&self, slot: &Luks2Keyslot) -> Result<Vec<u8>, VolumeError> {
        let bytes = keyslot::split_bytes(slot)?;
        let (at, size) = (slot.area.offset.0, slot.area.size.0);
        if at < self.from || at.checked_add(size).is_none_or(|end| end > self.to) {
            return Err(Rejection::malformed("a key slot outside the key slot area").into());
        }
        let mut area = vec![0; bytes];
        if !read_whole(self.file, at, &mut area)? {
            return Err(Rejection::Truncated.into());
        }
        Ok(area)
    }
}

fn unlock(
    areas: &Areas<'_>,
    metadata: &Metadata,
    digest: &KeyDigest,
    slots: &[u32],
    secret: &[u8],
) -> Result<Secret<Vec<u8>>, VolumeError> {
    let mut outcome = VolumeError::from(Rejection::WrongKey);
    let mut tried = false;
    for &id in slots {
        let Some(Keyslot::Luks2(slot)) = metadata.keyslots.get(&id) else { continue };
        let candidate = areas.read(slot).and_then(|area| keyslot::unseal(slot, id, secret, area));
        match candidate {
            Ok(key) if keyslot::matches(digest, key.expose())? => return Ok(key),
            Ok(_) => tried = true,
            Err(why) => outcome = why,
        }
    }
    if tried { Err(Rejection::WrongKey.into()) } else { Err(outcome) }
}
