//! The binary header: 4096 bytes, big-endian, at the start of each of the two header copies
//! (specification, section 2.1). The checksum covers it and the JSON area behind it.

use aws_lc_rs::digest;

use crate::Rejection;

/// Length of the binary header.
pub const BINARY_BYTES: usize = 4096;

/// Smallest and largest header copy, binary header and JSON area together.
pub(super) const COPY_MIN: u64 = 0x4000;
pub(super) const COPY_MAX: u64 = 0x40_0000;

const CHECKSUM_AT: usize = 448;
const CHECKSUM_FIELD: usize = 64;

/// Which of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// At the start of the file.
    Primary,
    /// Behind the primary.
    Secondary,
}

impl Copy {
    const fn magic(self) -> [u8; 6] {
        match self {
            Self::Primary => *b"LUKS\xba\xbe",
            Self::Secondary => *b"SKUL\xba\xbe",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

impl std::fmt::Display for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The fields of a binary header that carry meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinaryHeader {
    /// Length of this header copy with its JSON area.
    pub hdr_size: u64,
    /// Counts changes of the header; the copy with the larger one is newer.
    pub seqid: u64,
    /// Where this copy is.
    pub hdr_offset: u64,
    /// Label, at most 47 bytes.
    pub label: String,
    /// UUID, at most 39 bytes.
    pub uuid: String,
    /// Random bytes that make two copies differ.
    pub salt: [u8; 64],
}

impl BinaryHeader {
    /// Parses the first [`BINARY_BYTES`] of a header copy. The checksum is not looked at: see
    /// [`verify`](Self::verify), which needs the JSON area.
    ///
    /// # Errors
    /// [`Rejection::NotLuks2`] for another magic or version, [`Rejection::MetadataMalformed`] for
    /// impossible fields, [`Rejection::Unsupported`] for another checksum than SHA-256.
    pub fn parse(bytes: &[u8], copy: Copy) -> Result<Self, Rejection> {
        if field::<6>(bytes, 0)? != copy.magic() {
            return Err(Rejection::NotLuks2);
        }
        if u16::from_be_bytes(field(bytes, 6)?) != 2 {
            return Err(Rejection::NotLuks2);
        }
        let header = Self {
            hdr_size: u64::from_be_bytes(field(bytes, 8)?),
            seqid: u64::from_be_bytes(field(bytes, 16)?),
            label: text(bytes, 24, 48)?,
            salt: field(bytes, 104)?,
            uuid: text(bytes, 168, 40)?,
            hdr_offset: u64::from_be_bytes(field(bytes, 256)?),
        };
        if text(bytes, 72, 32)? != "sha256" {
            return Err(Rejection::unsupported("a header checksum other than sha256"));
        }
        let sizes = COPY_MIN..=COPY_MAX;
        if !sizes.contains(&header.hdr_size) || !header.hdr_size.is_power_of_two() {
            return Err(Rejection::malformed("header size"));
        }
        let expected = match copy {
            Copy::Primary => 0,
            Copy::Secondary => header.hdr_size,
        };
        if header.hdr_offset != expected {
            return Err(Rejection::malformed("header offset"));
        }
        Ok(header)
    }

    /// Checks the checksum of a whole header copy.
    ///
    /// # Errors
    /// [`Rejection::HeaderDamaged`] if it is wrong.
    pub fn verify(copy: &[u8]) -> Result<(), Rejection> {
        let found = field::<32>(copy, CHECKSUM_AT)?;
        if checksum(copy)? == found { Ok(()) } else { Err(Rejection::HeaderDamaged) }
    }

    /// The whole header copy: this header, `json` padded with zeros, and the checksum.
    ///
    /// # Errors
    /// [`Rejection::MetadataMalformed`] if a text or `json` does not fit.
    pub fn encode(&self, copy: Copy, json: &[u8]) -> Result<Vec<u8>, Rejection> {
        let size = usize::try_from(self.hdr_size).unwrap_or(usize::MAX);
        let room = size.saturating_sub(BINARY_BYTES);
        if self.hdr_size > COPY_MAX || json.len() >= room {
            return Err(Rejection::malformed("the metadata do not fit into the header"));
        }
        let mut out = vec![0; size];
        put(&mut out, 0, &copy.magic())?;
        put(&mut out, 6, &2_u16.to_be_bytes())?;
        put(&mut out, 8, &self.hdr_size.to_be_bytes())?;
        put(&mut out, 16, &self.seqid.to_be_bytes())?;
        put_text(&mut out, 24, 48, &self.label)?;
        put_text(&mut out, 72, 32, "sha256")?;
        put(&mut out, 104, &self.salt)?;
        put_text(&mut out, 168, 40, &self.uuid)?;
        put(&mut out, 256, &self.hdr_offset.to_be_bytes())?;
        put(&mut out, BINARY_BYTES, json)?;
        let sum = checksum(&out)?;
        put(&mut out, CHECKSUM_AT, &sum)?;
        Ok(out)
    }
}

/// SHA-256 of the copy with the checksum field as zeros.
fn checksum(copy: &[u8]) -> Result<[u8; 32], Rejection> {
    let short = || Rejection::malformed("header too short");
    let (before, rest) = copy.split_at_checked(CHECKSUM_AT).ok_or_else(short)?;
    let (_, after) = rest.split_at_checked(CHECKSUM_FIELD).ok_or_else(short)?;
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(before);
    context.update(&[0; CHECKSUM_FIELD]);
    context.update(after);
    let sum = context.finish();
    sum.as_ref().try_into().map_err(|_| short())
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Rejection> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| Rejection::malformed("header too short"))
}

/// A text padded with zeros, with at least one.
fn text(bytes: &[u8], at: usize, length: usize) -> Result<String, Rejection> {
    let end = at.saturating_add(length);
    let field = bytes.get(at..end).ok_or_else(|| Rejection::malformed("header too short"))?;
    let stop = field.iter().position(|&b| b == 0).ok_or_else(|| Rejection::malformed("text"))?;
    let text = field.get(..stop).unwrap_or_default();
    String::from_utf8(text.to_vec()).map_err(|_| Rejection::malformed("text"))
}

fn put(out: &mut [u8], at: usize, value: &[u8]) -> Result<(), Rejection> {
    let end = at.saturating_add(value.len());
    out.get_mut(at..end)
        .ok_or_else(|| Rejection::malformed("a header field does not fit"))?
        .copy_from_slice(value);
    Ok(())
}

fn put_text(out: &mut [u8], at: usize, length: usize, value: &str) -> Result<(), Rejection> {
    if value.len() >= length || value.contains('\0') {
        return Err(Rejection::malformed("a text does not fit into the header"));
    }
    put(out, at, value.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> BinaryHeader {
        BinaryHeader {
            hdr_size: 0x4000,
            seqid: 3,
            hdr_offset: 0,
            label: "l".to_owned(),
            uuid: "6ad0a9a6-2a6e-4f2e-8a3e-6d0d8e2c1b11".to_owned(),
            salt: [9; 64],
        }
    }

    #[test]
    fn a_header_round_trips_with_its_checksum() {
        let bytes = header().encode(Copy::Primary, b"{}").unwrap();
        assert_eq!(bytes.len(), 0x4000);
        assert_eq!(BinaryHeader::parse(&bytes, Copy::Primary).unwrap(), header());
        BinaryHeader::verify(&bytes).unwrap();
    }

    #[test]
    fn any_flipped_bit_breaks_the_checksum() {
        let bytes = header().encode(Copy::Primary, b"{}").unwrap();
        for at in (0..bytes.len()).step_by(97).filter(|at| !(480..512).contains(at)) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert_eq!(BinaryHeader::verify(&bad), Err(Rejection::HeaderDamaged), "byte {at}");
        }
    }

    #[test]
    fn another_magic_version_or_size_is_refused() {
        let good = header().encode(Copy::Primary, b"{}").unwrap();
        assert_eq!(BinaryHeader::parse(&good, Copy::Secondary), Err(Rejection::NotLuks2));
        let mut luks1 = good.clone();
        luks1[7] = 1;
        assert_eq!(BinaryHeader::parse(&luks1, Copy::Primary), Err(Rejection::NotLuks2));
        let mut huge = good.clone();
        huge[8] = 0xff;
        assert!(BinaryHeader::parse(&huge, Copy::Primary).is_err());
        let mut sum = good;
        sum[72] = b'x';
        assert_eq!(BinaryHeader::parse(&sum, Copy::Primary).unwrap_err().code(), "unsupported");
    }

    proptest! {
        #[test]
        fn parsing_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = BinaryHeader::parse(&bytes, Copy::Primary);
            let _ = BinaryHeader::verify(&bytes);
        }
    }
}
