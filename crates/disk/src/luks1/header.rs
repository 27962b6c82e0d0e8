//! The header: 592 bytes, big-endian, without a checksum. Nothing vouches for it, so every field
//! is held against a limit before it is used.

use crate::{Rejection, cipher::hash::ITERATIONS_MAX};

/// Length of the header.
pub const HEADER_BYTES: usize = 592;
/// The unit of offsets, and the encryption sector.
pub(super) const SECTOR: u64 = 512;
/// Key slots of a header.
const SLOTS: usize = 8;
/// Length of the volume key's digest.
const DIGEST_BYTES: usize = 20;
/// Length of every salt.
const SALT_BYTES: usize = 32;
/// The most stripes that we merge; everybody writes 4000.
const STRIPES_MAX: u32 = 8192;

const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
const ACTIVE: u32 = 0x00ac_71f3;
const INACTIVE: u32 = 0x0000_dead;

/// A header whose fields are within our limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Hash of the key derivations and of the anti-forensic split.
    pub hash: String,
    /// Where the data begin, in bytes.
    pub data_at: u64,
    /// Length of the volume key: 32 (AES-128-XTS) or 64 (AES-256-XTS).
    pub key_bytes: usize,
    /// PBKDF2 of the volume key.
    pub digest: [u8; DIGEST_BYTES],
    /// Its salt.
    pub digest_salt: [u8; SALT_BYTES],
    /// Its iterations.
    pub digest_iterations: u32,
    /// UUID in text.
    pub uuid: String,
    /// The key slots that are in use, by their numbers.
    pub slots: Vec<(u32, KeySlot)>,
}

/// A key slot in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlot {
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// PBKDF2 salt.
    pub salt: [u8; SALT_BYTES],
    /// Where the split key lies, in bytes.
    pub material_at: u64,
    /// Stripes of the split key.
    pub stripes: u32,
}

