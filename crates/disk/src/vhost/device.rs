//! One connection's device: what the front end said, and the workers that follow from it.
//!
//! A message that changes something a running worker uses stops the worker first; it starts again
//! as soon as its ring is complete.

use std::{
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost::{
    VhostUserMemoryRegionBase,
    vhost_user::{
        Error, GpuBackend, Result as Answer, VhostUserBackendReqHandlerMut,
        VhostUserProtocolFeatures,
        message::{
            VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags,
            VhostUserInflight, VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig,
            VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags,
            VhostUserVringState,
        },
    },
};

use super::{
    Rejection, config,
    inflight::Inflight,
    memory::Memory,
    ring::{Place, RING_MAX, Ring},
    worker::{Job, Worker},
};
use crate::{Volume, nbd::Counters};

/// The device of one connection.
#[derive(Debug)]
pub(super) struct Device {
    volume: Arc<dyn Volume>,
    counters: Arc<Counters>,
    features: u64,
    memory: Option<Memory>,
    inflight: Option<Inflight>,
    queues: Vec<Queue>,
    /// The export stops: no ring is served any more.
    ended: bool,
}

/// What is known of one ring.
#[derive(Debug, Default)]
struct Queue {
    size: u16,
    /// In QEMU's address space.
    place: Option<Place>,
    base: u16,
    kick: Option<File>,
    call: Arc<Mutex<Option<File>>>,
    enabled: bool,
    worker: Option<Worker>,
}

/// Tells the rejection and makes the connection end.
fn refuse(rejection: Rejection) -> Error {
    tracing::warn!(rejection = rejection.code(), detail = %rejection, "vhost-user refused");
    Error::InvalidParam
}

impl Device {
    pub(super) fn new(volume: Arc<dyn Volume>, counters: Arc<Counters>, queues: u16) -> Self {
        let queues = (0..queues).map(|_| Queue::default()).collect();
        Self { volume, counters, features: 0, memory: None, inflight: None, queues, ended: false }
    }

    /// Ends all workers after the requests at hand; no message starts one again.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.stop();
    }

    /// Ends all workers after the requests at hand.
    fn stop(&mut self) {
        for queue in &mut self.queues {
            queue.stop();
        }
    }

    fn queue(&mut self, index: u32) -> Answer<&mut Queue> {
        let found = usize::try_from(index).ok().and_then(|index| self.queues.get_mut(index));
        found.ok_or_else(|| refuse(Rejection::QueueUnknown(index)))
    }

    /// Stops a queue's worker, changes the queue, and starts it again if it is complete.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Queue)) -> Answer<()> {
        let queue = self.queue(index)?;
        queue.stop();
        change(queue);
        self.start(index)
    }

    fn count(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    fn start(&mut self, index: u32) -> Answer<()> {
        let (Some(memory), false) = (self.memory.clone(), self.ended) else { return Ok(()) };
        let features = self.features;
        let inflight = self.inflight.clone();
        let (volume, counters) = (Arc::clone(&self.volume), Arc::clone(&self.counters));
        let queue = self.queue(index)?;
        // Without protocol features a ring is enabled from the start.
        let enabled = queue.enabled || features & config::PROTOCOL_FEATURES == 0;
        let (Some(place), Some(kick), true) = (queue.place, &queue.kick, enabled) else {
            return Ok(());
        };
        let kick = kick.try_clone().map_err(Error::ReqHandlerError)?;
        let outside = || refuse(Rejection::RingOutsideMemory);
        let place = Place {
            descriptors: memory.guest_address(place.descriptors).map_err(refuse)?,
            available: memory.guest_address(place.available).map_err(refuse)?,
            used: memory.guest_address(place.used).map_err(refuse)?,
        };
        let event_index = features & config::EVENT_INDEX != 0;
        let ring = Ring::new(memory, place, queue.size, event_index, queue.base);
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        let marks = inflight.and_then(|areas| areas.of_queue(number, queue.size));
        let job = Job {
            queue: index,
            ring: ring.ok_or_else(outside)?,
            marks,
            kick,
            call: Arc::clone(&queue.call),
            volume,
            counters,
            write_through: features & config::FLUSH == 0,
        };
        queue.worker = Some(Worker::start(job).map_err(Error::ReqHandlerError)?);
        Ok(())
    }

    fn restart_all(&mut self) -> Answer<()> {
        for index in 0..u32::from(self.count()) {
            self.start(index)?;
        }
        Ok(())
    }
}

impl Queue {
    fn stop(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.base = worker.stop();
        }
    }
}

