//! What is converted: any volume that the disk crate opens, or a qcow2 image.

use std::{fs::File, path::Path, sync::Arc};

use anyhow::Context as _;
use disk::{Format, OpenOptions, Volume};
use model::Secret;
use qcow2::{ImageError, Qcow2, Rejection};

use crate::{args::AnyFormat, commands::volume::failure, output::Failure};

/// A run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its length, not 0.
    pub(super) length: u64,
    /// It reads as zeros.
    pub(super) zero: bool,
}

/// An image that is read from its start to its end.
pub(super) trait Source {
    /// Its format.
    fn format(&self) -> &'static str;

    /// Its size in bytes.
    fn size(&self) -> u64;

    /// What lies at `offset`: one run, at most `max` long.
    fn next(&mut self, offset: u64, max: u64) -> anyhow::Result<Chunk>;

    /// Reads; the range lies within the size.
    fn read(&mut self, offset: u64, out: &mut [u8]) -> anyhow::Result<()>;
}

/// A refusal of the source, so that it passes through [`anyhow::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Refused {
    /// Its name.
    pub(super) code: &'static str,
    /// In words.
    pub(super) detail: String,
    /// The next step.
    pub(super) hint: &'static str,
}

/// A qcow2 error for [`Source`].
fn refuse(error: ImageError) -> anyhow::Error {
    match error {
        ImageError::Refused(rejection) => {
            let hint = hint(&rejection);
            Refused { code: rejection.code(), detail: rejection.to_string(), hint }.into()
        }
        ImageError::Io(_) => error.into(),
    }
}

/// What to do about an image that is not read.
const fn hint(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::BackingFile | Rejection::ExternalData => {
            "flatten it first: `qemu-img convert -O qcow2 IMAGE FLAT`"
        }
        Rejection::Corrupt | Rejection::Malformed(_) => "look at it with `qemu-img check`",
        Rejection::Encrypted | Rejection::Unsupported(_) => {
            "rewrite it first: `qemu-img convert -O qcow2 IMAGE PLAIN`"
        }
    }
}

/// An error of a [`Source`] for the operator.
pub(super) fn failed(error: anyhow::Error) -> Failure {
    match error.downcast::<Refused>() {
        Ok(Refused { code, detail, hint }) => Failure::refused(code, detail, hint),
        Err(error) => error.into(),
    }
}

/// Opens the image at `path`. Unless `format` is said it is recognised; what is nothing else is raw.
/// `secret` is asked for what opens an encrypted one.
///
/// # Errors
/// A refusal, or the system's error.
pub(super) fn open(
    path: &Path,
    format: Option<AnyFormat>,
    secret: &mut dyn FnMut() -> Result<Secret<Vec<u8>>, Failure>,
) -> Result<Box<dyn Source>, Failure> {
    let format = match format {
        Some(AnyFormat::Qcow2) => None,
        Some(format) => Some(crate::commands::volume::format(format)?),
        None if is_qcow2(path)? => None,
        None => Some(recognise(path)?),
    };
    let Some(format) = format else {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let image = Qcow2::open(file).map_err(|error| failed(refuse(error)))?;
        return Ok(Box::new(image));
    };
    let options = OpenOptions { read_only: true, format: Some(format), ..OpenOptions::default() };
    let secret = if format == Format::Raw { None } else { Some(secret().map_err(other_key)?) };
    let volume = disk::open(path, secret.as_ref(), &options)
        .map_err(|error| other_key(failure::at(path)(error)))?;
    if volume.header_damage().is_some() {
        tracing::warn!("one copy of the source's header is damaged");
    }
    Ok(Box::new(Opened(volume.volume())))
}

/// Of a source that its key does not open, how another one is said.
fn other_key(failure: Failure) -> Failure {
    let hint = "has the source another key? say --source-key-file, --source-passphrase or \
                --source-passphrase-file";
    failure::hinted(failure, &["not-vault", "tpm-refused", "wrong-key"], hint)
}

fn recognise(path: &Path) -> Result<Format, Failure> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    Ok(disk::recognise(&file).map_err(failure::at(path))?.unwrap_or(Format::Raw))
}

fn is_qcow2(path: &Path) -> Result<bool, Failure> {
    let start = failure::start(path).with_context(|| path.display().to_string())?;
    Ok(start == qcow2::MAGIC)
}

impl Source for Qcow2 {
    fn format(&self) -> &'static str {
        "qcow2"
    }

    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn next(&mut self, offset: u64, max: u64) -> anyhow::Result<Chunk> {
        let run = self.run(offset, max).map_err(refuse)?;
        Ok(Chunk { length: run.length, zero: run.zero })
    }

    fn read(&mut self, offset: u64, out: &mut [u8]) -> anyhow::Result<()> {
        Self::read(self, offset, out).map_err(refuse)
    }
}

#[derive(Debug)]
struct Opened(Arc<dyn Volume>);

impl Source for Opened {
    fn format(&self) -> &'static str {
        self.0.format()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn next(&mut self, offset: u64, max: u64) -> anyhow::Result<Chunk> {
        let length = max.min(self.0.size().saturating_sub(offset));
        let found = self.0.extents(offset, length, 1)?;
        Ok(found.first().map_or(Chunk { length, zero: false }, |extent| Chunk {
            length: extent.length.clamp(1, length),
            zero: extent.zero,
        }))
    }

    fn read(&mut self, offset: u64, out: &mut [u8]) -> anyhow::Result<()> {
        self.0.read(offset, out).with_context(|| format!("the source at byte {offset}"))
    }
}
