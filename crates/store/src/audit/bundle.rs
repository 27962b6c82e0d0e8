//! The checkpoint file of an export: signed checkpoints, then the stored leaf hashes in tiles of
//! 256. One JSON object a line.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{AuditError, AuditRejection, MAX_ENVELOPE, tree::Hash, verify::each_line};

/// Leaf hashes in one tile.
pub(super) const TILE: usize = 256;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    Checkpoint(serde_json::Value),
    Tile { first: u64, leaves: String },
}

/// What the file holds.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    pub(super) envelopes: Vec<String>,
    pub(super) leaves: Vec<Hash>,
}

fn malformed(what: &str) -> AuditRejection {
    AuditRejection::Malformed { what: format!("the checkpoint file is malformed: {what}") }
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Bundle, AuditError> {
    let mut bundle = Bundle::default();
    each_line(path, TILE * 64 + MAX_ENVELOPE, |line, _| Ok(bundle.add(line)?))?;
    Ok(bundle)
}

impl Bundle {
    fn add(&mut self, line: &[u8]) -> Result<(), AuditRejection> {
        let line: Line = serde_json::from_slice(line)
            .map_err(|error| malformed(&format!("not a checkpoint or tile: {error}")))?;
        match line {
            Line::Checkpoint(envelope) => self.envelopes.push(envelope.to_string()),
            Line::Tile { first, leaves } => self.add_tile(first, &leaves)?,
        }
        Ok(())
    }

    fn add_tile(&mut self, first: u64, leaves: &str) -> Result<(), AuditRejection> {
        if u64::try_from(self.leaves.len()) != Ok(first) {
            return Err(malformed("the tiles are not in order"));
        }
        let bytes = hex::decode(leaves).map_err(|_| malformed("a tile is not hexadecimal"))?;
        let (hashes, []) = bytes.as_chunks::<32>() else {
            return Err(malformed("a tile is not a row of hashes"));
        };
        if hashes.len() > TILE {
            return Err(malformed("a tile is too long"));
        }
        self.leaves.extend_from_slice(hashes);
        Ok(())
    }

    /// The file's lines.
    pub(super) fn lines(&self) -> Result<Vec<String>, serde_json::Error> {
        let mut lines = Vec::new();
        for envelope in &self.envelopes {
            let line = Line::Checkpoint(serde_json::from_str(envelope)?);
            lines.push(serde_json::to_string(&line)?);
        }
        let firsts = (0_u64..).step_by(TILE);
        for (first, tile) in firsts.zip(self.leaves.chunks(TILE)) {
            let line = Line::Tile { first, leaves: hex::encode(tile.concat()) };
            lines.push(serde_json::to_string(&line)?);
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Bundle::default().add(&line);
        }

        #[test]
        fn what_is_written_is_read(leaves in prop::collection::vec(any::<[u8; 32]>(), 0..600)) {
            let written = Bundle { envelopes: vec![r#"{"a":1}"#.to_owned()], leaves };
            let mut read = Bundle::default();
            for line in written.lines().unwrap() {
                read.add(line.as_bytes()).unwrap();
            }
            prop_assert_eq!(read.leaves, written.leaves);
            prop_assert_eq!(read.envelopes, written.envelopes);
        }
    }
}
