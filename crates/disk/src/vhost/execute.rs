//! Doing what a request asks: data are copied between the guest's memory and the worker's buffer,
//! and the volume works on the buffer.

use std::io;

use super::{
    Fault,
    config::{RANGE_SECTORS_MAX, RANGES_MAX},
    request::{Kind, Range, Request},
    ring::Segment,
    worker::Work,
};
use crate::{nbd::add, steps::step};

/// Data that are copied and worked on at a time.
pub(super) const CHUNK: usize = 256 << 10;

impl Work {
    /// What the request at hand came to; its data are in `segments`.
    pub(super) fn execute(
        &mut self,
        request: &Request,
        segments: &[Segment],
    ) -> Result<Done, Trouble> {
        let changes = matches!(request.kind, Kind::Write | Kind::Discard | Kind::WriteZeroes);
        if changes && self.job.volume.read_only() {
            return Err(Trouble::Io(io::ErrorKind::PermissionDenied.into()));
        }
        let done = match request.kind {
            Kind::Read => {
                add(&self.job.counters.reads, 1);
                add(&self.job.counters.bytes_read, request.writable);
                self.read(request, segments)?
            }
            Kind::Write => {
                add(&self.job.counters.writes, 1);
                add(&self.job.counters.bytes_written, request.readable);
                self.write(request, segments)?
            }
            Kind::Flush => {
                add(&self.job.counters.flushes, 1);
                self.job.volume.flush()?;
                Done::Bytes(0)
            }
            Kind::Id => self.scatter_id(segments)?,
            Kind::Discard | Kind::WriteZeroes => self.ranges(request, segments)?,
            Kind::Unknown(_) => Done::Unsupported,
        };
        if self.job.write_through && changes {
            self.job.volume.flush()?;
        }
        Ok(done)
    }

    /// The range in bytes, if it lies in the volume.
    fn range(&self, sector: u64, length: u64) -> Result<u64, Trouble> {
        let start = sector.checked_mul(512).filter(|_| length.is_multiple_of(512));
        let inside = start
            .and_then(|start| start.checked_add(length))
            .is_some_and(|end| end <= self.job.volume.size());
        match start {
            Some(start) if inside => Ok(start),
            _ => Err(Trouble::Io(io::ErrorKind::InvalidInput.into())),
        }
    }

    fn read(&mut self, request: &Request, segments: &[Segment]) -> Result<Done, Trouble> {
        let start = self.range(request.sector, request.writable)?;
        let mut cursor = Cursor::new(segments, true);
        let mut at = start;
        let end = start.saturating_add(request.writable);
        while at < end {
            let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let chunk = self.buf.get_mut(..left.min(CHUNK)).unwrap_or_default();
            step("S410", at, chunk.len());
            self.job.volume.read(at, chunk)?;
            let memory = self.job.ring.memory();
            cursor.each(chunk, |address, part| memory.write(address, part))?;
            step("S440", at, chunk.len());
            at = at.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        }
        Ok(Done::Bytes(u32::try_from(request.writable).unwrap_or(u32::MAX)))
    }

    fn write(&mut self, request: &Request, segments: &[Segment]) -> Result<Done, Trouble> {
        let start = self.range(request.sector, request.readable)?;
        let mut cursor = Cursor::new(segments, false);
        let mut at = start;
        let end = start.saturating_add(request.readable);
        while at < end {
            let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let chunk = self.buf.get_mut(..left.min(CHUNK)).unwrap_or_default();
            let memory = self.job.ring.memory();
            cursor.each(chunk, |address, part| memory.read(address, part))?;
            step("S310", at, chunk.len());
            self.job.volume.write(at, chunk)?;
            at = at.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        }
        Ok(Done::Bytes(0))
    }

    /// The volume has no serial number of its own; the format's name must do.
    fn scatter_id(&mut self, segments: &[Segment]) -> Result<Done, Trouble> {
        let mut id = [0; 20];
        for (to, from) in
            id.iter_mut().zip(b"vouchsafe-".iter().chain(self.job.volume.format().as_bytes()))
        {
            *to = *from;
        }
        let memory = self.job.ring.memory();
        let mut cursor = Cursor::new(segments, true);
        let room = cursor.room().min(id.len());
        cursor.each(id.get_mut(..room).unwrap_or_default(), |at, part| memory.write(at, part))?;
        Ok(Done::Bytes(u32::try_from(room).unwrap_or(0)))
    }

    fn ranges(&mut self, request: &Request, segments: &[Segment]) -> Result<Done, Trouble> {
        let length = usize::try_from(request.readable).unwrap_or(usize::MAX);
        if !length.is_multiple_of(Range::BYTES) || length > RANGES_MAX * Range::BYTES {
            return Err(Trouble::Io(io::ErrorKind::InvalidInput.into()));
        }
        let mut bytes = [0; RANGES_MAX * Range::BYTES];
        let bytes = bytes.get_mut(..length).unwrap_or_default();
        let memory = self.job.ring.memory();
        Cursor::new(segments, false).each(bytes, |address, part| memory.read(address, part))?;
        let clears = request.kind == Kind::WriteZeroes;
        for raw in bytes.as_chunks().0 {
            let range = Range::parse(raw);
            let known = if clears { 1 } else { 0 };
            if range.flags & !known != 0 {
                return Ok(Done::Unsupported);
            }
            if range.sectors > RANGE_SECTORS_MAX {
                return Err(Trouble::Io(io::ErrorKind::InvalidInput.into()));
            }
            let length = u64::from(range.sectors) * 512;
            let start = self.range(range.sector, length)?;
            if clears {
                add(&self.job.counters.zeroes, 1);
                self.job.volume.write_zeroes(start, length)?;
            } else {
                add(&self.job.counters.trims, 1);
                self.job.volume.trim(start, length)?;
            }
        }
        Ok(Done::Bytes(0))
    }
}

/// What a request came to.
pub(super) enum Done {
    /// So many bytes of data went to the guest's memory.
    Bytes(u32),
    Unsupported,
}

/// Why a request failed.
pub(super) enum Trouble {
    Fault(Fault),
    Io(io::Error),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Goes through the segments of one direction.
struct Cursor<'a> {
    segments: &'a [Segment],
    writable: bool,
    used: u32,
}

impl<'a> Cursor<'a> {
    const fn new(segments: &'a [Segment], writable: bool) -> Self {
        Self { segments, writable, used: 0 }
    }

    fn room(&self) -> usize {
        let ours = self.segments.iter().filter(|segment| segment.writable == self.writable);
        let sum: u64 = ours.map(|segment| u64::from(segment.length)).sum();
        usize::try_from(sum).unwrap_or(usize::MAX)
    }

    /// Copies the next bytes, part by part.
    fn each(
        &mut self,
        mut bytes: &mut [u8],
        mut copy: impl FnMut(u64, &mut [u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let (segment, rest) = self.segments.split_first().ok_or(Fault::HeaderMissing)?;
            let left = segment.length.saturating_sub(self.used);
            if segment.writable != self.writable || left == 0 {
                self.segments = rest;
                self.used = 0;
                continue;
            }
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let (part, later) = bytes.split_at_mut(now);
            copy(segment.at.saturating_add(u64::from(self.used)), part)?;
            self.used = self.used.saturating_add(u32::try_from(now).unwrap_or(u32::MAX));
            bytes = later;
        }
        Ok(())
    }
}
