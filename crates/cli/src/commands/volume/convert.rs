//! `vouchsafe volume convert`: a disk image becomes a volume, streaming, sparse, resumable.
//!
//! Plaintext passes through memory only. Runs that read as zeros are not written to a vault volume,
//! where absence is zeros and authenticated; to LUKS2 they are, where absence would be noise.

mod source;
mod state;

use std::{ops::Range, sync::Arc};

use disk::{OpenOptions, Volume};
use model::Secret;
use serde_json::json;

use self::{
    source::Source,
    state::{Identity, Places},
};
use super::{create, failure, progress};
use crate::{
    args::{NewFormat, VolumeConvert},
    output::{Failure, Printer},
};

/// Bytes that are read and written at a time.
const RUN: usize = 4 << 20;
/// Grain in which zeros are left out.
const GRAIN: usize = 4096;
/// The position is saved when so much was written since.
const SAVE_BYTES: u64 = 64 << 20;

/// Converts.
///
/// # Errors
/// A refusal of source, destination or key, or the system's error. What was done is kept for the
/// next call.
pub(super) fn run(args: &VolumeConvert, printer: Printer) -> Result<(), Failure> {
    create::refuse_cipher(args.cipher, args.to)?;
    let mut source = source::open(&args.source, args.from, &mut || source_secret(args))?;
    let to = match args.to {
        NewFormat::Vault => "vault",
        NewFormat::Luks2 => "luks2",
    };
    let identity = Identity::of(&args.source, source.format(), to)?;
    let places = Places::beside(&args.destination)?;
    let resumed = places.resume(&identity)?;
    let size = match args.to {
        NewFormat::Vault => source.size(),
        NewFormat::Luks2 => source.size().next_multiple_of(GRAIN as u64),
    };
    let secret = if resumed.is_some() {
        args.key.needed()?.secret(&places.volume)?
    } else {
        let fresh = args.key.needed()?.fresh()?;
        create::make(&create::Wish {
            path: &places.volume,
            format: args.to,
            cipher: args.cipher,
            size,
            key: &fresh,
            kmi: args.kmi.as_ref(),
            label: &args.label,
        })?;
        places.save(&identity, 0)?;
        fresh.secret().clone()
    };
    let volume = disk::open(&places.volume, Some(&secret), &OpenOptions::default())
        .map_err(failure::at(&places.volume))?;
    let mut copy = Copy {
        source: source.as_mut(),
        volume: volume.volume(),
        sparse: args.to == NewFormat::Vault,
        buffer: vec![0; RUN],
        written: 0,
    };
    let from = resumed.unwrap_or(0);
    copy.all(from, &mut |position| places.save(&identity, position), printer)?;
    let written = copy.written;
    drop(copy);
    places.finish()?;
    let shown = json!({
        "converted": args.destination, "from": source.format(), "to": to, "size": size,
        "written": written, "resumed_at": resumed,
    });
    let again =
        resumed.map_or_else(String::new, |at| format!(" since byte {at}, where it went on"));
    let text = format!(
        "{} ({}) -> {} ({to}, {size} bytes, {written} of them written{again})",
        args.source.display(),
        source.format(),
        args.destination.display(),
    );
    printer.result(&shown, &text)
}

/// What opens an encrypted source: what was said of it, else what is to open the new volume.
fn source_secret(args: &VolumeConvert) -> Result<Secret<Vec<u8>>, Failure> {
    match args.source_key.said() {
        Some(from) => from.secret(&args.source),
        None => args.key.needed()?.secret(&args.source),
    }
}

/// One copying.
struct Copy<'a> {
    source: &'a mut dyn Source,
    volume: Arc<dyn Volume>,
    /// Zeros need not be written.
    sparse: bool,
    buffer: Vec<u8>,
    written: u64,
}

impl Copy<'_> {
    fn all(
        &mut self,
        from: u64,
        save: &mut dyn FnMut(u64) -> anyhow::Result<()>,
        printer: Printer,
    ) -> Result<(), Failure> {
        let (size, run) = (self.source.size(), RUN as u64);
        let bar = progress::bar(printer, "converting", size);
        let (mut position, mut saved) = (from, from);
        while position < size {
            // Ends at a multiple of the run, so that the volume is written in whole sectors.
            let most = run - position % run;
            let chunk = self.source.next(position, most).map_err(source::failed)?;
            let end = (position + most).min(size);
            if self.sparse && chunk.zero {
                position += chunk.length;
            } else {
                self.run(position..end)?;
                position = end;
            }
            bar.set_position(position);
            if position - saved >= SAVE_BYTES {
                self.volume.flush()?;
                save(position - position % run)?;
                saved = position;
            }
        }
        self.tail(size)?;
        bar.finish_and_clear();
        Ok(self.volume.close()?)
    }

    fn run(&mut self, range: Range<u64>) -> Result<(), Failure> {
        let length = usize::try_from(range.end - range.start)?;
        let Some(buffer) = self.buffer.get_mut(..length) else {
            return Err(Failure::error("a run is longer than the buffer", ""));
        };
        self.source.read(range.start, buffer).map_err(source::failed)?;
        for part in parts(buffer, self.sparse) {
            let at = range.start + part.start as u64;
            let data = buffer.get_mut(part).unwrap_or_default();
            self.written += data.len() as u64;
            self.volume.write(at, data)?;
        }
        Ok(())
    }

    /// The rest of the last sector of a volume whose sectors read as noise until they are written.
    fn tail(&mut self, size: u64) -> Result<(), Failure> {
        let rest = self.volume.size().saturating_sub(size);
        if !self.sparse && rest > 0 {
            self.volume.write(size, &mut vec![0; usize::try_from(rest)?])?;
        }
        Ok(())
    }
}

/// The parts of `data` that are to be written: all, or the runs of grains that are not zeros.
fn parts(data: &[u8], sparse: bool) -> Vec<Range<usize>> {
    if !sparse {
        return std::iter::once(0..data.len()).collect();
    }
    let mut found: Vec<Range<usize>> = Vec::new();
    for (i, grain) in data.chunks(GRAIN).enumerate() {
        if grain.iter().all(|byte| *byte == 0) {
            continue;
        }
        let (start, end) = (i * GRAIN, i * GRAIN + grain.len());
        match found.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => found.push(start..end),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_zeros_is_written_to_a_sparse_volume() {
        let mut data = vec![0; 5 * GRAIN + 10];
        assert!(parts(&data, true).is_empty());
        data[GRAIN] = 1;
        data[3 * GRAIN - 1] = 1;
        data[5 * GRAIN + 9] = 1;
        assert_eq!(parts(&data, true), [GRAIN..3 * GRAIN, 5 * GRAIN..5 * GRAIN + 10]);
        assert_eq!(parts(&data, false).len(), 1);
    }
}
