//! The rules that say no to starting a vTPM, and how that is told.

use serve::{
    exit::Exit,
    shell::{self, Refused},
};
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

/// Tells a failure or refusal; gives the exit status.
pub(crate) fn failure(error: &anyhow::Error) -> Exit {
    let refusal = error.downcast_ref::<Refusal>();
    let refused = refusal.map(|said| Refused { code: said.code(), detail: said.to_string() });
    shell::failure(error.as_ref(), refused.as_ref())
}
