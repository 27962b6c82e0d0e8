//! What only the tests ask of the front end in `benches/disk/master.rs`: single requests from start to
//! end, and lies.

use vhost::vhost_user::Frontend;
use vm_memory::{Bytes as _, GuestAddress};

use crate::master::{Master, READ, WRITE};

pub(crate) const FLUSH: u32 = 4;
pub(crate) const DISCARD: u32 = 11;
pub(crate) const ZEROES: u32 = 13;

impl Master {
    pub(crate) fn frontend(&mut self) -> &mut Frontend {
        self.frontend.as_mut().expect("connected")
    }

    pub(crate) fn force_kick(&self) {
        self.kick.write(1).expect("kick");
    }

    /// Submits one request.
    pub(crate) fn submit(&mut self, slot: u16, kind: u32, sector: u64, length: u32) {
        let before = self.available();
        self.prepare(slot, kind, sector, length);
        self.offer(3 * slot);
        self.publish(before);
    }

    /// One request from start to end; its status, 255 if none came.
    pub(crate) fn ask(&mut self, kind: u32, sector: u64, length: u32) -> u8 {
        self.submit(0, kind, sector, length);
        self.completed(5000).map_or(255, |(_, status)| status)
    }

    pub(crate) fn write_at(&mut self, sector: u64, data: &[u8]) -> u8 {
        self.put(Self::data_at(0), data);
        self.ask(WRITE, sector, u32::try_from(data.len()).unwrap())
    }

    pub(crate) fn read_at(&mut self, sector: u64, length: usize) -> Vec<u8> {
        assert_eq!(self.ask(READ, sector, u32::try_from(length).unwrap()), 0, "a read failed");
        self.data(0, length)
    }

    pub(crate) fn data(&self, slot: u16, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        self.memory.read_slice(&mut out, GuestAddress(Self::data_at(slot))).expect("our memory");
        out
    }
}