impl Header {
    /// Parses the first [`HEADER_BYTES`] of a volume.
    ///
    /// # Errors
    /// [`Rejection::NotLuks1`] for another magic or version, [`Rejection::Unsupported`] for
    /// another cipher, key size or a detached header, [`Rejection::KdfTooCostly`] and
    /// [`Rejection::MetadataMalformed`] for fields over our limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let mut fields = Fields(bytes);
        if fields.take::<6>()? != MAGIC || u16::from_be_bytes(fields.take()?) != 1 {
            return Err(Rejection::NotLuks1);
        }
        let (cipher, mode) = (fields.text::<32>()?, fields.text::<32>()?);
        let hash = fields.text::<32>()?;
        let data_at = u64::from(fields.u32()?) * SECTOR;
        let key_bytes = fields.u32()?;
        let digest = fields.take()?;
        let digest_salt = fields.take()?;
        let digest_iterations = fields.u32()?;
        let uuid = fields.text::<40>()?;
        if cipher != "aes" || mode != "xts-plain64" {
            return Err(Rejection::unsupported(format!("the cipher {cipher}-{mode}")));
        }
        let key_bytes = match key_bytes {
            32 => 32,
            64 => 64,
            _ => return Err(Rejection::unsupported("a key size other than 256 or 512 bits")),
        };
        if digest_iterations == 0 || digest_iterations > ITERATIONS_MAX {
            return Err(Rejection::malformed("iterations of the key digest"));
        }
        if data_at == 0 {
            return Err(Rejection::unsupported("a detached header"));
        }
        let mut header = Self {
            hash,
            data_at,
            key_bytes,
            digest,
            digest_salt,
            digest_iterations,
            uuid,
            slots: Vec::new(),
        };
        for id in (0_u32..).take(SLOTS) {
            if let Some(slot) = header.slot(id, &mut fields)? {
                header.slots.push((id, slot));
            }
        }
        Ok(header)
    }

    fn slot(&self, id: u32, fields: &mut Fields<'_>) -> Result<Option<KeySlot>, Rejection> {
        let active = fields.u32()?;
        let slot = KeySlot {
            iterations: fields.u32()?,
            salt: fields.take()?,
            material_at: u64::from(fields.u32()?) * SECTOR,
            stripes: fields.u32()?,
        };
        match active {
            ACTIVE => {}
            INACTIVE => return Ok(None),
            _ => return Err(Rejection::malformed(format!("the state of key slot {id}"))),
        }
        if slot.iterations == 0 {
            return Err(Rejection::malformed(format!("no iterations in key slot {id}")));
        }
        if slot.iterations > ITERATIONS_MAX {
            return Err(Rejection::KdfTooCostly { slot: id });
        }
        if slot.stripes == 0 || slot.stripes > STRIPES_MAX {
            return Err(Rejection::unsupported("this anti-forensic splitting"));
        }
        let length = u64::try_from(self.material_bytes(&slot)).unwrap_or(u64::MAX);
        let behind_header = slot.material_at >= HEADER_BYTES as u64;
        let end = slot.material_at.saturating_add(length);
        if !behind_header || end > self.data_at {
            return Err(Rejection::malformed(format!("the place of key slot {id}")));
        }
        Ok(Some(slot))
    }

    /// Bytes of a slot's split key in the file, in whole sectors.
    pub(super) fn material_bytes(&self, slot: &KeySlot) -> usize {
        let stripes = usize::try_from(slot.stripes).unwrap_or(usize::MAX);
        self.key_bytes.saturating_mul(stripes).next_multiple_of(512)
    }
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Rejection> {
        let (field, rest) =
            self.0.split_first_chunk().ok_or_else(|| Rejection::malformed("header too short"))?;
        self.0 = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, Rejection> {
        self.take().map(u32::from_be_bytes)
    }

    /// A text padded with zeros, with at least one.
    fn text<const N: usize>(&mut self) -> Result<String, Rejection> {
        let field = self.take::<N>()?;
        let malformed = || Rejection::malformed("a text of the header");
        let end = field.iter().position(|&b| b == 0).ok_or_else(malformed)?;
        let text = field.get(..end).unwrap_or_default();
        let printable = text.iter().all(|b| b.is_ascii_graphic());
        if !printable {
            return Err(malformed());
        }
        String::from_utf8(text.to_vec()).map_err(|_| malformed())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES];
        out[..6].copy_from_slice(&MAGIC);
        out[7] = 1;
        out[8..11].copy_from_slice(b"aes");
        out[40..51].copy_from_slice(b"xts-plain64");
        out[72..78].copy_from_slice(b"sha256");
        put(&mut out, 104, 4096);
        put(&mut out, 108, 64);
        put(&mut out, 164, 1000);
        out[168..172].copy_from_slice(b"uuid");
        for slot in 0..8 {
            let state = if slot == 1 { ACTIVE } else { INACTIVE };
            put(&mut out, 208 + slot * 48, state);
        }
        put(&mut out, 256 + 4, 2000);
        put(&mut out, 256 + 40, 8);
        put(&mut out, 256 + 44, 4000);
        out
    }

    fn put(out: &mut [u8], at: usize, value: u32) {
        out[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    fn refused(at: usize, value: u32) -> &'static str {
        let mut bad = bytes();
        put(&mut bad, at, value);
        Header::parse(&bad).unwrap_err().code()
    }

    #[test]
    fn a_header_is_parsed() {
        let header = Header::parse(&bytes()).unwrap();
        assert_eq!((header.data_at, header.key_bytes, header.uuid.as_str()), (2 << 20, 64, "uuid"));
        assert_eq!(header.slots.len(), 1);
        let (id, slot) = &header.slots[0];
        assert_eq!((*id, slot.iterations, slot.material_at, slot.stripes), (1, 2000, 4096, 4000));
    }

    #[test]
    fn fields_over_the_limits_are_refused_by_name() {
        assert_eq!(refused(4, 0xbabe_0002), "not-luks1");
        assert_eq!(refused(104, 0), "unsupported");
        assert_eq!(refused(108, 48), "unsupported");
        assert_eq!(refused(164, 0), "metadata-malformed");
        assert_eq!(refused(208, 1), "metadata-malformed");
        assert_eq!(refused(256 + 4, u32::MAX), "kdf-too-costly");
        assert_eq!(refused(256 + 4, 0), "metadata-malformed");
        assert_eq!(refused(256 + 40, 1), "metadata-malformed");
        assert_eq!(refused(256 + 40, 4000), "metadata-malformed");
        assert_eq!(refused(256 + 44, 1 << 20), "unsupported");
        let mut essiv = bytes();
        essiv[40..56].copy_from_slice(b"cbc-essiv:sha256");
        let said = Header::parse(&essiv).unwrap_err().to_string();
        assert_eq!(said, "not supported: the cipher aes-cbc-essiv:sha256");
        assert!(Header::parse(&bytes()[..591]).is_err());
    }

    proptest! {
        #[test]
        fn a_mutated_header_never_panics(at in 0_usize..HEADER_BYTES, value: u8, cut in 0_usize..600) {
            let mut bad = bytes();
            bad[at] = value;
            let _ = Header::parse(&bad);
            let _ = Header::parse(bad.get(..cut).unwrap_or(&bad));
        }
    }
}
