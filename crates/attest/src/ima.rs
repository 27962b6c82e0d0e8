//! IMA measurement lists in the kernel's binary form (`binary_runtime_measurements`, templates
//! `ima-ng` and `ima-sig`, little-endian).
//!
//! The list itself carries only a SHA-1 template digest; what the kernel extends into the SHA-256
//! bank is the SHA-256 of the template data, which is computed here. A violation (a file that was
//! open for writing while it was measured) has a digest of zeros in the list and extends ones.
//! Deliberately absent: the old `ima` template, custom templates.

use aws_lc_rs::digest;
use model::{Digest, HashAlg};
use thiserror::Error;

use crate::{bytes::Reader, eventlog::Sha256Replay};

/// The largest list that is read, bytes.
pub const MAX_LIST: usize = 4 * 1024 * 1024;

/// The largest number of entries that is read.
pub const MAX_ENTRIES: usize = 32_768;

const MAX_DATA: usize = 64 * 1024;

/// Why bytes are not an IMA list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ImaMalformed {
    /// The fields of an entry's template do not fill its data.
    #[error("the template data of entry {entry} is malformed")]
    Data {
        /// Counted from 0.
        entry: usize,
    },
    /// An entry of a PCR that no PC has.
    #[error("entry {entry} is for PCR {pcr}")]
    Pcr {
        /// Counted from 0.
        entry: usize,
        /// The index in the list.
        pcr: u32,
    },
    /// Neither `ima-ng` nor `ima-sig`.
    #[error("entry {entry} has a template that is not supported")]
    Template {
        /// Counted from 0.
        entry: usize,
    },
    /// Over the limits.
    #[error("the list exceeds {MAX_LIST} bytes or {MAX_ENTRIES} entries")]
    TooLarge,
    /// The bytes end inside an entry.
    #[error("the list ends inside entry {entry}")]
    Truncated {
        /// Counted from 0.
        entry: usize,
    },
}

/// One measured file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImaEntry<'a> {
    /// The PCR, nearly always 10.
    pub pcr: u8,
    /// What the kernel extended into the SHA-256 bank.
    pub extended: [u8; 32],
    /// Whether the entry is a violation.
    pub violation: bool,
    /// Algorithm of the file's digest as the kernel names it.
    pub algorithm: &'a str,
    /// The file's digest; zeros in a violation.
    pub file_digest: &'a [u8],
    /// The file's path as the kernel saw it, or `boot_aggregate`. Covered by the digest unless the
    /// entry is a violation. Not made harmless: see [`ImaEntry::description`].
    pub path: &'a [u8],
    /// The file's signature (`ima-sig`), perhaps empty.
    pub signature: &'a [u8],
}

impl ImaEntry<'_> {
    /// The path as text that can be shown: control characters replaced, bounded.
    #[must_use]
    pub fn description(&self) -> String {
        let text = String::from_utf8_lossy(self.path);
        text.chars().take(160).map(|c| if c.is_control() { '?' } else { c }).collect()
    }

    /// The file's digest, if its algorithm is one of ours.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        let alg = HashAlg::ALL.into_iter().find(|alg| alg.name() == self.algorithm)?;
        Digest::new(alg, self.file_digest).ok()
    }
}

/// A parsed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImaList<'a> {
    /// Entries in the order in which they were extended.
    pub entries: Vec<ImaEntry<'a>>,
}

impl<'a> ImaList<'a> {
    /// Parses a whole list, strictly.
    ///
    /// # Errors
    /// [`ImaMalformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImaMalformed> {
        if bytes.len() > MAX_LIST {
            return Err(ImaMalformed::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while !reader.is_empty() {
            if entries.len() == MAX_ENTRIES {
                return Err(ImaMalformed::TooLarge);
            }
            let entry = parse_entry(&mut reader, entries.len())?;
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// The value of one PCR after all entries, from zeros.
    #[must_use]
    pub fn replay_sha256(&self, pcr: u8) -> [u8; 32] {
        let mut replay = Sha256Replay::new(0);
        for entry in self.entries.iter().filter(|entry| entry.pcr == pcr) {
            replay.extend(pcr, &entry.extended);
        }
        replay.value(pcr)
    }
}

fn parse_entry<'a>(reader: &mut Reader<'a>, entry: usize) -> Result<ImaEntry<'a>, ImaMalformed> {
    let cut = ImaMalformed::Truncated { entry };
    let pcr = reader.u32_le().ok_or(cut)?;
    let listed = reader.bytes(20).ok_or(cut)?;
    let template = sized(reader, 16).ok_or(cut)?;
    let data = sized(reader, MAX_DATA).ok_or(cut)?;
    let pcr = u8::try_from(pcr)
        .ok()
        .filter(|pcr| *pcr < tpm::PCR_COUNT)
        .ok_or(ImaMalformed::Pcr { entry, pcr })?;
    let signed = match template {
        b"ima-ng" => false,
        b"ima-sig" => true,
        _ => return Err(ImaMalformed::Template { entry }),
    };
    let (algorithm, file_digest, path, signature) =
        fields(data, signed).ok_or(ImaMalformed::Data { entry })?;
    let violation = listed.iter().all(|byte| *byte == 0);
    let mut extended = [0xff; 32];
    if !violation {
        for (to, from) in extended.iter_mut().zip(digest::digest(&digest::SHA256, data).as_ref()) {
            *to = *from;
        }
    }
    Ok(ImaEntry { pcr, extended, violation, algorithm, file_digest, path, signature })
}

/// `d-ng | n-ng` and for `ima-sig` `| sig`, each with its length.
#[allow(clippy::type_complexity, reason = "the four fields of a template, named by the caller")]
fn fields(data: &[u8], signed: bool) -> Option<(&str, &[u8], &[u8], &[u8])> {
    let mut reader = Reader::new(data);
    let digest = sized(&mut reader, 96)?;
    let path = sized(&mut reader, MAX_DATA)?;
    let signature = if signed { sized(&mut reader, MAX_DATA)? } else { &[] };
    // "sha256:\0" and the digest
    let colon = digest.iter().position(|byte| *byte == b':')?;
    let (algorithm, rest) = digest.split_at_checked(colon)?;
    let file_digest = rest.strip_prefix(b":\0")?;
    let path = path.strip_suffix(b"\0")?;
    let algorithm = std::str::from_utf8(algorithm).ok()?;
    let plain = algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (reader.is_empty() && plain).then_some((algorithm, file_digest, path, signature))
}

fn sized<'a>(reader: &mut Reader<'a>, limit: usize) -> Option<&'a [u8]> {
    let length = usize::try_from(reader.u32_le()?).ok()?;
    if length > limit {
        return None;
    }
    reader.bytes(length)
}

#[cfg(test)]
mod tests;
