//! Starts that were refused. A store that may not be used cannot be written to either, so they are
//! noted in a file beside the state directory, and the next good start takes them into the audit
//! log.
//!
//! **Invariant:** what is noted is in the log before it leaves the file; a crash between the two
//! enters it twice. Deliberately absent: protection of the file. It is for the operators to find
//! what happened; the refusal itself does not rest on it.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use model::AuditEvent;
use serde::{Deserialize, Serialize};
use serve::fsfile::{self, FileError};

use crate::audit::{Actor, AuditError, Auditor};

/// Longest file that is read; a service manager that starts a refused authority again and again
/// ends here.
const MAX_FILE: usize = 256 << 10;

/// One refused start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: u64,
    refused: String,
    detail: String,
    hint: String,
}

/// The file, open from before the process confined itself.
#[derive(Debug)]
pub(crate) struct RefusedStarts {
    path: PathBuf,
    file: File,
}

impl RefusedStarts {
    /// The file beside `state_dir`.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn beside(state_dir: &Path) -> Result<Self, FileError> {
        let mut name = state_dir.as_os_str().to_owned();
        name.push(".refused-starts");
        let path = PathBuf::from(name);
        let opened =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        let failed = |source| FileError::Io { operation: "open", path: path.clone(), source };
        let file = opened.map_err(failed)?;
        Ok(Self { path, file })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes a refusal; one that cannot be written is in the log of the process only.
    pub(crate) fn note(&mut self, at: u64, name: &str, detail: String, hint: &str) {
        let full = self.file.metadata().is_ok_and(|file| {
            usize::try_from(file.len()).unwrap_or(usize::MAX) > MAX_FILE.saturating_sub(8 << 10)
        });
        let detail = detail.chars().take(2000).collect();
        let line = Line { at, refused: name.to_owned(), detail, hint: hint.to_owned() };
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        if full {
            tracing::warn!("too many refused starts are noted");
        } else if let Err(error) = self.file.write_all(&text).and_then(|()| self.file.sync_all()) {
            tracing::warn!(%error, "a refused start could not be noted");
        }
    }

    /// Takes what was noted into the audit log.
    ///
    /// # Errors
    /// [`AuditError`]; what was noted stays.
    pub(crate) async fn enter(&self, audit: &Auditor) -> Result<(), AuditError> {
        let text = fsfile::read_limited(&self.path, MAX_FILE).unwrap_or_default();
        for line in text.split(|byte| *byte == b'\n') {
            // A line that a crash cut short says nothing.
            let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
            let event = AuditEvent::refused(
                line.at,
                Actor::authority().0,
                "authority-start",
                "authority",
                line.refused,
            );
            let Ok(event) = event.detail(line.detail).hint(line.hint).bounded() else { continue };
            audit.append(event).await?;
        }
        if let Err(error) = self.file.set_len(0) {
            tracing::warn!(%error, "refused starts stay noted and are entered again");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serve::clock::SystemClock;
    use store::audit::AuditLog;

    use super::*;

    #[tokio::test]
    async fn a_refused_start_is_entered_once_with_its_own_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let mut starts = RefusedStarts::beside(&state).unwrap();
        starts.note(7, "store-rolled-back", "older".to_owned(), "put the newest back");
        drop(starts);
        let (log, _) = AuditLog::open(&dir.path().join("audit"), 1).unwrap();
        let log = Arc::new(log);
        let audit = Auditor::new(log.clone(), SystemClock::shared());
        let starts = RefusedStarts::beside(&state).unwrap();
        starts.enter(&audit).await.unwrap();
        starts.enter(&audit).await.unwrap();
        let entries = log.read(0, 10).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].at, entries[0].event.as_str()), (7, "authority-start"));
    }
}
