//! `vouchsafe volume salvage`: what still verifies of a damaged volume, as a raw image.
//!
//! **Invariant:** the damaged volume is only read. What does not verify is a hole in the copy and in
//! the list, unless the operator asked for it by name.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::Context as _;
use disk::OpenOptions;
use serde_json::json;
use serve::exit::Exit;

use super::{
    check::{join, walk},
    failure, progress,
};
use crate::{
    args::OpenKey,
    output::{Failure, Printer},
};

/// Copies; [`Exit::Refused`] if anything did not verify.
///
/// # Errors
/// A refusal of the volume as a whole, or the system's error; the copy is then incomplete.
pub(super) fn run(
    path: &Path,
    out: &Path,
    key: &OpenKey,
    printer: Printer,
) -> Result<Exit, Failure> {
    let secret = key.said().map(|from| from.secret(path)).transpose()?;
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let volume = disk::open(path, secret.as_ref(), &options).map_err(failure::of)?;
    printer.say(&format!("{} will hold PLAINTEXT", out.display()));
    let copy = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .with_context(|| out.display().to_string())?;
    copy.set_len(volume.size())?;
    let bar = progress::bar(printer, "salvaging", volume.size());
    let (mut bad, mut copied): (Vec<Range<u64>>, u64) = (Vec::new(), 0);
    walk(&*volume, &mut |range, read| {
        bar.set_position(range.end);
        match read {
            Ok(data) => {
                copied += data.len() as u64;
                Ok(write(&copy, range.start, data)?)
            }
            Err(_) => {
                join(&mut bad, range);
                Ok(())
            }
        }
    })?;
    copy.sync_all()?;
    bar.finish_and_clear();
    let lost: u64 = bad.iter().map(|range| range.end - range.start).sum();
    let list: Vec<[u64; 2]> = bad.iter().map(|range| [range.start, range.end]).collect();
    let shown = json!({
        "salvaged": path, "out": out, "copied": copied, "lost": lost, "lost_ranges": list,
    });
    let mut text: Vec<String> = bad
        .iter()
        .map(|range| format!("lost: bytes {} to {}", range.start, range.end - 1))
        .collect();
    text.push(format!("{copied} bytes copied to {}, {lost} lost", out.display()));
    printer.result(&shown, &text.join("\n"))?;
    Ok(if bad.is_empty() { Exit::Done } else { Exit::Refused })
}

/// Zeros stay a hole.
fn write(copy: &File, at: u64, data: &[u8]) -> io::Result<()> {
    if data.iter().all(|byte| *byte == 0) { Ok(()) } else { copy.write_all_at(data, at) }
}
