//! Making a volume: encrypted block by block into a file that gets its name only when it is
//! complete and durable.
//!
//! ```text
//!   .NAME.partial, locked -> data -> header -> fsync -> rename to NAME -> fsync of the directory
//! ```
//!
//! **Invariant:** on any failure the partial file is removed; a volume under its name is whole; no
//! existing file is replaced. Every sector of the source is encrypted, zeros too: an unwritten
//! sector of an XTS volume would read as noise.

use std::{
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use aws_lc_rs::digest;
use model::{Digest, Kmi, Secret};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

pub use super::format::SlotKind;
use super::format::{AREA_AT, DATA_AT, Formatted, SECTOR, format};
use crate::{Rejection, VolumeError, cipher::SectorCipher, partial::Partial};

/// Bytes that are read, hashed, encrypted and written at a time.
const RUN: usize = 1 << 20;
/// [`SECTOR`], to measure memory with.
const RUN_SECTOR: usize = 4096;

/// What a new volume is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewVolume<'a> {
    /// Its file, which must not exist.
    pub path: &'a Path,
    /// The secret of its one key slot, 1 to 512 bytes.
    pub secret: &'a Secret<Vec<u8>>,
    /// How that secret is stretched.
    pub slot: SlotKind,
    /// Key-management information to store with it.
    pub kmi: Option<&'a Kmi>,
    /// Label in the header, at most 47 bytes.
    pub label: &'a str,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Exported size in bytes.
    pub size: u64,
    /// UUID in the header.
    pub uuid: String,
    /// SHA-256 of the source as it was read.
    pub source: Option<Digest>,
}

/// Encrypts the raw image at `source` into a new volume. A source that does not end at a sector is
/// padded with zeros. `progress` gets bytes done and bytes in all, and may stop the work.
///
/// # Errors
/// A [`Rejection`], among them [`Rejection::SourceDigestMismatch`] if `expected` is given and the
/// bytes that were encrypted have another digest; [`VolumeError::Cancelled`]; or the system's
/// error. Nothing is left behind.
pub fn create(
    new: &NewVolume<'_>,
    source: &Path,
    expected: Option<&Digest>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Created, VolumeError> {
    let mut source = File::open(source).map_err(VolumeError::io("open the source"))?;
    let total = length(&mut source).map_err(VolumeError::io("measure the source"))?;
    refuse_containers(&source)?;
    let size = checked_size(total.next_multiple_of(u64::from(SECTOR)))?;
    let (file, partial) = begin(new.path, size)?;
    let made = prepare(new)?;
    let cipher = SectorCipher::new(made.volume_key.clone(), RUN_SECTOR, 0)
        .map_err(|_| VolumeError::Crypto { what: "take the volume key" })?;
    let mut stream = Stream { source, total, file: &file, cipher, progress };
    let found = stream.run()?;
    if expected.is_some_and(|expected| *expected != found) {
        return Err(Rejection::SourceDigestMismatch { found }.into());
    }
    finish(partial, &file, &made)?;
    Ok(Created { size, uuid: made.uuid, source: Some(found) })
}

/// Makes a volume of `size` bytes without content. Its file is sparse and its sectors read as
/// noise until they are written, as after `cryptsetup luksFormat`.
///
/// # Errors
/// As for [`create`].
pub fn create_empty(new: &NewVolume<'_>, size: u64) -> Result<Created, VolumeError> {
    let size = checked_size(size)?;
    let (file, partial) = begin(new.path, size)?;
    let made = prepare(new)?;
    finish(partial, &file, &made)?;
    Ok(Created { size, uuid: made.uuid, source: None })
}

fn prepare(new: &NewVolume<'_>) -> Result<Formatted, VolumeError> {
    if !(1..=512).contains(&new.secret.expose().len()) {
        return Err(Rejection::KeyLength.into());
    }
    format(new.secret.expose(), new.slot, new.kmi, new.label)
}

fn checked_size(size: u64) -> Result<u64, Rejection> {
    let sector = u64::from(SECTOR);
    // The largest file offset is 2^63 - 1.
    let fits = size.checked_add(DATA_AT).is_some_and(|end| i64::try_from(end).is_ok());
    if size == 0 || !fits || !size.is_multiple_of(sector) {
        return Err(Rejection::SizeInvalid { size, sector });
    }
    Ok(size)
}

fn length(file: &mut File) -> io::Result<u64> {
    let end = io::Seek::seek(file, io::SeekFrom::End(0))?;
    io::Seek::rewind(file)?;
    Ok(end)
}

/// A container taken for a raw image would make a disk that no firmware boots.
fn refuse_containers(source: &File) -> Result<(), VolumeError> {
    let mut start = [0; 8];
    match source.read_exact_at(&mut start, 0) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(e) => return Err(VolumeError::io("read the source")(e)),
    }
    let known: [(&[u8], &str); 3] =
        [(b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk"), (b"vhdxfile", "vhdx")];
    match known.into_iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, name)) => {
            Err(Rejection::unsupported(format!("a {name} source; raw is needed")).into())
        }
        None => Ok(()),
    }
}

/// The way from source to volume.
struct Stream<'a> {
    source: File,
    total: u64,
    file: &'a File,
    cipher: SectorCipher,
    progress: &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>,
}

impl Stream<'_> {
    /// Encrypts the whole source and returns its digest.
    fn run(&mut self) -> Result<Digest, VolumeError> {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut buf = Secret::new(vec![0; RUN]);
        let mut done = 0;
        while done < self.total {
            if (self.progress)(done, self.total).is_break() {
                return Err(VolumeError::Cancelled);
            }
            let left = self.total.saturating_sub(done);
            let step = usize::try_from(left).map_or(RUN, |left| left.min(RUN));
            let padded = step.next_multiple_of(RUN_SECTOR);
            let buf = buf.expose_mut();
            let run = buf.get_mut(..padded).ok_or(VolumeError::Crypto { what: "read" })?;
            let (data, padding) = run.split_at_mut(step);
            self.source.read_exact(data).map_err(VolumeError::io("read the source"))?;
            context.update(data);
            padding.fill(0);
            self.cipher
                .seal(done, run)
                .map_err(|_| VolumeError::Crypto { what: "encrypt a block" })?;
            self.file
                .write_all_at(run, DATA_AT.saturating_add(done))
                .map_err(VolumeError::io("write the volume"))?;
            done = done.saturating_add(u64::try_from(step).unwrap_or(u64::MAX));
        }
        let _ = (self.progress)(done, self.total);
        let sum: [u8; 32] = context
            .finish()
            .as_ref()
            .try_into()
            .map_err(|_| VolumeError::Crypto { what: "hash the source" })?;
        Ok(Digest::sha256(sum))
    }
}

/// An empty file of the volume's size, locked.
fn begin(target: &Path, size: u64) -> Result<(File, Partial), VolumeError> {
    let (file, partial) = Partial::begin(target, lock, |file| file)?;
    file.set_len(DATA_AT.saturating_add(size)).map_err(VolumeError::io("size the volume"))?;
    Ok((file, partial))
}

fn lock(path: &Path) -> Result<File, VolumeError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(VolumeError::io("create the volume"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(Rejection::InUse.into()),
        Err(e) => Err(VolumeError::io("lock the volume")(e.into())),
    }
}

/// Writes the headers and gives the file its name.
fn finish(partial: Partial, file: &File, made: &Formatted) -> Result<(), VolumeError> {
    let area = file.write_all_at(&made.area, AREA_AT);
    area.and_then(|()| file.write_all_at(&made.headers, 0))
        .map_err(VolumeError::io("write the header"))?;
    partial.finish(file)
}
