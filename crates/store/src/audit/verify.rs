//! The offline check. Signed roots say *that* something differs; the stored leaf hashes, once their
//! root equals a signed one, say *which entry is the first*. If the hashes were altered too, then
//! the last earlier checkpoint that still holds bounds the place.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use model::Digest;

use super::{
    AuditError, AuditRejection, MAX_LINE, TreeHead, bundle,
    recover::{read_checkpoints, read_leaves, segments},
    tree::{Hash, Tree, leaf_hash},
};
use crate::error::StoreError;

/// Verifies the signature of an envelope (one line of JSON) and answers what it says about the
/// log: the `audit` of a head or the `tree` of a checkpoint. The error is words for the operator.
pub type Open<'f> = dyn Fn(&str) -> Result<TreeHead, String> + 'f;

/// A log that passed. Only [`verify`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    entries: u64,
    signed: TreeHead,
    hashes_damaged: bool,
}

impl Verified {
    /// Entries that are there.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// The newest checkpoint; entries from its size on are not signed yet.
    #[must_use]
    pub const fn signed(&self) -> &TreeHead {
        &self.signed
    }

    /// Whether stored leaf hashes were altered though the entries are good.
    #[must_use]
    pub const fn hashes_damaged(&self) -> bool {
        self.hashes_damaged
    }
}

/// Checks the leaf hashes of the entries as they are (`entries`) and as they were stored
/// (`stored`) against checkpoints whose signatures hold.
///
/// # Errors
/// [`AuditRejection`] names the first altered entry, or the interval that it is in.
pub fn verify(
    entries: &Tree,
    stored: &Tree,
    mut heads: Vec<TreeHead>,
) -> Result<Verified, AuditRejection> {
    heads.sort_by_key(|head| head.size);
    for (one, two) in heads.iter().zip(heads.iter().skip(1)) {
        if one.size == two.size && one.root != two.root {
            return Err(AuditRejection::CheckpointsForked { size: one.size });
        }
    }
    let signed = *heads.last().ok_or(AuditRejection::NoCheckpoint)?;
    let mut good = 0;
    for head in &heads {
        if !holds(entries, head) {
            return Err(first_altered(entries, stored, good, head));
        }
        good = head.size;
    }
    let hashes_damaged = !holds(stored, &signed);
    if !hashes_damaged && let Some(seq) = first_difference(entries, stored, good, u64::MAX) {
        return Err(AuditRejection::EntryAltered { seq });
    }
    if !hashes_damaged && stored.size() > entries.size() {
        return Err(AuditRejection::EntryMissing { seq: entries.size() });
    }
    Ok(Verified { entries: entries.size(), signed, hashes_damaged })
}

fn holds(tree: &Tree, head: &TreeHead) -> bool {
    tree.root_at(head.size).map(Digest::sha256) == Some(head.root)
}

/// `head` is the first checkpoint that the entries do not match; `good` is the size of the one
/// before it.
fn first_altered(entries: &Tree, stored: &Tree, good: u64, head: &TreeHead) -> AuditRejection {
    let (from, to) = (good, head.size);
    if !holds(stored, head) {
        return AuditRejection::EntryAlteredWithin { from, to };
    }
    match first_difference(entries, stored, from, to) {
        Some(seq) => AuditRejection::EntryAltered { seq },
        None => AuditRejection::EntryMissing { seq: entries.size() },
    }
}

fn first_difference(entries: &Tree, stored: &Tree, from: u64, to: u64) -> Option<u64> {
    let pairs = (0_u64..).zip(entries.leaves().iter().zip(stored.leaves()));
    let skip = usize::try_from(from).ok()?;
    let mut pairs = pairs.skip(skip).take_while(|(seq, _)| *seq < to);
    pairs.find(|(_, (entry, stored))| entry != stored).map(|(seq, _)| seq)
}

/// Checks the log in `dir`, which need not be closed: what is being appended counts as unsigned.
///
/// # Errors
/// [`AuditError::Rejected`] if something was altered, [`AuditError::Store`] if it cannot be read.
pub fn verify_dir(dir: &Path, open: &Open<'_>) -> Result<Verified, AuditError> {
    let heads = open_all(&read_checkpoints(dir)?, open)?;
    let stored = Tree::from_leaves(read_leaves(dir)?);
    let mut leaves = Vec::new();
    for segment in segments(dir)? {
        hash_lines(&segment.path, &mut leaves)?;
    }
    // Lines past the last stored hash and the last checkpoint are still being appended.
    let signed = heads.iter().map(|head| head.size).max().unwrap_or(0);
    let recorded = usize::try_from(signed.max(stored.size())).unwrap_or(usize::MAX);
    let entries = Tree::from_leaves(leaves.into_iter().take(recorded));
    Ok(verify(&entries, &stored, heads)?)
}

/// Checks an exported log: a file of entries and a file of checkpoints with stored hashes.
///
/// # Errors
/// As [`verify_dir`].
pub fn verify_files(
    entries: &Path,
    checkpoint: &Path,
    open: &Open<'_>,
) -> Result<Verified, AuditError> {
    let bundle = bundle::read(checkpoint)?;
    let mut leaves = Vec::new();
    hash_lines(entries, &mut leaves)?;
    let stored = Tree::from_leaves(bundle.leaves);
    let heads = open_all(&bundle.envelopes, open)?;
    Ok(verify(&Tree::from_leaves(leaves), &stored, heads)?)
}

fn open_all(envelopes: &[String], open: &Open<'_>) -> Result<Vec<TreeHead>, AuditRejection> {
    let opened = envelopes.iter().enumerate().map(|(number, envelope)| {
        open(envelope).map_err(|reason| AuditRejection::CheckpointInvalid { number, reason })
    });
    opened.collect()
}

fn hash_lines(path: &Path, leaves: &mut Vec<Hash>) -> Result<(), AuditError> {
    each_line(path, MAX_LINE, |line, _| {
        leaves.push(leaf_hash(line));
        Ok(())
    })
}

/// Calls `f` with each line, without its newline, and whether it had one. A line over the limit is
/// handed out in pieces: it is not an entry whatever is done with it.
pub(super) fn each_line(
    path: &Path,
    limit: usize,
    mut f: impl FnMut(&[u8], bool) -> Result<(), AuditError>,
) -> Result<(), AuditError> {
    let io = |source: io::Error| StoreError::Io { doing: "read", path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = Read::by_ref(&mut reader).take(limit.saturating_add(1));
        if bounded.read_until(b'\n', &mut line).map_err(io)? == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        if whole {
            line.pop();
        }
        f(&line, whole)?;
    }
}
