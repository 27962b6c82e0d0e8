//! Big-endian reading and writing of TPM structures (TPM 2.0 Library, part 2). Private to the crate.
//!
//! Every read is bounded by the slice it works on; nothing here allocates from a length that the
//! other side announced.

use zeroize::Zeroizing;

use crate::error::{Malformed, TpmError};

/// The largest command or response that is built or accepted.
pub(crate) const MAX_FRAME: usize = 4096;

/// Reads one structure from bytes that are not trusted.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes(N)?.try_into().map_err(|_| Malformed::Truncated)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A TPM2B: two bytes of length, then so many bytes, at most `limit`.
    pub(crate) fn sized(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16()?);
        if length > limit {
            return Err(Malformed::TooLong);
        }
        self.bytes(length)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Refuses trailing bytes.
    pub(crate) const fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}

/// Builds one structure. The buffer is wiped on drop, since many hold secrets; it is reserved at
/// its largest size at once so that growing leaves no copies behind.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Zeroizing<Vec<u8>>,
    too_long: bool,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(MAX_FRAME)), too_long: false }
    }

    /// A writer for small public structures.
    pub(crate) fn small() -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(128)), too_long: false }
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        if self.bytes.len().saturating_add(value.len()) > MAX_FRAME {
            self.too_long = true;
        } else {
            self.bytes.extend_from_slice(value);
        }
        self
    }

    /// A TPM2B.
    pub(crate) fn sized(&mut self, value: &[u8]) -> &mut Self {
        match u16::try_from(value.len()) {
            Ok(length) => self.u16(length).bytes(value),
            Err(_) => {
                self.too_long = true;
                self
            }
        }
    }

    /// The bytes, unless something did not fit into [`MAX_FRAME`].
    pub(crate) fn finish(self) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        if self.too_long { Err(TpmError::TooLong) } else { Ok(self.bytes) }
    }

    /// As [`Self::finish`], for structures that are public.
    pub(crate) fn finish_public(self) -> Result<Vec<u8>, TpmError> {
        let mut bytes = self.finish()?;
        Ok(std::mem::take(&mut *bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sized_buffer_cannot_reach_past_its_input() {
        assert_eq!(Reader::new(&[0, 3, 1, 2]).sized(8), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[0, 3, 1, 2, 3]).sized(2), Err(Malformed::TooLong));
        assert_eq!(Reader::new(&[0, 3, 1, 2, 3]).sized(3), Ok(&[1, 2, 3][..]));
    }

    #[test]
    fn a_frame_over_the_limit_is_an_error_and_not_cut() {
        let mut writer = Writer::new();
        writer.sized(&[0; MAX_FRAME]);
        assert!(matches!(writer.finish(), Err(TpmError::TooLong)));
    }
}
