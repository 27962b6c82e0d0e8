//! Fields of fixed-size structures: little-endian numbers and zero-padded texts, read with limits.

use crate::Rejection;

/// The `N` bytes at `at`.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Rejection> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| Rejection::malformed("a structure is too short"))
}

/// The `length` bytes at `at`.
pub(crate) fn run(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], Rejection> {
    bytes
        .get(at..at.saturating_add(length))
        .ok_or_else(|| Rejection::malformed("a structure is too short"))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Rejection> {
    field(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Rejection> {
    field(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Rejection> {
    field(bytes, at).map(u64::from_le_bytes)
}

/// Refuses reserved bytes that are not zero.
pub(crate) fn reserved(bytes: &[u8], at: usize, length: usize) -> Result<(), Rejection> {
    if run(bytes, at, length)?.iter().all(|&b| b == 0) {
        Ok(())
    } else {
        Err(Rejection::malformed(format!("reserved bytes at {at} are not zero")))
    }
}

/// Puts `value` at `at` of a buffer that the caller made large enough.
pub(crate) fn put(out: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = out.get_mut(at..at.saturating_add(value.len())) {
        place.copy_from_slice(value);
    }
}

/// A UTF-8 text without zero bytes that fits into `N` bytes of a structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text<const N: usize>(String);

impl<const N: usize> Text<N> {
    /// `text`, if it fits.
    pub(crate) fn new(text: &str) -> Result<Self, Rejection> {
        if text.len() > N || text.contains('\0') {
            return Err(Rejection::malformed(format!("a text of more than {N} bytes")));
        }
        Ok(Self(text.to_owned()))
    }

    /// The zero-padded text at `at`.
    pub(crate) fn decode(bytes: &[u8], at: usize) -> Result<Self, Rejection> {
        let field = run(bytes, at, N)?;
        let end = field.iter().position(|&b| b == 0).unwrap_or(N);
        let (text, padding) = field.split_at_checked(end).unwrap_or((field, &[]));
        if padding.iter().any(|&b| b != 0) {
            return Err(Rejection::malformed("a text with bytes behind its end"));
        }
        let text = str::from_utf8(text).map_err(|_| Rejection::malformed("a text is not UTF-8"))?;
        Ok(Self(text.to_owned()))
    }

    /// Puts the text at `at` of zeros.
    pub(crate) fn encode(&self, out: &mut [u8], at: usize) {
        put(out, at, self.0.as_bytes());
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_fills_its_field_and_not_more() {
        let full = Text::<4>::new("äöx").unwrap_err();
        assert_eq!(full.code(), "metadata-malformed");
        let text = Text::<4>::new("äö").unwrap();
        let mut out = [0; 6];
        text.encode(&mut out, 1);
        assert_eq!(Text::<4>::decode(&out, 1).unwrap(), text);
        assert_eq!(text.as_str(), "äö");
    }

    #[test]
    fn a_text_with_a_tail_is_refused() {
        assert!(Text::<4>::decode(b"a\0b\0", 0).is_err());
        assert!(Text::<4>::decode(b"\xff\0\0\0", 0).is_err());
        assert!(Text::<4>::decode(b"abc", 0).is_err());
    }
}
