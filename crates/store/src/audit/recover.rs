//! The log's files, and what opening makes of them after a crash.
//!
//! A batch is written and synced to its segment, then its leaf hashes to `leaves.bin`, then it is
//! answered; a batch never spans segments. So after a crash the newest segment may have lines
//! without hashes (whole ones are kept, the rest is dropped) and `leaves.bin` may end in a torn or
//! zeroed piece. Anything else was altered, and opening says so.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use model::AuditEntry;

use super::{
    AuditError, AuditRejection, MAX_ENVELOPE, MAX_LINE,
    tree::{Hash, Tree, leaf_hash},
    verify::each_line,
};
use crate::{durable::sync_parent, error::StoreError};

/// One file of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) path: PathBuf,
}

impl Segment {
    pub(super) fn new(dir: &Path, first: u64) -> Self {
        Self { first, path: dir.join(format!("segment-{first:020}.jsonl")) }
    }
}

pub(super) fn failed<'p>(
    doing: &'static str,
    path: &'p Path,
) -> impl FnOnce(io::Error) -> StoreError + 'p {
    move |source| StoreError::Io { doing, path: path.to_owned(), source }
}

fn malformed(what: impl Into<String>) -> AuditRejection {
    AuditRejection::Malformed { what: what.into() }
}

/// The segments of `dir` in order; the first begins with entry 0.
pub(super) fn segments(dir: &Path) -> Result<Vec<Segment>, AuditError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        let name = entry.map_err(failed("list", dir))?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(digits) =
            name.strip_prefix("segment-").and_then(|name| name.strip_suffix(".jsonl"))
        else {
            continue;
        };
        let first = digits.parse().ok().filter(|_| digits.len() == 20);
        let first = first.ok_or_else(|| malformed(format!("{name} is not a segment's name")))?;
        found.push(Segment::new(dir, first));
    }
    found.sort_by_key(|segment| segment.first);
    if found.first().is_some_and(|segment| segment.first != 0) {
        return Err(AuditRejection::EntryMissing { seq: 0 }.into());
    }
    Ok(found)
}

pub(super) fn leaves_path(dir: &Path) -> PathBuf {
    dir.join("leaves.bin")
}

pub(super) fn checkpoints_path(dir: &Path) -> PathBuf {
    dir.join("checkpoints.jsonl")
}

/// The stored leaf hashes; a torn last one is left out.
pub(super) fn read_leaves(dir: &Path) -> Result<Vec<Hash>, AuditError> {
    let path = leaves_path(dir);
    match fs::read(&path) {
        Ok(bytes) => Ok(bytes.as_chunks::<32>().0.to_vec()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("read", &path)(error).into()),
    }
}

/// The recorded envelopes; a torn last one is left out.
pub(super) fn read_checkpoints(dir: &Path) -> Result<Vec<String>, AuditError> {
    let path = checkpoints_path(dir);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut envelopes = Vec::new();
    each_line(&path, MAX_ENVELOPE, |line, whole| {
        if whole {
            let text = String::from_utf8(line.to_vec());
            envelopes.push(text.map_err(|_| malformed("a checkpoint is not UTF-8"))?);
        }
        Ok(())
    })?;
    Ok(envelopes)
}

/// Opens a file of the log for appending, and makes it if it is not there.
pub(super) fn append_to(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().append(true).read(true).create(true).mode(0o600).open(path);
    let file = file.map_err(failed("open", path))?;
    sync_parent(path)?;
    Ok(file)
}

/// What opening found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) tree: Tree,
    pub(super) segment: Segment,
    pub(super) segment_bytes: u64,
    /// Whole lines that had no stored hash, and were kept.
    pub(super) kept: u64,
    /// Bytes that were never answered, and were dropped.
    pub(super) dropped: u64,
}

/// What a sector of `leaves.bin` that a power cut kept from the disk reads as; no hash is zero.
const NOT_WRITTEN: Hash = [0; 32];

/// The newest segment, read against the stored hashes.
struct Tail<'l> {
    stored: &'l [Hash],
    first: u64,
    hashes: Vec<Hash>,
    /// Lines that had no stored hash.
    fresh: u64,
    lines: u64,
    good_bytes: u64,
    torn: bool,
}

