//! The data area of an open volume, as a [`Volume`]: whole sectors are encrypted in place on their
//! way to the file, parts of a sector by read-modify-write.

use std::io;

use model::Kmi;

use super::SectorCipher;
use crate::{
    Extent, TrimPolicy, Volume,
    open::{Medium, Run},
    steps::step,
    stripes::Stripes,
    volume::{check_range, split},
};

/// Bytes of zeros that are encrypted at a time.
const ZERO_RUN: u64 = 256 << 10;
/// Bytes that are read and decrypted, or encrypted and written, at a time: between the two they stay
/// in the processor's cache.
const RUN: usize = 256 << 10;

/// Where the data are and how they may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) data_at: u64,
    pub(crate) size: u64,
    pub(crate) sector: u32,
    pub(crate) trim: TrimPolicy,
}

/// What the volume says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) format: &'static str,
    pub(crate) kmi: Option<Kmi>,
    pub(crate) damage: Option<String>,
}

/// An open LUKS volume. Holds the file's locks until it is dropped.
#[derive(Debug)]
pub struct CryptVolume {
    medium: Medium,
    geometry: Geometry,
    cipher: SectorCipher,
    stripes: Stripes,
    identity: Identity,
}

impl CryptVolume {
    pub(crate) fn new(
        medium: Medium,
        geometry: Geometry,
        cipher: SectorCipher,
        identity: Identity,
    ) -> Self {
        Self { medium, geometry, cipher, stripes: Stripes::new(), identity }
    }

    fn in_file(&self, offset: u64) -> u64 {
        self.geometry.data_at.saturating_add(offset)
    }

    /// Length of the runs of whole sectors: a medium that makes its reader wait gets all at once.
    const fn run(&self, length: usize) -> usize {
        if self.medium.waits() || length < RUN { length } else { RUN }
    }

    fn read_sectors(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut offset, run) = (offset, self.run(buf.len()));
        for part in buf.chunks_mut(run.max(1)) {
            self.medium.read(self.in_file(offset), part)?;
            step("S420", offset, part.len());
            self.cipher.open(offset, part)?;
            step("S430", offset, part.len());
            offset = offset.saturating_add(length_of(part));
        }
        Ok(())
    }

    fn write_sectors(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let _held = self.stripes.shared(offset, length_of(data));
        let (mut offset, run) = (offset, self.run(data.len()));
        for part in data.chunks_mut(run.max(1)) {
            step("S320", offset, part.len());
            self.cipher.seal(offset, part)?;
            step("S330", offset, part.len());
            self.medium.write(self.in_file(offset), part)?;
            step("S340", offset, part.len());
            offset = offset.saturating_add(length_of(part));
        }
        Ok(())
    }

    /// The sector that holds `offset`, decrypted, and the position of `offset` in it.
    fn sector_of(&self, offset: u64) -> io::Result<(u64, usize, Vec<u8>)> {
        let skip = offset % u64::from(self.geometry.sector);
        let start = offset.saturating_sub(skip);
        let length = usize::try_from(self.geometry.sector).map_err(io::Error::other)?;
        let mut sector = vec![0; length];
        self.read_sectors(start, &mut sector)?;
        Ok((start, usize::try_from(skip).map_err(io::Error::other)?, sector))
    }

    fn read_part(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let (_, skip, sector) = self.sector_of(offset)?;
        let part = sector.get(skip..skip.saturating_add(buf.len()));
        buf.copy_from_slice(part.ok_or(io::ErrorKind::InvalidInput)?);
        Ok(())
    }

    fn write_part(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let _alone = self.stripes.alone(offset);
        let (start, skip, mut sector) = self.sector_of(offset)?;
        let part = sector.get_mut(skip..skip.saturating_add(data.len()));
        part.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(data);
        self.cipher.seal(start, &mut sector)?;
        self.medium.write(self.in_file(start), &sector)
    }

    /// The next extent at `offset`, at most `length` long. A sector is a hole only if all of it is.
    fn extent_at(&self, offset: u64, length: u64) -> io::Result<Extent> {
        let data = |length| Extent { length, hole: false, zero: false };
        let hole = |length| Extent { length, hole: true, zero: false };
        let sector = u64::from(self.geometry.sector);
        let in_volume = |at: u64| at.saturating_sub(self.geometry.data_at);
        let at = self.in_file(offset);
        match self.medium.run_at(at)? {
            Run::Hole { end } => {
                let first = in_volume(end) - in_volume(end) % sector;
                if first > offset {
                    return Ok(hole(first.saturating_sub(offset).min(length)));
                }
                // Only part of this sector is a hole.
                let rest = self.medium.run_at(end)?;
                let (Run::Data { end } | Run::Hole { end }) = rest;
                let end = in_volume(end).next_multiple_of(sector);
                Ok(data(end.saturating_sub(offset).max(1).min(length)))
            }
            Run::Data { end } => {
                let end = in_volume(end).next_multiple_of(sector);
                Ok(data(end.saturating_sub(offset).max(1).min(length)))
            }
        }
    }
}

