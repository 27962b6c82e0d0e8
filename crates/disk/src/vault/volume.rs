//! An open vault volume as a [`Volume`].

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::digest;
use model::{Kmi, Secret};

use super::{
    attach::{Identity, open_on},
    background::Background,
    commit::Committer,
    data::length,
    engine::Engine,
    header::SLOT_BYTES,
    node::NodeId,
    tree::Shape,
};
use crate::{
    Extent, OpenOptions, Volume, VolumeError,
    open::Medium as FileMedium,
    volume::{check_range, split},
};

const SECTOR: u64 = SLOT_BYTES as u64;

/// Opens the vault volume at `path` with the secret of one of its key slots, and locks it: alone,
/// or shared if read-only.
///
/// # Errors
/// A [`Rejection`](crate::Rejection) if the file, its header or the key is refused, or the system's
/// error.
pub fn open(
    path: &Path,
    secret: &Secret<Vec<u8>>,
    options: &OpenOptions,
) -> Result<VaultVolume, VolumeError> {
    open_on(Arc::new(FileMedium::open(path, options)?), secret, options)
}

/// The state of a volume that was committed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Generation of the header in force.
    pub generation: u64,
    /// Its anchor count.
    pub anchor_count: u64,
    /// SHA-256 of the header.
    pub digest: [u8; 32],
}

/// An open vault volume. Dropping it commits nothing; see [`VaultVolume::close`].
#[derive(Debug)]
pub struct VaultVolume {
    pub(crate) engine: Arc<Engine>,
    identity: Identity,
    /// The key slot that opens the volume.
    pub(crate) key_slot: AtomicUsize,
    _background: Option<Background>,
}

impl VaultVolume {
    pub(crate) fn start(engine: Engine, identity: Identity) -> Result<Self, VolumeError> {
        let engine = Arc::new(engine);
        let background = if engine.manner.read_only {
            None
        } else {
            let started = Background::start(&engine);
            Some(started.map_err(VolumeError::io("start the volume's thread"))?)
        };
        let key_slot = AtomicUsize::new(identity.key_slot);
        Ok(Self { engine, identity, key_slot, _background: background })
    }

    /// The header in force.
    #[must_use]
    pub fn head(&self) -> Head {
        head_of(&self.engine.committer())
    }

    /// The key slot that opened the volume; after a re-keying has begun, the first of the new ones.
    #[must_use]
    pub fn key_slot(&self) -> usize {
        self.key_slot.load(Ordering::SeqCst)
    }

