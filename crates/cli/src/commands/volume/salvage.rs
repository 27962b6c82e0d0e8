//! `vouchsafe volume salvage`: what still verifies of a damaged volume, as a raw image.
//!
//! **Invariant:** the damaged volume is only read. What does not verify is a hole in the copy, unless
//! the operator asked for it in so many words; it is in a list either way.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::Context as _;
use disk::{OpenOptions, Opened};
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
    (out, release): (&Path, bool),
    key: &OpenKey,
    printer: Printer,
) -> Result<Exit, Failure> {
    let secret = key.said().map(|from| from.secret(path)).transpose()?;
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let volume = disk::open(path, secret.as_ref(), &options).map_err(failure::at(path))?;
    printer.say(&format!("{} will hold PLAINTEXT", out.display()));
    if release {
        let warning = "what does not verify is copied too: somebody may have chosen what is in it";
        printer.say(&format!("UNVERIFIED: {warning}"));
    }
    let copy = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .with_context(|| out.display().to_string())?;
    copy.set_len(volume.size())?;
    let bar = progress::bar(printer, "salvaging", volume.size());
    let (mut bad, mut copied): (Vec<Range<u64>>, u64) = (Vec::new(), 0);
    let mut unverified: Vec<Range<u64>> = Vec::new();
    walk(&*volume, &mut |range, read| {
        bar.set_position(range.end);
        match read {
            Ok(data) => {
                copied += data.len() as u64;
                Ok(write(&copy, range.start, data)?)
            }
            Err(_) => {
                let found = release.then(|| altered(&volume, &range)).flatten();
                if let Some(data) = found {
                    write(&copy, range.start, &data)?;
                    join(&mut unverified, range);
                } else {
                    join(&mut bad, range);
                }
                Ok(())
            }
        }
    })?;
    copy.sync_all()?;
    bar.finish_and_clear();
    told((path, out), copied, (&bad, &unverified), printer)?;
    let whole = bad.is_empty() && unverified.is_empty();
    Ok(if whole { Exit::Done } else { Exit::Refused })
}

/// Says what was copied and what was not.
fn told(
    (path, out): (&Path, &Path),
    copied: u64,
    (bad, unverified): (&[Range<u64>], &[Range<u64>]),
    printer: Printer,
) -> Result<(), Failure> {
    let list = |ranges: &[Range<u64>]| -> Vec<[u64; 2]> {
        ranges.iter().map(|range| [range.start, range.end]).collect()
    };
    let shown = json!({
        "salvaged": path, "out": out, "copied": copied,
        "lost": length(bad), "lost_ranges": list(bad),
        "unverified": length(unverified), "unverified_ranges": list(unverified),
    });
    let lines = |word: &'static str, ranges: &[Range<u64>]| -> Vec<String> {
        let line =
            |range: &Range<u64>| format!("{word}: bytes {} to {}", range.start, range.end - 1);
        ranges.iter().map(line).collect()
    };
    let mut text = lines("lost", bad);
    text.extend(lines("UNVERIFIED", unverified));
    let lost = length(bad);
    text.push(format!("{copied} bytes copied to {}, {lost} lost", out.display()));
    printer.result(&shown, &text.join("\n"))
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// What a sector that does not verify decrypts to, if that can be had.
fn altered(volume: &Opened, range: &Range<u64>) -> Option<Vec<u8>> {
    let mut data = vec![0; usize::try_from(range.end - range.start).ok()?];
    volume.vault()?.read_unverified(range.start, &mut data).ok()?;
    Some(data)
}

/// Zeros stay a hole.
fn write(copy: &File, at: u64, data: &[u8]) -> io::Result<()> {
    if data.iter().all(|byte| *byte == 0) { Ok(()) } else { copy.write_all_at(data, at) }
}
