//! Grants that were used: each opens once, even across a crash of the agent.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use model::{GrantId, Incarnation};
use serve::fsfile::{self, FileError};

use super::GrantRejection;

/// Ids of grants that were used, one hexadecimal line each, and `incarnation N` where a grant was
/// of a newer one than before; appended durably.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    state: Mutex<LedgerState>,
}

#[derive(Debug)]
struct LedgerState {
    used: std::collections::HashSet<GrantId>,
    incarnation: Incarnation,
    file: File,
}

const INCARNATION: &str = "incarnation ";

/// 64 Ki grants a file; more than a host meets between two weeks of restarts.
const LEDGER_LIMIT: usize = 64 << 20;

impl Ledger {
    /// Opens the ledger in the state directory. A line that a crash cut short was never used.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn open(state_dir: &Path) -> Result<Self, FileError> {
        let path = state_dir.join("used-grants");
        let content = match fsfile::read_limited(&path, LEDGER_LIMIT) {
            Ok(content) => content,
            Err(error) if error.is_missing() => {
                fsfile::write_atomic(&path, b"", 0o600)?;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&content);
        let used = text.lines().filter_map(|line| line.parse().ok()).collect();
        let seen = text.lines().filter_map(|line| line.strip_prefix(INCARNATION)?.parse().ok());
        let incarnation = Incarnation(seen.max().unwrap_or(0));
        let io = |source| FileError::Io { operation: "open", path: path.clone(), source };
        let mut file = OpenOptions::new().append(true).mode(0o600).open(&path).map_err(io)?;
        if !content.is_empty() && !content.ends_with(b"\n") {
            file.write_all(b"\n").map_err(io)?;
        }
        Ok(Self { path, state: Mutex::new(LedgerState { used, incarnation, file }) })
    }

    /// Writes an id down, before anything is done with its grant; refuses what was used, and what
    /// is older than a restore of the authority's store that this host has seen.
    pub(super) fn spend(&self, id: GrantId, of: Incarnation) -> Result<(), GrantRejection> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if of < state.incarnation {
            return Err(GrantRejection::IncarnationOld { granted: of, seen: state.incarnation });
        }
        if state.used.contains(&id) {
            return Err(GrantRejection::Used);
        }
        let io = |source| {
            let path = self.path.clone();
            GrantRejection::Ledger(FileError::Io { operation: "append to", path, source })
        };
        let newer = of > state.incarnation;
        let line = if newer { format!("{INCARNATION}{}\n{id}\n", of.0) } else { format!("{id}\n") };
        state.file.write_all(line.as_bytes()).map_err(io)?;
        state.file.sync_data().map_err(io)?;
        state.used.insert(id);
        state.incarnation = of;
        Ok(())
    }
}
