//! A vault volume with the content of a source, or without.

use std::{
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
    path::Path,
};

use aws_lc_rs::digest;
use disk::{
    Rejection, VolumeError,
    vault::{self, NewSlot, NewVault, SlotSecret, Suite},
};
use model::{Digest, HashAlg, Secret};

use super::Made;
use crate::args::CreateArgs;

/// Makes the volume. Nothing is left behind if the source is not the one that was meant.
pub(super) fn create(
    args: &CreateArgs,
    secret: &Secret<Vec<u8>>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> anyhow::Result<Made> {
    let slot = NewSlot { secret: SlotSecret::RandomKey(secret), kmi: args.kmi.as_ref(), label: "" };
    let mut new = NewVault {
        path: &args.image,
        size: args.size.unwrap_or_default(),
        suite: Suite::default(),
        log_bytes: None,
        label: &args.label,
        slots: &[slot],
    };
    let Some(path) = &args.source else {
        let created = vault::create(&new)?;
        return Ok(Made { size: created.size, uuid: hex::encode(created.uuid), source: None });
    };
    let mut source = Source::open(path, args.source_sha256)?;
    new.size = source.size;
    let created = match vault::create_from(&new, &mut source, progress) {
        Err(_) if source.mismatch => {
            let found = source.found.unwrap_or(Digest::sha256([0; 32]));
            return Err(VolumeError::from(Rejection::SourceDigestMismatch { found }).into());
        }
        other => other?,
    };
    Ok(Made { size: created.size, uuid: hex::encode(created.uuid), source: source.found })
}

/// A source that fails at its end if it was not the one that was meant.
struct Source {
    file: File,
    size: u64,
    context: Option<digest::Context>,
    expected: Option<Digest>,
    found: Option<Digest>,
    mismatch: bool,
}

impl Source {
    fn open(path: &Path, expected: Option<Digest>) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let context = Some(digest::Context::new(&digest::SHA256));
        Ok(Self { file, size, context, expected, found: None, mismatch: false })
    }
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buf)?;
        if got > 0 {
            if let Some(context) = &mut self.context {
                context.update(buf.get(..got).unwrap_or_default());
            }
            return Ok(got);
        }
        if let Some(context) = self.context.take() {
            self.found = Digest::new(HashAlg::Sha256, context.finish().as_ref()).ok();
            self.mismatch = self.expected.is_some() && self.expected != self.found;
        }
        if self.mismatch {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another source"));
        }
        Ok(0)
    }
}
