//! A volume of zeros whose medium does what a test wants.

use std::{fmt, io};

use disk::{Extent, Volume};

/// Bytes.
pub(crate) const SIZE: u64 = 1 << 20;

/// What becomes of each request; a write is told its offset.
pub(crate) struct Stub<R, W, F> {
    pub(crate) read: R,
    pub(crate) write: W,
    pub(crate) flush: F,
}

/// What a medium that cannot be read or flushed says.
pub(crate) fn broken() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(5))
}

impl<R, W, F> fmt::Debug for Stub<R, W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stub")
    }
}

impl<R, W, F> Volume for Stub<R, W, F>
where
    R: Fn() -> io::Result<()> + Send + Sync,
    W: Fn(u64) -> io::Result<()> + Send + Sync,
    F: Fn() -> io::Result<()> + Send + Sync,
{
    fn format(&self) -> &'static str {
        "stub"
    }
    fn size(&self) -> u64 {
        SIZE
    }
    fn sector_size(&self) -> u32 {
        4096
    }
    fn read_only(&self) -> bool {
        false
    }
    fn kmi(&self) -> Option<&model::Kmi> {
        None
    }
    fn header_damage(&self) -> Option<&str> {
        None
    }
    fn read(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        (self.read)()
    }
    fn write(&self, offset: u64, _: &mut [u8]) -> io::Result<()> {
        (self.write)(offset)
    }
    fn write_zeroes(&self, offset: u64, _: u64) -> io::Result<()> {
        (self.write)(offset)
    }
    fn trim(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn prefetch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        (self.flush)()
    }
    fn flush_failed(&self) -> bool {
        false
    }
    fn extents(&self, _: u64, length: u64, _: usize) -> io::Result<Vec<Extent>> {
        (self.read)()?;
        Ok(vec![Extent { length, hole: false, zero: false }])
    }
}
