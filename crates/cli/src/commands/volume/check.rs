//! `vouchsafe volume check`: reads everything that is allocated and names what does not verify.

use std::{io, ops::Range, path::Path};

use disk::{OpenOptions, Rejection, Volume};
use serde_json::{Value, json};
use serve::exit::Exit;

use super::{failure, progress};
use crate::{
    args::OpenKey,
    output::{Failure, Printer},
};

/// Bytes that are read at a time while all is well.
const RUN: u64 = 1 << 20;
/// Grain in which damage is told.
const SECTOR: u64 = 4096;
/// Damaged ranges that are listed.
const LISTED: usize = 10_000;

/// Checks the volume; [`Exit::Refused`] if anything is damaged.
///
/// # Errors
/// A refusal of the volume as a whole, or the system's error.
pub(super) fn run(path: &Path, key: &OpenKey, printer: Printer) -> Result<Exit, Failure> {
    let secret = key.said().map(|from| from.secret(path)).transpose()?;
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let volume = disk::open(path, secret.as_ref(), &options).map_err(failure::at(path))?;
    let header = volume.header_damage().map(str::to_owned);
    let bar = progress::bar(printer, "checking", volume.size());
    let (mut bad, mut named): (Vec<Range<u64>>, Vec<Value>) = (Vec::new(), Vec::new());
    walk(&*volume, &mut |range, read| {
        bar.set_position(range.end);
        if let Err(error) = read {
            if named.len() < LISTED {
                named.push(json!({"offset": range.start, "name": name(error)}));
            }
            join(&mut bad, range);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    let authenticated = volume.format() == "vault";
    let sectors: u64 = bad.iter().map(|range| (range.end - range.start).div_ceil(SECTOR)).sum();
    let listed: Vec<u64> = bad
        .iter()
        .flat_map(|range| (range.start..range.end).step_by(usize::try_from(SECTOR).unwrap_or(1)))
        .take(LISTED)
        .collect();
    let mut shown = json!({
        "checked": path, "format": volume.format(), "size": volume.size(),
        "authenticated": authenticated, "bad_sectors": sectors, "bad": listed,
        "damage": named, "header_damage": header,
    });
    if let (Some(first), Some(object)) = (named.first(), shown.as_object_mut()) {
        let code = first.get("name").and_then(Value::as_str).unwrap_or_default();
        object.insert("refused".to_owned(), code.into());
        let at = first.get("offset").and_then(Value::as_u64).unwrap_or_default();
        let detail = format!("bad sectors: {sectors}, the first at byte {at}");
        object.insert("detail".to_owned(), detail.into());
        object.insert("hint".to_owned(), failure::hint(code).into());
    }
    printer.result(&shown, &text(path, authenticated, (&bad, &named), header.as_deref()))?;
    Ok(if bad.is_empty() { Exit::Done } else { Exit::Refused })
}

/// Why something cannot be read: the rule that refuses it, or the medium.
fn name(error: &io::Error) -> &'static str {
    Rejection::inside(error).map_or("unreadable", Rejection::code)
}

fn text(
    path: &Path,
    authenticated: bool,
    (bad, named): (&[Range<u64>], &[Value]),
    header: Option<&str>,
) -> String {
    let mut lines = Vec::new();
    if let Some(damage) = header {
        lines.push(format!("one copy of the header is damaged: {damage}"));
    }
    for range in bad.iter().take(LISTED) {
        let why = named.iter().find(|found| found["offset"] == range.start);
        let why = why.and_then(|found| found["name"].as_str()).unwrap_or("unreadable");
        lines.push(format!("bad: bytes {} to {}: {why}", range.start, range.end - 1));
    }
    if bad.is_empty() {
        let how = if authenticated { "every sector verifies" } else { "everything can be read" };
        lines.push(format!("{}: {how}", path.display()));
    }
    if !authenticated {
        lines.push("the format is not authenticated: alterations cannot be found".to_owned());
    }
    lines.join("\n")
}

/// Adds a range that follows the others.
pub(super) fn join(ranges: &mut Vec<Range<u64>>, more: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == more.start => last.end = more.end,
        _ => ranges.push(more),
    }
}

/// Takes a range and what was read of it, or why nothing was.
pub(super) type Each<'a> =
    dyn FnMut(Range<u64>, Result<&[u8], &io::Error>) -> Result<(), Failure> + 'a;

/// Calls `each` with every allocated range of `volume` in order, and its content if it can be read;
/// where it cannot, sector by sector. Ranges that are known to be zeros are passed by.
///
/// # Errors
/// What `each` says.
pub(super) fn walk(volume: &dyn Volume, each: &mut Each<'_>) -> Result<(), Failure> {
    let (size, mut at) = (volume.size(), 0);
    let mut buffer = vec![0; usize::try_from(RUN)?];
    while at < size {
        let most = RUN.min(size - at);
        // Where the map itself is damaged, the sectors below it do not open either.
        let (length, zero) = match volume.extents(at, most, 1) {
            Ok(found) => found
                .first()
                .map_or((most, false), |extent| (extent.length.clamp(1, most), extent.zero)),
            Err(_) => (most, false),
        };
        let end = if zero { at + length } else { at + most };
        if !zero {
            let Some(buffer) = buffer.get_mut(..usize::try_from(most)?) else { break };
            if volume.read(at, buffer).is_ok() {
                each(at..end, Ok(buffer))?;
            } else {
                sectors(volume, at..end, buffer, each)?;
            }
        }
        at = end;
    }
    Ok(())
}

fn sectors(
    volume: &dyn Volume,
    range: Range<u64>,
    buffer: &mut [u8],
    each: &mut Each<'_>,
) -> Result<(), Failure> {
    let mut at = range.start;
    for part in buffer.chunks_mut(usize::try_from(SECTOR)?) {
        let end = at + part.len() as u64;
        let read = volume.read(at, part);
        each(at..end, read.as_ref().map(|()| &*part))?;
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        let mut ranges = Vec::new();
        for start in [0, 4096, 12288, 16384] {
            join(&mut ranges, start..start + 4096);
        }
        assert_eq!(ranges, [0..8192, 12288..20480]);
    }
}
