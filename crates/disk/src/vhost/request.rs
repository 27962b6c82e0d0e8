//! A virtio block request (virtio 1.2, section 5.2.6): what is asked, where its data and its
//! status are. The framing is the guest's choice, so only the order counts: readable bytes first,
//! the first 16 of them the header; writable bytes last, the last of them the status.

use super::{Fault, memory::Memory, ring::Segment};

/// The most data of one request.
pub(super) const DATA_MAX: u64 = 32 << 20;
const HEADER_BYTES: usize = 16;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Id,
    Discard,
    WriteZeroes,
    Unknown(u32),
}

impl Kind {
    const fn from_wire(code: u32) -> Self {
        match code {
            0 => Self::Read,
            1 => Self::Write,
            4 => Self::Flush,
            8 => Self::Id,
            11 => Self::Discard,
            13 => Self::WriteZeroes,
            other => Self::Unknown(other),
        }
    }
}

/// A request whose framing is right. The data's addresses are checked when they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) sector: u64,
    /// Bytes to be read behind the header.
    pub(super) readable: u64,
    /// Bytes to be written before the status.
    pub(super) writable: u64,
    /// Where the status goes.
    pub(super) status_at: u64,
}

impl Request {
    /// Reads the header and cuts it, and the status, off `segments`; what remains are the data.
    pub(super) fn read(memory: &Memory, segments: &mut Vec<Segment>) -> Result<Self, Fault> {
        let split = segments.partition_point(|segment| !segment.writable);
        let behind = segments.get(split..).unwrap_or_default();
        if behind.iter().any(|segment| !segment.writable) {
            return Err(Fault::ReadableBehindWritable);
        }
        let status_at = cut_status(segments)?;
        let header = take_header(memory, segments)?;
        let sum = |writable: bool| -> u64 {
            let of_kind = segments.iter().filter(|segment| segment.writable == writable);
            of_kind.map(|segment| u64::from(segment.length)).sum()
        };
        let (readable, writable) = (sum(false), sum(true));
        let more = readable.saturating_add(writable);
        if more > DATA_MAX {
            return Err(Fault::DataTooLong(more));
        }
        let [code, _reserved, low, high] = header;
        let sector = u64::from(low) | u64::from(high) << 32;
        Ok(Self { kind: Kind::from_wire(code), sector, readable, writable, status_at })
    }
}

/// Takes the last writable byte.
fn cut_status(segments: &mut Vec<Segment>) -> Result<u64, Fault> {
    loop {
        let last = segments.last_mut().ok_or(Fault::StatusMissing)?;
        if !last.writable {
            return Err(Fault::StatusMissing);
        }
        if let Some(rest) = last.length.checked_sub(1) {
            last.length = rest;
            return Ok(last.at.saturating_add(u64::from(rest)));
        }
        segments.pop();
    }
}

/// Takes the first 16 readable bytes, as four little-endian words.
fn take_header(memory: &Memory, segments: &mut [Segment]) -> Result<[u32; 4], Fault> {
    let mut header = [0; HEADER_BYTES];
    let mut missing = header.as_mut_slice();
    for segment in segments.iter_mut().filter(|segment| !segment.writable) {
        let there = usize::try_from(segment.length).unwrap_or(usize::MAX).min(missing.len());
        let (now, later) = missing.split_at_mut(there);
        memory.read(segment.at, now)?;
        let taken = u32::try_from(there).unwrap_or(u32::MAX);
        segment.at = segment.at.saturating_add(u64::from(taken));
        segment.length = segment.length.saturating_sub(taken);
        missing = later;
    }
    if !missing.is_empty() {
        return Err(Fault::HeaderMissing);
    }
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    Ok(words)
}

/// A run of sectors to discard or to clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) sector: u64,
    pub(super) sectors: u32,
    pub(super) flags: u32,
}

impl Range {
    /// Length on the wire.
    pub(super) const BYTES: usize = 16;

    pub(super) fn parse(bytes: &[u8; Self::BYTES]) -> Self {
        let value = u128::from_le_bytes(*bytes);
        let low = |value: u128| u32::try_from(value & u128::from(u32::MAX)).unwrap_or(u32::MAX);
        Self {
            sector: u64::try_from(value & u128::from(u64::MAX)).unwrap_or(u64::MAX),
            sectors: low(value >> 64),
            flags: low(value >> 96),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let mut bytes = vec![0; 4096];
        bytes[0] = 1;
        bytes[8] = 9;
        Memory::of(&bytes).unwrap()
    }

    fn segment(at: u64, length: u32, writable: bool) -> Segment {
        Segment { at, length, writable }
    }

    fn read(mut segments: Vec<Segment>) -> Result<Request, Fault> {
        Request::read(&memory(), &mut segments)
    }

    #[test]
    fn any_framing_is_understood() {
        let expected =
            Request { kind: Kind::Write, sector: 9, readable: 512, writable: 0, status_at: 2000 };
        let usual = [segment(0, 16, false), segment(512, 512, false), segment(2000, 1, true)];
        assert_eq!(read(usual.to_vec()), Ok(expected));
        let odd = [segment(0, 5, false), segment(5, 523, false), segment(2000, 1, true)];
        assert_eq!(read(odd.to_vec()), Ok(expected));
    }

    #[test]
    fn bad_framing_is_named() {
        let (head, status) = (segment(0, 16, false), segment(2000, 1, true));
        assert_eq!(read(vec![]), Err(Fault::StatusMissing));
        assert_eq!(read(vec![head]), Err(Fault::StatusMissing));
        assert_eq!(read(vec![head, segment(0, 0, true)]), Err(Fault::StatusMissing));
        assert_eq!(read(vec![segment(0, 15, false), status]), Err(Fault::HeaderMissing));
        assert_eq!(read(vec![head, status, head]), Err(Fault::ReadableBehindWritable));
        let far = segment(1 << 40, 16, false);
        assert_eq!(read(vec![far, status]), Err(Fault::OutsideMemory(1 << 40)));
        let long = segment(0, 64 << 20, true);
        assert_eq!(read(vec![head, long, status]), Err(Fault::DataTooLong(64 << 20)));
    }
}
