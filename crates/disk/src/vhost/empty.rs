//! A volume without content, behind the device that the fuzzer talks to.

use std::io;

use model::Kmi;

use crate::{Extent, Volume};

/// Reads as zeros and takes every write.
#[derive(Debug)]
pub(super) struct Empty;

impl Volume for Empty {
    fn format(&self) -> &'static str {
        "empty"
    }

    fn size(&self) -> u64 {
        1 << 30
    }

    fn sector_size(&self) -> u32 {
        4096
    }

    fn read_only(&self) -> bool {
        false
    }

    fn kmi(&self) -> Option<&Kmi> {
        None
    }

    fn header_damage(&self) -> Option<&str> {
        None
    }

    fn read(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn write(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn trim(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn prefetch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn flush_failed(&self) -> bool {
        false
    }

    fn extents(&self, _: u64, length: u64, _: usize) -> io::Result<Vec<Extent>> {
        Ok(vec![Extent { length, hole: true, zero: true }])
    }
}
