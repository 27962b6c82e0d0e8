//! Which requests are in flight, in memory that QEMU keeps when this process dies
//! (vhost-user specification, "Inflight I/O tracking", split virtqueues).
//!
//! ```text
//!   taken: counter = n, inflight = 1 ... given back: last batch = head, used index published,
//!   inflight = 0, our copy of the used index = the ring's
//! ```
//!
//! A process that takes over and finds our copy behind the ring's index knows that the last
//! request was given back and only its mark is stale. Every other marked request is done again, in
//! the order in which it was taken.

use std::{fs::File, sync::Arc, sync::atomic::Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{Bytes as _, FileOffset, MmapRegion, VolatileMemory as _};

use super::{Rejection, memory::holds, ring::RING_MAX};

const HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 16;
const VERSION: u16 = 1;

const VERSION_AT: usize = 8;
const COUNT_AT: usize = 10;
const LAST_HEAD_AT: usize = 12;
const USED_AT: usize = 14;
const ENTRY_COUNTER_AT: usize = 8;

/// The areas of all queues.
#[derive(Clone, Debug)]
pub(super) struct Inflight {
    area: Arc<MmapRegion<()>>,
    queues: u16,
    queue_size: u16,
}

/// Bytes of one queue's area.
fn stride(queue_size: u16) -> usize {
    (HEAD_BYTES + ENTRY_BYTES * usize::from(queue_size)).next_multiple_of(64)
}

fn checked(queues: u16, queue_size: u16, queues_max: u16) -> Result<usize, Rejection> {
    if queues == 0 || queues > queues_max || queue_size == 0 || queue_size > RING_MAX {
        return Err(Rejection::InflightMalformed);
    }
    Ok(stride(queue_size).saturating_mul(usize::from(queues)))
}

impl Inflight {
    /// Makes a fresh area for what the front end asks for.
    pub(super) fn make(
        asked: &VhostUserInflight,
        queues_max: u16,
    ) -> Result<(VhostUserInflight, File), Rejection> {
        let malformed = |_| Rejection::InflightMalformed;
        let (queues, queue_size) = (asked.num_queues, asked.queue_size);
        let length = checked(queues, queue_size, queues_max)?;
        let bytes = u64::try_from(length).map_err(|_| Rejection::InflightMalformed)?;
        let memfd = memfd_create("vhost-inflight", MemfdFlags::CLOEXEC);
        let file = File::from(memfd.map_err(|_| Rejection::InflightMalformed)?);
        file.set_len(bytes).map_err(malformed)?;
        Ok((VhostUserInflight::new(bytes, 0, queues, queue_size), file))
    }

    /// Maps an area that the front end kept.
    pub(super) fn map(
        told: &VhostUserInflight,
        file: File,
        queues_max: u16,
    ) -> Result<Self, Rejection> {
        let (queues, queue_size) = (told.num_queues, told.queue_size);
        let length = checked(queues, queue_size, queues_max)?;
        if u64::try_from(length).ok() != Some(told.mmap_size) {
            return Err(Rejection::InflightMalformed);
        }
        if !holds(&file, told.mmap_offset, told.mmap_size) {
            return Err(Rejection::InflightMalformed);
        }
        let place = FileOffset::new(file, told.mmap_offset);
        let area = MmapRegion::from_file(place, length);
        let area = Arc::new(area.map_err(|_| Rejection::InflightMalformed)?);
        Ok(Self { area, queues, queue_size })
    }

    /// The area of one queue, if it has one.
    pub(super) fn of_queue(&self, index: u16, size: u16) -> Option<Marks> {
        (index < self.queues && size <= self.queue_size).then(|| Marks {
            area: Arc::clone(&self.area),
            start: stride(self.queue_size) * usize::from(index),
            size,
            counter: 0,
        })
    }
}

/// The marks of one queue.
#[derive(Debug)]
pub(super) struct Marks {
    area: Arc<MmapRegion<()>>,
    start: usize,
    size: u16,
    counter: u64,
}

impl Marks {
    fn put<T: vm_memory::AtomicAccess>(&self, at: usize, value: T) {
        // The place was checked when the area was mapped, so it cannot fail.
        let _ = self.area.as_volatile_slice().store(value, self.start + at, Ordering::Release);
    }

    fn get<T: vm_memory::AtomicAccess + Default>(&self, at: usize) -> T {
        let loaded = self.area.as_volatile_slice().load(self.start + at, Ordering::Acquire);
        loaded.unwrap_or_default()
    }

    fn entry(&self, head: u16) -> usize {
        HEAD_BYTES + ENTRY_BYTES * usize::from(head % self.size.max(1))
    }

    /// Notes that the request at `head` is taken.
    pub(super) fn taken(&mut self, head: u16) {
        let entry = self.entry(head);
        self.put(entry + ENTRY_COUNTER_AT, self.counter);
        self.put(entry, 1_u8);
        self.counter = self.counter.wrapping_add(1);
    }

    /// To be called before the used index is published.
    pub(super) fn giving_back(&self, head: u16) {
        self.put(LAST_HEAD_AT, head);
    }

    /// To be called after the used index is published.
    pub(super) fn given_back(&self, head: u16, used: u16) {
        self.put(self.entry(head), 0_u8);
        self.put(USED_AT, used);
    }

    /// Takes over from an earlier process: the heads to do again, in their order. `used` is the
    /// ring's index.
    pub(super) fn take_over(&mut self, used: u16) -> Vec<u16> {
        if self.get::<u16>(VERSION_AT) != VERSION {
            self.put(VERSION_AT, VERSION);
            self.put(COUNT_AT, self.size);
            self.put(USED_AT, used);
            return Vec::new();
        }
        if self.get::<u16>(USED_AT) != used {
            self.put(self.entry(self.get(LAST_HEAD_AT)), 0_u8);
            self.put(USED_AT, used);
        }
        let mut marked: Vec<(u64, u16)> = (0..self.size)
            .filter(|&head| self.get::<u8>(self.entry(head)) == 1)
            .map(|head| (self.get(self.entry(head) + ENTRY_COUNTER_AT), head))
            .collect();
        marked.sort_unstable();
        self.counter = marked.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        marked.into_iter().map(|(_, head)| head).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(file: &File, told: &VhostUserInflight) -> Marks {
        let area = Inflight::map(told, file.try_clone().unwrap(), 4).unwrap();
        area.of_queue(1, 128).unwrap()
    }

    #[test]
    fn what_was_in_flight_is_found_again_in_its_order() {
        let asked = VhostUserInflight::new(0, 0, 2, 128);
        let (told, file) = Inflight::make(&asked, 4).unwrap();
        let mut first = marks(&file, &told);
        assert!(first.take_over(7).is_empty());
        for head in [9, 3, 100, 4] {
            first.taken(head);
        }
        first.giving_back(3);
        first.given_back(3, 8);
        // Killed after the used index was published and before the mark was removed.
        first.giving_back(100);
        drop(first);
        let mut second = marks(&file, &told);
        assert_eq!(second.take_over(9), [9, 4]);
        second.taken(50);
        assert_eq!(marks(&file, &told).take_over(9), [9, 4, 50]);
    }

    #[test]
    fn an_area_that_does_not_fit_is_refused() {
        let made = |queues, size| Inflight::make(&VhostUserInflight::new(0, 0, queues, size), 4);
        assert!(made(5, 128).is_err() && made(0, 128).is_err() && made(1, 0).is_err());
        let (told, file) = made(1, 128).unwrap();
        let lies = VhostUserInflight { queue_size: 256, ..told };
        assert!(Inflight::map(&lies, file.try_clone().unwrap(), 4).is_err());
        let short = VhostUserInflight { mmap_offset: 4096, ..told };
        assert!(Inflight::map(&short, file, 4).is_err());
    }
}