/// A descriptor of the front end that our threads never block on.
fn without_blocking(file: Option<File>) -> Answer<Option<File>> {
    if let Some(file) = &file {
        let set = fcntl_getfl(file).and_then(|flags| fcntl_setfl(file, flags | OFlags::NONBLOCK));
        set.map_err(|e| Error::ReqHandlerError(e.into()))?;
    }
    Ok(file)
}

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Answer<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Answer<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Answer<()> {
        self.stop();
        self.features = 0;
        self.queues.iter_mut().for_each(|queue| *queue = Queue::default());
        Ok(())
    }

    fn get_features(&mut self) -> Answer<u64> {
        Ok(config::features(&*self.volume))
    }

    fn set_features(&mut self, features: u64) -> Answer<()> {
        let unknown = features & !config::features(&*self.volume);
        if unknown != 0 {
            return Err(refuse(Rejection::FeaturesUnknown(unknown)));
        }
        if features != self.features {
            self.stop();
            self.features = features;
            self.restart_all()?;
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Answer<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.stop();
        self.memory = Some(Memory::map(regions, files).map_err(refuse)?);
        self.restart_all()?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Answer<()> {
        let size = u16::try_from(num).ok();
        let size = size.filter(|size| size.is_power_of_two() && *size <= RING_MAX);
        let size = size.ok_or_else(|| refuse(Rejection::RingLength(num)))?;
        self.change(index, |queue| queue.size = size)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Answer<()> {
        let place = Some(Place { descriptors, available, used });
        self.change(index, |queue| queue.place = place)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Answer<()> {
        let base = u16::try_from(base).map_err(|_| refuse(Rejection::MessageMalformed))?;
        self.change(index, |queue| queue.base = base)
    }

    fn get_vring_base(&mut self, index: u32) -> Answer<VhostUserVringState> {
        // This message stops the ring until it gets a new kick descriptor.
        let queue = self.queue(index)?;
        queue.stop();
        queue.kick = None;
        Ok(VhostUserVringState::new(index, u32::from(queue.base)))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Answer<()> {
        let kick = without_blocking(file)?;
        self.change(u32::from(index), |queue| queue.kick = kick)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Answer<()> {
        let file = without_blocking(file)?;
        let queue = self.queue(u32::from(index))?;
        *queue.call.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> Answer<()> {
        self.queue(u32::from(index)).map(|_| ())
    }

    fn get_protocol_features(&mut self) -> Answer<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::RESET_DEVICE)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Answer<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Answer<u64> {
        Ok(u64::from(self.count()))
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Answer<()> {
        self.change(index, |queue| queue.enabled = enable)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Answer<Vec<u8>> {
        let space = config::space(&*self.volume, self.count());
        let (start, length) = (usize::try_from(offset), usize::try_from(size));
        let (Ok(start), Ok(length)) = (start, length) else {
            return Err(refuse(Rejection::MessageMalformed));
        };
        // A newer front end knows a longer space; what is behind ours reads as zeros.
        if start > 256 || length > 256 {
            return Err(refuse(Rejection::MessageMalformed));
        }
        let there = space.iter().copied().chain(std::iter::repeat(0));
        Ok(there.skip(start).take(length).collect())
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Answer<()> {
        Err(refuse(Rejection::MessageMalformed))
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Answer<()> {
        Err(refuse(Rejection::MessageMalformed))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Answer<File> {
        Err(refuse(Rejection::MessageMalformed))
    }

    fn get_inflight_fd(&mut self, asked: &VhostUserInflight) -> Answer<(VhostUserInflight, File)> {
        Inflight::make(asked, self.count()).map_err(refuse)
    }

    fn set_inflight_fd(&mut self, told: &VhostUserInflight, file: File) -> Answer<()> {
        let area = Inflight::map(told, file, self.count()).map_err(refuse)?;
        self.stop();
        self.inflight = Some(area);
        self.restart_all()
    }

    fn get_max_mem_slots(&mut self) -> Answer<u64> {
        Err(refuse(Rejection::MessageMalformed))
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Answer<Option<VhostUserMemoryRegionBase>> {
        Err(refuse(Rejection::MessageMalformed))
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Answer<()> {
        Err(refuse(Rejection::MessageMalformed))
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Answer<Option<File>> {
        Err(refuse(Rejection::MessageMalformed))
    }

    fn check_device_state(&mut self) -> Answer<()> {
        Err(refuse(Rejection::MessageMalformed))
    }

    fn get_shmem_config(&mut self) -> Answer<VhostUserShMemConfig> {
        Err(refuse(Rejection::MessageMalformed))
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Answer<()> {
        Err(refuse(Rejection::MessageMalformed))
    }
}