    /// Number of the present volume key: 1 at first, one more with each re-keying.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.engine.committer().header.epoch
    }

    /// Sectors that did not open since the volume was opened.
    #[must_use]
    pub fn damaged_sectors(&self) -> u64 {
        self.engine.damaged.load(Ordering::Relaxed)
    }

    /// Makes a checkpoint and commits a header with this anchor count.
    ///
    /// # Errors
    /// The medium's error.
    pub fn advance(&self, count: u64) -> io::Result<Head> {
        let shape = self.engine.enter_to_write()?;
        let mut committer = self.engine.committer();
        self.engine.check_failed()?;
        self.engine.checkpoint(&shape, &mut committer, &mut |header| {
            header.anchor_count = count;
            Ok(())
        })?;
        Ok(head_of(&committer))
    }

    /// Detaches in good order: a checkpoint, and a header that says so. Writes are refused from
    /// then on.
    ///
    /// # Errors
    /// The medium's error.
    pub fn close(&self) -> io::Result<Head> {
        let shape = self.engine.enter_alone();
        if self.engine.check_writable().is_err() {
            return Ok(self.head());
        }
        let mut committer = self.engine.committer();
        self.engine.check_failed()?;
        self.engine.checkpoint(&shape, &mut committer, &mut |header| {
            header.clean = true;
            Ok(())
        })?;
        // The second copy of the header.
        self.engine.or_fail(self.engine.medium.sync())?;
        self.engine.set_closed();
        Ok(head_of(&committer))
    }

    /// Fills `buf`, one sector of 4096 bytes, with what the sector at byte `offset` decrypts to,
    /// **whether it is authentic or not**: whoever altered it chose what bits it has. For salvage,
    /// and for nothing that is ever served.
    ///
    /// # Errors
    /// Where even that cannot be had: the tree above the sector is damaged, the cipher is AEGIS, or
    /// the medium's error.
    pub fn read_unverified(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let whole = offset.is_multiple_of(SECTOR) && buf.len() == SLOT_BYTES;
        if !whole || offset >= self.size() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let shape = self.engine.enter();
        let name = self.engine.name_of_sector(&shape, offset / SECTOR)?;
        if name.is_null() {
            buf.fill(0);
            return Ok(());
        }
        self.engine.medium.read_at(super::page::byte_of(name.slot()), buf)?;
        shape.ring.release(&name, buf).map_err(|_| io::ErrorKind::Unsupported.into())
    }

    fn read_part(&self, shape: &Shape, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let mut sector = vec![0; SLOT_BYTES];
        self.engine.read_sectors(shape, offset / SECTOR, &mut sector)?;
        let part = usize::try_from(offset % SECTOR)
            .ok()
            .and_then(|skip| sector.get(skip..skip.saturating_add(buf.len())));
        buf.copy_from_slice(part.ok_or(io::ErrorKind::InvalidInput)?);
        Ok(())
    }

    /// Changes part of a sector.
    fn change_part(
        &self,
        shape: &Shape,
        offset: u64,
        length: usize,
        change: impl FnOnce(&mut [u8]),
    ) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let _alone = self.engine.stripes.alone(offset);
        let mut sector = vec![0; SLOT_BYTES];
        let number = offset / SECTOR;
        self.engine.read_sectors(shape, number, &mut sector)?;
        let part = usize::try_from(offset % SECTOR)
            .ok()
            .and_then(|skip| sector.get_mut(skip..skip.saturating_add(length)));
        change(part.ok_or(io::ErrorKind::InvalidInput)?);
        self.engine.write_sectors(shape, number, &mut sector)
    }

    /// Makes a range null; the parts of sectors at its ends become zeros if `parts`.
    fn clear(&self, offset: u64, length: u64, parts: bool) -> io::Result<()> {
        let shape = self.engine.enter_to_write()?;
        check_range(offset, length, shape.size)?;
        let end = offset.saturating_add(length);
        let first = offset.next_multiple_of(SECTOR).min(end);
        // The last sector of a disk ends where the disk does.
        let last = if end == shape.size { end } else { (end - end % SECTOR).max(first) };
        if last > first {
            let _held = self.engine.stripes.shared(first, last.saturating_sub(first));
            let count = last.div_ceil(SECTOR).saturating_sub(first / SECTOR);
            self.engine.drop_sectors(&shape, first / SECTOR, count)?;
        }
        if parts {
            let zero = |from: u64, to: u64| {
                let length = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
                // What is null stays null.
                if length == 0 || self.engine.name_of_sector(&shape, from / SECTOR)?.is_null() {
                    return Ok(());
                }
                self.change_part(&shape, from, length, |part| part.fill(0))
            };
            zero(offset, first)?;
            zero(last, end)?;
        }
        Ok(())
    }
}

pub(crate) fn head_of(committer: &Committer) -> Head {
    let header = &committer.header;
    let bytes = header.encode(&committer.header_key);
    let sum = digest::digest(&digest::SHA256, bytes.as_slice());
    let mut head =
        Head { generation: header.generation, anchor_count: header.anchor_count, digest: [0; 32] };
    head.digest.iter_mut().zip(sum.as_ref()).for_each(|(to, from)| *to = *from);
    head
}

impl Volume for VaultVolume {
    fn waits(&self) -> bool {
        self.engine.medium.waits()
    }