impl Volume for CryptVolume {
    fn waits(&self) -> bool {
        self.medium.waits()
    }

    fn format(&self) -> &'static str {
        self.identity.format
    }

    fn size(&self) -> u64 {
        self.geometry.size
    }

    fn sector_size(&self) -> u32 {
        self.geometry.sector
    }

    fn read_only(&self) -> bool {
        self.medium.read_only()
    }

    fn kmi(&self) -> Option<&Kmi> {
        self.identity.kmi.as_ref()
    }

    fn header_damage(&self) -> Option<&str> {
        self.identity.damage.as_deref()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, length_of(buf), self.geometry.size)?;
        let (head, whole) = split(offset, buf.len(), u64::from(self.geometry.sector));
        let (first, rest) = buf.split_at_mut(head);
        let (middle, last) = rest.split_at_mut(whole);
        let middle_at = offset.saturating_add(length_of(first));
        let last_at = middle_at.saturating_add(length_of(middle));
        self.read_part(offset, first)?;
        if !middle.is_empty() {
            self.read_sectors(middle_at, middle)?;
        }
        self.read_part(last_at, last)
    }

    fn write(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.medium.check_write(offset, length_of(data), self.geometry.size)?;
        let (head, whole) = split(offset, data.len(), u64::from(self.geometry.sector));
        let (first, rest) = data.split_at_mut(head);
        let (middle, last) = rest.split_at_mut(whole);
        let middle_at = offset.saturating_add(length_of(first));
        let last_at = middle_at.saturating_add(length_of(middle));
        self.write_part(offset, first)?;
        if !middle.is_empty() {
            self.write_sectors(middle_at, middle)?;
        }
        self.write_part(last_at, last)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.medium.check_write(offset, length, self.geometry.size)?;
        let end = offset.saturating_add(length);
        let mut buf = vec![0; usize::try_from(ZERO_RUN.min(length)).map_err(io::Error::other)?];
        let mut at = offset;
        while at < end {
            let step = ZERO_RUN.min(end.saturating_sub(at));
            let run = usize::try_from(step).ok().and_then(|step| buf.get_mut(..step));
            let run = run.ok_or(io::ErrorKind::InvalidInput)?;
            run.fill(0);
            self.write(at, run)?;
            at = at.saturating_add(step);
        }
        Ok(())
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.medium.check_write(offset, length, self.geometry.size)?;
        let sector = u64::from(self.geometry.sector);
        let first = offset.next_multiple_of(sector);
        let end = offset.saturating_add(length);
        let last = end - end % sector;
        if self.geometry.trim == TrimPolicy::Keep || last <= first {
            return Ok(());
        }
        // Advice: a medium without holes keeps the data.
        self.medium.punch(self.in_file(first), last.saturating_sub(first)).map(|_| ())
    }

    fn prefetch(&self, offset: u64, length: u64) -> io::Result<()> {
        check_range(offset, length, self.geometry.size)?;
        self.medium.prefetch(self.in_file(offset), length)
    }

    fn flush(&self) -> io::Result<()> {
        self.medium.flush()
    }

    fn flush_failed(&self) -> bool {
        self.medium.flush_failed()
    }

    fn extents(&self, offset: u64, length: u64, max: usize) -> io::Result<Vec<Extent>> {
        check_range(offset, length, self.geometry.size)?;
        let end = offset.saturating_add(length);
        let mut found: Vec<Extent> = Vec::new();
        let mut at = offset;
        while at < end {
            let next = self.extent_at(at, end.saturating_sub(at))?;
            at = at.saturating_add(next.length);
            let full = found.len() >= max;
            match found.last_mut() {
                Some(last) if last.hole == next.hole => {
                    last.length = last.length.saturating_add(next.length);
                }
                _ if full => break,
                _ => found.push(next),
            }
        }
        Ok(found)
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::OwnedFd};

    use model::Secret;

    use super::*;

    #[test]
    fn a_failed_flush_is_remembered() {
        // A pipe cannot be synchronised.
        let (_reader, writer) = io::pipe().unwrap();
        let geometry = Geometry { data_at: 0, size: 4096, sector: 4096, trim: TrimPolicy::Punch };
        let key = Secret::new((0..64).collect());
        let cipher = SectorCipher::new(key, 4096, 0).unwrap();
        let file = File::from(OwnedFd::from(writer));
        let identity = Identity { format: "luks2", kmi: None, damage: None };
        let volume = CryptVolume::new(Medium::of(file, 4096), geometry, cipher, identity);
        assert!(!volume.flush_failed());
        let first = volume.flush().unwrap_err().to_string();
        assert!(volume.flush_failed());
        assert_ne!(volume.flush().unwrap_err().to_string(), first);
    }
}
