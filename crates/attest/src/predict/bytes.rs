//! Bounded little-endian reads. Every read past the end is `None`, never a panic.

/// `len` bytes at `offset`.
pub(super) fn slice(data: &[u8], offset: usize, len: usize) -> Option<&[u8]> {
    data.get(offset..offset.checked_add(len)?)
}

/// A little-endian u16 at `offset`.
pub(super) fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    slice(data, offset, 2)?.try_into().ok().map(u16::from_le_bytes)
}

/// A little-endian u32 at `offset`.
pub(super) fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    slice(data, offset, 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// A little-endian u32 at `offset`, as a size or an offset.
pub(super) fn size_at(data: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(u32_at(data, offset)?).ok()
}

/// A little-endian u64 at `offset`, as a size.
pub(super) fn long_at(data: &[u8], offset: usize) -> Option<usize> {
    let value = slice(data, offset, 8)?.try_into().ok().map(u64::from_le_bytes)?;
    usize::try_from(value).ok()
}

/// A little-endian 24-bit size at `offset`, as firmware file and section headers have.
pub(super) fn size24_at(data: &[u8], offset: usize) -> Option<usize> {
    let value: [u8; 3] = slice(data, offset, 3)?.try_into().ok()?;
    let [a, b, c] = value;
    usize::try_from(u32::from_le_bytes([a, b, c, 0])).ok()
}

/// Writes `value` at `offset`; `None` if it does not fit.
pub(super) fn put(data: &mut [u8], offset: usize, value: &[u8]) -> Option<()> {
    data.get_mut(offset..offset.checked_add(value.len())?)?.copy_from_slice(value);
    Some(())
}