    fn format(&self) -> &'static str {
        "vault"
    }

    fn size(&self) -> u64 {
        self.engine.size.load(Ordering::SeqCst)
    }

    fn sector_size(&self) -> u32 {
        4096
    }

    fn read_only(&self) -> bool {
        self.engine.manner.read_only
    }

    fn kmi(&self) -> Option<&Kmi> {
        self.identity.kmi.as_ref()
    }

    fn header_damage(&self) -> Option<&str> {
        self.identity.damage.as_deref()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let shape = self.engine.enter();
        check_range(offset, length(buf.len()), shape.size)?;
        let (head, whole) = split(offset, buf.len(), SECTOR);
        let (first, rest) = buf.split_at_mut(head);
        let (middle, last) = rest.split_at_mut(whole);
        let middle_at = offset.saturating_add(length(first.len()));
        self.read_part(&shape, offset, first)?;
        if !middle.is_empty() {
            self.engine.read_sectors(&shape, middle_at / SECTOR, middle)?;
        }
        self.read_part(&shape, middle_at.saturating_add(length(middle.len())), last)
    }

    fn write(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let shape = self.engine.enter_to_write()?;
        check_range(offset, length(data.len()), shape.size)?;
        let (head, whole) = split(offset, data.len(), SECTOR);
        let (first, rest) = data.split_at_mut(head);
        let (middle, last) = rest.split_at_mut(whole);
        let middle_at = offset.saturating_add(length(first.len()));
        let last_at = middle_at.saturating_add(length(middle.len()));
        self.change_part(&shape, offset, first.len(), |part| part.copy_from_slice(first))?;
        if !middle.is_empty() {
            let _held = self.engine.stripes.shared(middle_at, length(middle.len()));
            self.engine.write_sectors(&shape, middle_at / SECTOR, middle)?;
        }
        self.change_part(&shape, last_at, last.len(), |part| part.copy_from_slice(last))
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.clear(offset, length, true)
    }

    fn trim(&self, offset: u64, length: u64) -> io::Result<()> {
        self.clear(offset, length, false)
    }

    fn prefetch(&self, offset: u64, length: u64) -> io::Result<()> {
        let shape = self.engine.enter();
        check_range(offset, length, shape.size)?;
        // Right for a disk that was written once; elsewhere it does no harm.
        let at = super::page::byte_of(shape.first_slot).saturating_add(offset);
        self.engine.medium.prefetch(at, length)
    }

    fn flush(&self) -> io::Result<()> {
        let shape = self.engine.enter();
        if self.engine.check_writable().is_err() {
            return Ok(());
        }
        self.engine.commit(&shape)
    }

    fn close(&self) -> io::Result<()> {
        Self::close(self).map(|_| ())
    }

    fn flush_failed(&self) -> bool {
        self.engine.failed()
    }

    fn extents(&self, offset: u64, length: u64, max: usize) -> io::Result<Vec<Extent>> {
        let shape = self.engine.enter();
        check_range(offset, length, shape.size)?;
        let end = offset.saturating_add(length);
        let mut found: Vec<Extent> = Vec::new();
        let mut at = offset;
        while at < end {
            let (id, first) = NodeId::of_sector(at / SECTOR);
            let node = self.engine.tree.node(id);
            let refs = self.engine.tree.look(&shape, &node, |state| *state.refs())?;
            for name in refs.iter().skip(first) {
                let next = (at - at % SECTOR).saturating_add(SECTOR).min(end);
                let (step, hole) = (next.saturating_sub(at), name.is_null());
                let full = found.len() >= max;
                match found.last_mut() {
                    Some(last) if last.hole == hole => {
                        last.length = last.length.saturating_add(step);
                    }
                    _ if full => return Ok(found),
                    _ => found.push(Extent { length: step, hole, zero: hole }),
                }
                at = next;
                if at >= end {
                    break;
                }
            }
        }
        Ok(found)
    }
}
