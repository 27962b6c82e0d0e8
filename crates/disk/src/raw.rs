//! A plain file as a [`Volume`]: for import, and as the yardstick of the benchmarks. Nothing is
//! encrypted; it is opened only if the caller says `raw`.

use std::io;

use model::Kmi;

use crate::{
    Extent, OpenOptions, Rejection, TrimPolicy, Volume, VolumeError,
    open::{Medium, Run},
    volume::check_range,
};

/// Bytes of zeros that are written at a time where the medium has no holes.
const ZERO_RUN: usize = 256 << 10;

/// An open plain file.
#[derive(Debug)]
pub struct RawVolume {
    medium: Medium,
    trim: TrimPolicy,
}

impl RawVolume {
    /// Serves all of `medium`.
    pub(crate) fn new(medium: Medium, options: &OpenOptions) -> Result<Self, VolumeError> {
        if medium.end() == 0 {
            return Err(Rejection::SizeInvalid { size: 0, sector: 1 }.into());
        }
        Ok(Self { medium, trim: options.trim })
    }
}

impl Volume for RawVolume {
    fn waits(&self) -> bool {
        self.medium.waits()
    }

    fn format(&self) -> &'static str {
        "raw"
    }

    fn size(&self) -> u64 {
        self.medium.end()
    }

    fn sector_size(&self) -> u32 {
        512
    }

    fn read_only(&self) -> bool {
        self.medium.read_only()
    }

    fn kmi(&self) -> Option<&Kmi> {
        None
    }

    fn header_damage(&self) -> Option<&str> {
        None
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, u64::try_from(buf.len()).unwrap_or(u64::MAX), self.medium.end())?;
        self.medium.read(offset, buf)
    }

    fn write(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.medium.check_write(
            offset,
            u64::try_from(data.len()).unwrap_or(u64::MAX),
            self.medium.end(),
        )?;
        self.medium.write(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.medium.check_write(offset, length, self.medium.end())?;
        if length == 0 || self.trim == TrimPolicy::Punch && self.medium.punch(offset, length)? {
            return Ok(());
        }
        let zeros = vec![0; ZERO_RUN];
        let end = offset.saturating_add(length);
        let mut at = offset;
        while at < end {
            let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let run = zeros.get(..left.min(ZERO_RUN)).unwrap_or_default();
            self.medium.write(at, run)?;
            at = at.saturating_add(u64::try_from(run.len()).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.medium.check_write(offset, length, self.medium.end())?;
        if length > 0 && self.trim == TrimPolicy::Punch {
            self.medium.punch(offset, length)?;
        }
        Ok(())
    }

    fn prefetch(&self, offset: u64, length: u64) -> io::Result<()> {
        check_range(offset, length, self.medium.end())?;
        self.medium.prefetch(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        self.medium.flush()
    }

    fn flush_failed(&self) -> bool {
        self.medium.flush_failed()
    }

    fn extents(&self, offset: u64, length: u64, max: usize) -> io::Result<Vec<Extent>> {
        check_range(offset, length, self.medium.end())?;
        let end = offset.saturating_add(length);
        let (mut found, mut at) = (Vec::new(), offset);
        while at < end && found.len() < max {
            let (to, hole) = match self.medium.run_at(at)? {
                Run::Data { end } => (end, false),
                Run::Hole { end } => (end, true),
            };
            let to = to.clamp(at.saturating_add(1), end);
            found.push(Extent { length: to.saturating_sub(at), hole, zero: hole });
            at = to;
        }
        Ok(found)
    }
}
