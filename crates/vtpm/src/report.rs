//! What the caller reads: one JSON line on stdout if the process cannot start, words on stderr.

use std::io::Write as _;

use serde::Serialize;
use serve::exit::{Exit, chain};
use thiserror::Error;

/// A rule that says no to starting a vTPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// Another swtpm holds the directory.
    #[error("the vTPM's state is in use by another process")]
    InUse,
    /// The state was written under another key (copied from another VM or host), or is damaged.
    #[error("the vTPM's state does not open with this key")]
    Foreign,
}

impl Refusal {
    const fn code(self) -> &'static str {
        match self {
            Self::InUse => "vtpm-in-use",
            Self::Foreign => "vtpm-state-foreign",
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line<'a> {
    Refused { code: &'a str, detail: String },
    Failed { detail: String },
}

/// Tells a failure or refusal; gives the exit status.
pub(crate) fn failure(error: &anyhow::Error) -> Exit {
    let detail = chain(error.as_ref());
    let (line, exit) = match error.downcast_ref::<Refusal>() {
        Some(refusal) => {
            tracing::error!(rejection = refusal.code(), detail, "refused");
            let detail = refusal.to_string();
            (Line::Refused { code: refusal.code(), detail }, Exit::Refused)
        }
        None => {
            tracing::error!(detail, "failed");
            (Line::Failed { detail }, Exit::Failed)
        }
    };
    if let Ok(mut text) = serde_json::to_vec(&line) {
        text.push(b'\n');
        let mut out = std::io::stdout().lock();
        // A reader that went away is no reason to hide the exit status.
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }
    exit
}
