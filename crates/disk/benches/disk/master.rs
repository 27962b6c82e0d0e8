//! A vhost-user-blk front end: memory that it shares, one split ring, requests in slots. It plays
//! QEMU and the guest's driver for the tests and the load generator, and can lie.

use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
    sync::atomic::{Ordering, fence},
};

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::{
    VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{
        Error, Frontend, VhostUserFrontend as _, VhostUserProtocolFeatures,
        message::VhostUserInflight,
    },
};
use vm_memory::{
    Bytes as _, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion,
};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::{EFD_NONBLOCK, EventFd},
};

/// Entries of the ring; a request uses three descriptors.
pub const RING: u16 = 128;
/// Requests at a time.
pub const SLOTS: u16 = 32;
/// The longest data of a request.
pub const SLOT_BYTES: u64 = 1 << 20;

pub const READ: u32 = 0;
pub const WRITE: u32 = 1;

/// Offset of QEMU's addresses against the guest's.
const USER_BASE: u64 = 0x7000_0000_0000;
pub const DESCRIPTORS: u64 = 0;
pub const AVAILABLE: u64 = 0x1000;
pub const USED: u64 = 0x2000;
const HEADERS: u64 = 0x4000;
const DATA: u64 = 1 << 20;
pub const MEMORY: u64 = DATA + SLOTS as u64 * SLOT_BYTES;

const EVENT_INDEX: u64 = 1 << 29;
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// What outlives the server.
pub struct Master {
    file: File,
    pub memory: GuestMemoryMmap<()>,
    pub kick: EventFd,
    call: EventFd,
    calls: Epoll,
    pub frontend: Option<Frontend>,
    /// Its connection, to see it cut.
    pub connection: Option<UnixStream>,
    inflight: Option<(VhostUserInflight, File)>,
    pub features: u64,
    available: u16,
    used: u16,
}