impl Tail<'_> {
    fn line(&mut self, line: &[u8], whole: bool) -> Result<(), AuditRejection> {
        if self.torn {
            return Ok(());
        }
        let seq = self.first.saturating_add(self.lines);
        let hash = leaf_hash(line);
        let stored = usize::try_from(seq).ok().and_then(|index| self.stored.get(index));
        match stored.filter(|hash| **hash != NOT_WRITTEN) {
            Some(stored) if *stored == hash && whole => {}
            Some(_) => return Err(AuditRejection::EntryAltered { seq }),
            None if whole && is_entry(line, seq) => self.fresh = self.fresh.saturating_add(1),
            None => {
                self.torn = true;
                return Ok(());
            }
        }
        self.hashes.push(hash);
        self.lines = self.lines.saturating_add(1);
        let len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.good_bytes = self.good_bytes.saturating_add(len).saturating_add(1);
        Ok(())
    }
}

fn is_entry(line: &[u8], seq: u64) -> bool {
    let entry = std::str::from_utf8(line).ok().and_then(|line| AuditEntry::from_line(line).ok());
    entry.is_some_and(|entry| entry.seq == seq)
}

/// Reads the files, repairs what a crash can have left, refuses anything else.
pub(super) fn recover(dir: &Path) -> Result<Recovered, AuditError> {
    let mut stored = read_leaves(dir)?;
    while stored.last().is_some_and(|hash| *hash == NOT_WRITTEN) {
        stored.pop();
    }
    let segment = segments(dir)?.pop().unwrap_or_else(|| Segment::new(dir, 0));
    let known = u64::try_from(stored.len()).unwrap_or(u64::MAX);
    if known < segment.first {
        let what = format!("leaves.bin has {known} hashes, at least {} are due", segment.first);
        return Err(malformed(what).into());
    }
    let mut tail = Tail {
        stored: &stored,
        first: segment.first,
        hashes: Vec::new(),
        fresh: 0,
        lines: 0,
        good_bytes: 0,
        torn: false,
    };
    let file = append_to(&segment.path)?;
    each_line(&segment.path, MAX_LINE, |line, whole| Ok(tail.line(line, whole)?))?;
    let (hashes, kept, good_bytes) = (tail.hashes, tail.fresh, tail.good_bytes);
    let entries = segment.first.saturating_add(tail.lines);
    if entries < known {
        return Err(AuditRejection::EntryMissing { seq: entries }.into());
    }
    let length = file.metadata().map_err(failed("examine", &segment.path))?.len();
    truncate(&file, &segment.path, good_bytes)?;
    stored.truncate(usize::try_from(segment.first).unwrap_or(usize::MAX));
    stored.extend(hashes);
    if kept > 0 || leaves_length(dir)? != entries.saturating_mul(32) {
        rewrite_leaves(dir, segment.first, &stored)?;
    }
    drop_torn_checkpoint(dir)?;
    let dropped = length.saturating_sub(good_bytes);
    let tree = Tree::from_leaves(stored);
    Ok(Recovered { tree, segment, segment_bytes: good_bytes, kept, dropped })
}

fn truncate(file: &File, path: &Path, length: u64) -> Result<(), StoreError> {
    let cut = file.set_len(length).and_then(|()| file.sync_all());
    cut.map_err(failed("repair", path))
}

fn leaves_length(dir: &Path) -> Result<u64, StoreError> {
    let path = leaves_path(dir);
    let length = append_to(&path)?.metadata().map(|metadata| metadata.len());
    length.map_err(failed("examine", &path))
}

/// Cuts `leaves.bin` to `good` hashes and appends the others. A crash in between leaves fewer
/// hashes, which the next opening makes again.
fn rewrite_leaves(dir: &Path, good: u64, leaves: &[Hash]) -> Result<(), StoreError> {
    let path = leaves_path(dir);
    let mut file = append_to(&path)?;
    truncate(&file, &path, good.saturating_mul(32))?;
    let others = usize::try_from(good).ok().and_then(|good| leaves.get(good..));
    let written = io::Write::write_all(&mut file, others.unwrap_or_default().as_flattened());
    written.and_then(|()| file.sync_all()).map_err(failed("repair", &path))
}

fn drop_torn_checkpoint(dir: &Path) -> Result<(), AuditError> {
    let path = checkpoints_path(dir);
    let file = append_to(&path)?;
    let mut good = 0_u64;
    each_line(&path, MAX_ENVELOPE, |line, whole| {
        if whole {
            let len = u64::try_from(line.len()).unwrap_or(u64::MAX);
            good = good.saturating_add(len).saturating_add(1);
        }
        Ok(())
    })?;
    Ok(truncate(&file, &path, good)?)
}
