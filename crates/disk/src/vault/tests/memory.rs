//! A medium in memory that fails on request, and volumes on it.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use model::Secret;

use crate::{
    OpenOptions, VolumeError,
    vault::{Medium, NewSlot, NewVault, SlotSecret, Suite, VaultVolume, create_on, open_on},
};

#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) bytes: Mutex<Vec<u8>>,
    pub(super) syncs: AtomicU64,
    pub(super) fail_sync: AtomicBool,
    pub(super) fail_write: AtomicBool,
    /// The medium has no room behind this byte; 0 = any.
    pub(super) room: AtomicU64,
}

impl Memory {
    pub(super) fn copy(&self) -> Arc<Self> {
        let bytes = self.bytes.lock().unwrap().clone();
        Arc::new(Self { bytes: Mutex::new(bytes), ..Self::default() })
    }
}

impl Medium for Memory {
    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(at..at + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()> {
        if self.fail_write.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected"));
        }
        let at = usize::try_from(at).unwrap();
        let mut bytes = self.bytes.lock().unwrap();
        let end = at + data.len();
        let room = self.room.load(Ordering::SeqCst);
        if room != 0 && end > bytes.len() && u64::try_from(end).unwrap() > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..end].copy_from_slice(data);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.fail_sync.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }

    fn punch(&self, at: u64, length: u64) -> io::Result<()> {
        let (at, length) = (usize::try_from(at).unwrap(), usize::try_from(length).unwrap());
        let mut bytes = self.bytes.lock().unwrap();
        let end = bytes.len().min(at + length);
        bytes[at..end].fill(0);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.bytes.lock().unwrap().len()).unwrap())
    }
}

pub(super) fn secret() -> Secret<Vec<u8>> {
    Secret::new(vec![0x2a; 32])
}

pub(super) fn new_volume(size: u64, suite: Suite) -> Arc<Memory> {
    with_log(size, suite, 256 << 10)
}

pub(super) fn with_log(size: u64, suite: Suite, log_bytes: u64) -> Arc<Memory> {
    let medium = Arc::new(Memory::default());
    let key = secret();
    let slots = [NewSlot { secret: SlotSecret::RandomKey(&key), kmi: None, label: "" }];
    let path = std::path::Path::new("unused");
    let log_bytes = Some(log_bytes);
    let new = NewVault { path, size, suite, log_bytes, label: "test", slots: &slots };
    create_on(medium.as_ref(), &new).unwrap();
    medium
}

pub(super) fn try_open(
    medium: &Arc<Memory>,
    options: &OpenOptions,
) -> Result<VaultVolume, VolumeError> {
    let medium: Arc<dyn Medium> = Arc::clone(medium) as Arc<dyn Medium>;
    open_on(medium, &secret(), options)
}

pub(super) fn reopen(medium: &Arc<Memory>) -> VaultVolume {
    try_open(medium, &OpenOptions::default()).unwrap()
}

pub(super) fn options_read_only() -> OpenOptions {
    OpenOptions { read_only: true, ..OpenOptions::default() }
}
