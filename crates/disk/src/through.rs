//! Writes that are durable before they are answered.
//!
//! A vault volume notes in memory where it put what was written since the last flush. If its process
//! dies alone, a guest that lives on believes in writes that nobody knows of any more, which no disk
//! does without resetting the machine. With this around the volume nothing is ever answered that the
//! process's death could take back. Flushes that wait for the same commit share it.

use std::{io, sync::Arc};

use model::Kmi;

use crate::{Extent, Volume};

/// A volume whose writes and clearings are durable when they are answered.
#[derive(Debug)]
pub struct WriteThrough(Arc<dyn Volume>);

impl WriteThrough {
    /// Around `volume`.
    #[must_use]
    pub fn new(volume: Arc<dyn Volume>) -> Self {
        Self(volume)
    }
}

impl Volume for WriteThrough {
    fn waits(&self) -> bool {
        self.0.waits()
    }

    fn writes_wait(&self) -> bool {
        true
    }

    fn format(&self) -> &'static str {
        self.0.format()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }

    fn read_only(&self) -> bool {
        self.0.read_only()
    }

    fn kmi(&self) -> Option<&Kmi> {
        self.0.kmi()
    }

    fn header_damage(&self) -> Option<&str> {
        self.0.header_damage()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, buf)
    }

    fn write(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.write(offset, data)?;
        self.0.flush()
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.write_zeroes(offset, length)?;
        self.0.flush()
    }

    /// What a trimmed range reads as is undefined, so a trim that is forgotten harms nobody.
    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.trim(offset, length)
    }

    fn prefetch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.prefetch(offset, length)
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn flush_failed(&self) -> bool {
        self.0.flush_failed()
    }

    fn extents(&self, offset: u64, length: u64, max: usize) -> io::Result<Vec<Extent>> {
        self.0.extents(offset, length, max)
    }
}
