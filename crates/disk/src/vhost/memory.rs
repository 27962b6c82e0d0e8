//! The guest's memory, mapped from the descriptors that QEMU sends.
//!
//! Everything in it may change at any moment under our hands: a value is read once, checked and
//! used; data are copied out before they are encrypted and copied in after they were decrypted.

use std::fs::File;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap,
    GuestRegionMmap, MmapRegion,
};

use super::{Fault, Rejection};

/// Regions that a front end may send.
pub(super) const REGIONS_MAX: usize = 32;

/// The mapped memory of one guest.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    guest: GuestMemoryMmap<()>,
    /// Where the regions are in QEMU's address space: ring addresses come in it.
    views: Vec<View>,
}

#[derive(Clone, Copy, Debug)]
struct View {
    user: u64,
    guest: u64,
    length: u64,
}

impl Memory {
    /// Maps the regions; each comes with its file.
    pub(super) fn map(
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
    ) -> Result<Self, Rejection> {
        let malformed = || Rejection::MemoryMalformed;
        if regions.is_empty() || regions.len() > REGIONS_MAX || regions.len() != files.len() {
            return Err(malformed());
        }
        let (mut mapped, mut views) = (Vec::new(), Vec::new());
        for (region, file) in regions.iter().zip(files) {
            let length = region.memory_size;
            let (user, guest) = (region.user_addr, region.guest_phys_addr);
            let fits = length > 0
                && user.checked_add(length).is_some()
                && guest.checked_add(length).is_some();
            let size = usize::try_from(length).map_err(|_| malformed())?;
            if !fits || !holds(&file, region.mmap_offset, length) {
                return Err(malformed());
            }
            let place = FileOffset::new(file, region.mmap_offset);
            let mapping = MmapRegion::from_file(place, size).map_err(|_| malformed())?;
            let region =
                GuestRegionMmap::new(mapping, GuestAddress(guest)).ok_or_else(malformed)?;
            mapped.push(region);
            views.push(View { user, guest, length });
        }
        mapped.sort_by_key(|region| vm_memory::GuestMemoryRegion::start_addr(region).0);
        // Refuses regions that overlap.
        let guest = GuestMemoryMmap::from_regions(mapped).map_err(|_| malformed())?;
        Ok(Self { guest, views })
    }

    /// Memory that starts with `bytes` at address 0: for tests and fuzzing.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, Rejection> {
        let ranges = [(GuestAddress(0), bytes.len())];
        let guest =
            GuestMemoryMmap::from_ranges(&ranges).map_err(|_| Rejection::MemoryMalformed)?;
        let memory = Self { guest, views: Vec::new() };
        memory.write(0, bytes).map_err(|_| Rejection::MemoryMalformed)?;
        Ok(memory)
    }

    /// The guest's address of an address of QEMU's.
    pub(super) fn guest_address(&self, user: u64) -> Result<u64, Rejection> {
        self.views
            .iter()
            .find_map(|view| {
                let from_start = user.checked_sub(view.user)?;
                (from_start < view.length).then(|| view.guest.saturating_add(from_start))
            })
            .ok_or(Rejection::RingOutsideMemory)
    }

    /// Whether the whole range is guest memory.
    pub(super) fn holds(&self, at: u64, length: u64) -> bool {
        usize::try_from(length).is_ok_and(|length| self.guest.check_range(GuestAddress(at), length))
    }

    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), Fault> {
        self.guest.read_slice(buf, GuestAddress(at)).map_err(|_| Fault::OutsideMemory(at))
    }

    pub(super) fn write(&self, at: u64, data: &[u8]) -> Result<(), Fault> {
        self.guest.write_slice(data, GuestAddress(at)).map_err(|_| Fault::OutsideMemory(at))
    }

    /// An index that the other side publishes.
    pub(super) fn load(&self, at: u64) -> Result<u16, Fault> {
        let loaded = self.guest.load::<u16>(GuestAddress(at), std::sync::atomic::Ordering::Acquire);
        loaded.map(u16::from_le).map_err(|_| Fault::OutsideMemory(at))
    }

    /// Publishes an index.
    pub(super) fn store(&self, at: u64, value: u16) -> Result<(), Fault> {
        let ordering = std::sync::atomic::Ordering::Release;
        self.guest
            .store(value.to_le(), GuestAddress(at), ordering)
            .map_err(|_| Fault::OutsideMemory(at))
    }
}

/// Whether `file` is long enough to be mapped. Touching what it lacks would end the process.
pub(super) fn holds(file: &File, offset: u64, length: u64) -> bool {
    let end = offset.checked_add(length);
    end.is_some_and(|end| file.metadata().is_ok_and(|there| end <= there.len()))
}
