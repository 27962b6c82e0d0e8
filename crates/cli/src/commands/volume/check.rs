//! `vouchsafe volume check`: reads everything that is allocated and names what does not verify.

use std::{io, ops::Range, path::Path, sync::Arc};

use disk::{OpenOptions, Rejection, Volume, vault};
use model::Secret;
use serde_json::{Map, Value, json};
use serve::exit::Exit;

use super::{failure, progress};
use crate::{
    args::VolumeCheck,
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
pub(super) fn run(args: &VolumeCheck, printer: Printer) -> Result<Exit, Failure> {
    let secret = args.key.said().map(|from| from.secret(&args.path)).transpose()?;
    let mut states = vec![one(args, secret.as_ref(), args.snapshot.as_deref(), printer)?];
    if args.all {
        for name in kept(&args.path, secret.as_ref())? {
            states.push(one(args, secret.as_ref(), Some(&name), printer)?);
        }
    }
    let (Some(first), more) = (states.first(), states.get(1..).unwrap_or_default()) else {
        return Ok(Exit::Done);
    };
    let mut shown = first.shown(&args.path);
    if let Some(object) = shown.as_object_mut() {
        object.insert("freshness_checked".to_owned(), args.anchor.is_some().into());
        if args.all {
            let more: Vec<Value> = more.iter().map(|state| state.shown(&args.path)).collect();
            object.insert("snapshots".to_owned(), more.into());
        }
        if let Some(damaged) = states.iter().find(|state| !state.bad.is_empty()) {
            damaged.refuse(object);
        }
    }
    let text: Vec<String> = states.iter().map(|state| state.text(&args.path)).collect();
    printer.result(&shown, &text.join("\n"))?;
    let whole = states.iter().all(|state| state.bad.is_empty());
    Ok(if whole { Exit::Done } else { Exit::Refused })
}

/// What was found in the disk, or in one of its snapshots.
#[derive(Debug)]
struct State {
    snapshot: Option<String>,
    format: &'static str,
    size: u64,
    /// What is wrong with one copy of the header.
    header: Option<String>,
    bad: Vec<Range<u64>>,
    /// The first of them, with their names.
    named: Vec<Value>,
}

/// Reads the disk, or one snapshot.
fn one(
    args: &VolumeCheck,
    secret: Option<&Secret<Vec<u8>>>,
    snapshot: Option<&str>,
    printer: Printer,
) -> Result<State, Failure> {
    let volume = open(args, secret, snapshot)?;
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
    Ok(State {
        snapshot: snapshot.map(str::to_owned),
        format: volume.format(),
        size: volume.size(),
        header: volume.header_damage().map(str::to_owned),
        bad,
        named,
    })
}

fn open(
    args: &VolumeCheck,
    secret: Option<&Secret<Vec<u8>>>,
    snapshot: Option<&str>,
) -> Result<Arc<dyn Volume>, Failure> {
    let snapshot = snapshot.map(str::to_owned);
    let options = OpenOptions { read_only: true, snapshot, ..OpenOptions::default() };
    super::open(&args.path, secret, &options, args.anchor.as_ref()).map(|opened| opened.volume)
}

/// The names of the snapshots.
fn kept(path: &Path, secret: Option<&Secret<Vec<u8>>>) -> Result<Vec<String>, Failure> {
    let Some(secret) = secret else { return Ok(Vec::new()) };
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let volume = vault::open(path, secret, &options).map_err(failure::at(path))?;
    Ok(volume.snapshots().into_iter().map(|kept| kept.name).collect())
}

impl State {
    /// As JSON.
    fn shown(&self, path: &Path) -> Value {
        let listed: Vec<u64> = self
            .bad
            .iter()
            .flat_map(|range| {
                (range.start..range.end).step_by(usize::try_from(SECTOR).unwrap_or(1))
            })
            .take(LISTED)
            .collect();
        json!({
            "checked": path, "snapshot": self.snapshot, "format": self.format, "size": self.size,
            "authenticated": self.authenticated(), "bad_sectors": self.sectors(), "bad": listed,
            "damage": self.named, "header_damage": self.header,
        })
    }

    fn authenticated(&self) -> bool {
        self.format == "vault"
    }

    fn sectors(&self) -> u64 {
        self.bad.iter().map(|range| (range.end - range.start).div_ceil(SECTOR)).sum()
    }

    /// Adds the refusal: the name of the first damage.
    fn refuse(&self, object: &mut Map<String, Value>) {
        let Some(first) = self.named.first() else { return };
        let code = first.get("name").and_then(Value::as_str).unwrap_or_default();
        object.insert("refused".to_owned(), code.into());
        let at = first.get("offset").and_then(Value::as_u64).unwrap_or_default();
        let sectors = self.sectors();
        let detail = format!("{}bad sectors: {sectors}, the first at byte {at}", self.prefix());
        object.insert("detail".to_owned(), detail.into());
        object.insert("hint".to_owned(), failure::hint(code).into());
    }

    /// Which snapshot it is about, for people.
    fn prefix(&self) -> String {
        self.snapshot.as_ref().map_or_else(String::new, |name| format!("snapshot {name}: "))
    }

    /// For people.
    fn text(&self, path: &Path) -> String {
        let (mut lines, prefix) = (Vec::new(), self.prefix());
        if let Some(damage) = &self.header {
            lines.push(format!("one copy of the header is damaged: {damage}"));
        }
        for range in self.bad.iter().take(LISTED) {
            let why = self.named.iter().find(|found| found["offset"] == range.start);
            let why = why.and_then(|found| found["name"].as_str()).unwrap_or("unreadable");
            let (first, last) = (range.start, range.end - 1);
            lines.push(format!("{prefix}bad: bytes {first} to {last}: {why}"));
        }
        if self.bad.is_empty() {
            let how = if self.authenticated() {
                "every sector verifies"
            } else {
                "everything can be read"
            };
            lines.push(format!("{prefix}{}: {how}", path.display()));
        }
        if !self.authenticated() {
            lines.push("the format is not authenticated: alterations cannot be found".to_owned());
        }
        lines.join("\n")
    }
}

/// Why something cannot be read: the rule that refuses it, or the medium.
fn name(error: &io::Error) -> &'static str {
    Rejection::inside(error).map_or("unreadable", Rejection::code)
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