impl Master {
    /// Makes the memory; nobody serves yet.
    pub fn new() -> Self {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("memfd"));
        file.set_len(MEMORY).expect("memory");
        let place = FileOffset::new(file.try_clone().expect("descriptor"), 0);
        let region = MmapRegion::from_file(place, MEMORY as usize).expect("mapping");
        let region = GuestRegionMmap::new(region, GuestAddress(0)).expect("region");
        let call = EventFd::new(EFD_NONBLOCK).expect("eventfd");
        let calls = Epoll::new().expect("epoll");
        let event = EpollEvent::new(EventSet::IN, 0);
        calls.ctl(ControlOperation::Add, call.as_raw_fd(), event).expect("epoll");
        Self {
            file,
            memory: GuestMemoryMmap::from_regions(vec![region]).expect("memory"),
            kick: EventFd::new(EFD_NONBLOCK).expect("eventfd"),
            call,
            calls,
            frontend: None,
            connection: None,
            inflight: None,
            features: 0,
            available: 0,
            used: 0,
        }
    }

    /// Connects to `socket` as QEMU does, the second time with the in-flight area of the first.
    pub fn connect(&mut self, socket: &Path) -> Result<(), vhost::Error> {
        drop((self.frontend.take(), self.connection.take()));
        let stream =
            UnixStream::connect(socket).map_err(|e| vhost::Error::from(Error::SocketConnect(e)))?;
        self.connection = stream.try_clone().ok();
        let mut frontend = Frontend::from_stream(stream, 4);
        frontend.set_owner()?;
        let offered = frontend.get_features()?;
        self.features = offered;
        frontend.set_features(offered & !PROTOCOL_FEATURES | PROTOCOL_FEATURES)?;
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        let offered = frontend.get_protocol_features()?;
        frontend.set_protocol_features(wanted & offered)?;
        if offered.contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD) {
            if self.inflight.is_none() {
                let asked = VhostUserInflight::new(0, 0, 1, RING);
                self.inflight = Some(frontend.get_inflight_fd(&asked)?);
            }
            if let Some((told, file)) = &self.inflight {
                frontend.set_inflight_fd(told, file.as_raw_fd())?;
            }
        }
        frontend.set_mem_table(&[self.region()])?;
        frontend.set_vring_num(0, RING)?;
        // As QEMU does after a crash: what was used is what it knows.
        frontend.set_vring_base(0, self.used_index())?;
        frontend.set_vring_addr(0, &self.place())?;
        frontend.set_vring_call(0, &self.call)?;
        frontend.set_vring_kick(0, &self.kick)?;
        frontend.set_vring_enable(0, true)?;
        self.frontend = Some(frontend);
        Ok(())
    }

    pub fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: USER_BASE,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    pub fn place(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: RING,
            queue_size: RING,
            flags: 0,
            desc_table_addr: USER_BASE + DESCRIPTORS,
            used_ring_addr: USER_BASE + USED,
            avail_ring_addr: USER_BASE + AVAILABLE,
            log_addr: None,
        }
    }

    fn load(&self, at: u64) -> u16 {
        self.memory.load(GuestAddress(at), Ordering::Acquire).expect("our memory")
    }

    pub fn store(&self, at: u64, value: u16) {
        self.memory.store(value, GuestAddress(at), Ordering::Release).expect("our memory");
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).expect("our memory");
    }

    pub fn used_index(&self) -> u16 {
        self.load(USED + 2)
    }

    /// Where a slot's data are.
    pub fn data_at(slot: u16) -> u64 {
        DATA + u64::from(slot) * SLOT_BYTES
    }

    pub fn descriptor(&self, index: u16, at: u64, length: u32, flags: u16, next: u16) {
        let value = u128::from(at)
            | u128::from(length) << 64
            | u128::from(flags) << 96
            | u128::from(next) << 112;
        self.put(DESCRIPTORS + 16 * u64::from(index), &value.to_le_bytes());
    }

    /// Writes the descriptors of a request in `slot`; it is not yet available.
    pub fn prepare(&self, slot: u16, kind: u32, sector: u64, length: u32) {
        let header = HEADERS + 64 * u64::from(slot);
        let value = u128::from(kind) | u128::from(sector) << 64;
        self.put(header, &value.to_le_bytes());
        self.put(header + 32, &[0xff]);
        let first = 3 * slot;
        let writes = if kind == READ { 2 } else { 0 };
        if length == 0 {
            self.descriptor(first, header, 16, 1, first + 2);
        } else {
            self.descriptor(first, header, 16, 1, first + 1);
            self.descriptor(first + 1, Self::data_at(slot), length, 1 | writes, first + 2);
        }
        self.descriptor(first + 2, header + 32, 1, 2, 0);
    }

    /// Makes the chain at `head` available.
    pub fn offer(&mut self, head: u16) {
        self.store(AVAILABLE + 4 + 2 * u64::from(self.available % RING), head);
        self.available = self.available.wrapping_add(1);
    }

    /// Publishes what was offered, and kicks if the device wants it.
    pub fn publish(&self, before: u16) {
        self.store(AVAILABLE + 2, self.available);
        fence(Ordering::SeqCst);
        let wanted = if self.features & EVENT_INDEX == 0 {
            self.load(USED) & 1 == 0
        } else {
            let event = self.load(USED + 4 + 8 * u64::from(RING));
            let (new, old) = (self.available, before);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        };
        if wanted {
            self.kick.write(1).expect("kick");
        }
    }

    pub fn available(&self) -> u16 {
        self.available
    }

    /// A slot that came back already, with its status.
    pub fn ready(&mut self) -> Option<(u16, u8)> {
        if self.used_index() == self.used {
            return None;
        }
        let entry = USED + 4 + 8 * u64::from(self.used % RING);
        let head: u32 = self.memory.read_obj(GuestAddress(entry)).expect("our memory");
        self.used = self.used.wrapping_add(1);
        let slot = (head / 3) as u16;
        let status = HEADERS + 64 * u64::from(slot) + 32;
        Some((slot, self.memory.read_obj(GuestAddress(status)).expect("our memory")))
    }

    /// The next slot that came back, with its status; waits until the deadline.
    pub fn completed(&mut self, patience_ms: i64) -> Option<(u16, u8)> {
        loop {
            if let Some(back) = self.ready() {
                return Some(back);
            }
            // Ask to be told of the next one, and look again.
            self.store(AVAILABLE + 4 + 2 * u64::from(RING), self.used);
            fence(Ordering::SeqCst);
            if self.used_index() != self.used {
                continue;
            }
            let mut ready = [EpollEvent::default()];
            let patience = i32::try_from(patience_ms).unwrap_or(i32::MAX);
            if self.calls.wait(patience, &mut ready).is_ok_and(|count| count == 0) {
                return None;
            }
            let _ = self.call.read();
        }
    }
}
