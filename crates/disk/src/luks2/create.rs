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
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    ops::ControlFlow,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use model::{Digest, Kmi, Secret};
use rustix::{
    fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with},
    io::Errno,
};

pub use super::format::SlotKind;
use super::format::{AREA_AT, DATA_AT, Formatted, SECTOR, format};
use crate::{Rejection, VolumeError, cipher::SectorCipher};

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
    let partial = Partial::begin(new.path, size)?;
    let made = prepare(new)?;
    let cipher = SectorCipher::new(made.volume_key.clone(), RUN_SECTOR, 0)
        .map_err(|_| VolumeError::Crypto { what: "take the volume key" })?;
    let mut stream = Stream { source, total, file: &partial.file, cipher, progress };
    let found = stream.run()?;
    if expected.is_some_and(|expected| *expected != found) {
        return Err(Rejection::SourceDigestMismatch { found }.into());
    }
    partial.finish(&made)?;
    Ok(Created { size, uuid: made.uuid, source: Some(found) })
}

/// Makes a volume of `size` bytes without content. Its file is sparse and its sectors read as
/// noise until they are written, as after `cryptsetup luksFormat`.
///
/// # Errors
/// As for [`create`].
pub fn create_empty(new: &NewVolume<'_>, size: u64) -> Result<Created, VolumeError> {
    let size = checked_size(size)?;
    let partial = Partial::begin(new.path, size)?;
    let made = prepare(new)?;
    partial.finish(&made)?;
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

/// A volume in the making; removed when dropped unfinished.
struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl Partial {
    fn begin(target: &Path, size: u64) -> Result<Self, VolumeError> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(Rejection::AlreadyExists.into());
        }
        let path = partial_path(target)?;
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(VolumeError::io("create the volume"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Rejection::InUse.into()),
            Err(e) => return Err(VolumeError::io("lock the volume")(e.into())),
        }
        // Its maker may have finished and renamed it between our opening and locking it.
        let ours = file.metadata().map_err(VolumeError::io("look at the volume"))?;
        if !fs::metadata(&path).is_ok_and(|there| there.ino() == ours.ino()) {
            return Err(Rejection::InUse.into());
        }
        let partial = Self { file, path, target: target.to_owned(), finished: false };
        let end = DATA_AT.saturating_add(size);
        let sized = partial.file.set_len(0).and_then(|()| partial.file.set_len(end));
        sized.map_err(VolumeError::io("size the volume"))?;
        Ok(partial)
    }

    fn finish(mut self, made: &Formatted) -> Result<(), VolumeError> {
        let headers = self
            .file
            .write_all_at(&made.area, AREA_AT)
            .and_then(|()| self.file.write_all_at(&made.headers, 0));
        headers.map_err(VolumeError::io("write the header"))?;
        self.file.sync_all().map_err(VolumeError::io("make the volume durable"))?;
        match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => self.finished = true,
            Err(Errno::EXIST) => return Err(Rejection::AlreadyExists.into()),
            Err(e) => return Err(VolumeError::io("name the volume")(e.into())),
        }
        let dir = self.target.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))
            .and_then(|dir| dir.sync_all())
            .map_err(VolumeError::io("make the volume's name durable"))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing better can be done about a failure: the next creation takes the file over.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn partial_path(target: &Path) -> Result<PathBuf, VolumeError> {
    let name = target
        .file_name()
        .ok_or_else(|| VolumeError::io("create the volume")(io::ErrorKind::InvalidInput.into()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".partial");
    Ok(target.with_file_name(hidden))
}
