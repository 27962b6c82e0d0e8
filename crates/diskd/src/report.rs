//! What the caller reads: JSON lines on stdout, words on stderr.

use std::io::Write as _;

use disk::VolumeError;
use model::child::disk::Progress;
use serve::exit::{Exit, chain};

/// Longest key, as LUKS has it.
pub(crate) const KEY_MAX: usize = 512;

/// Prints one line. A reader that went away is no reason to stop the work.
pub(crate) fn line(progress: &Progress) {
    if let Ok(mut text) = serde_json::to_vec(progress) {
        text.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }
}

/// Tells a failure or refusal; gives the exit status.
pub(crate) fn failure(error: &anyhow::Error) -> Exit {
    let detail = chain(error.as_ref());
    let rejection = error.downcast_ref::<VolumeError>().and_then(VolumeError::rejection);
    match rejection {
        Some(rejection) => {
            tracing::error!(rejection = rejection.code(), detail, "refused");
            let code = rejection.code().to_owned();
            line(&Progress::Refused { code, detail: rejection.to_string() });
            Exit::Refused
        }
        None => {
            tracing::error!(detail, "failed");
            line(&Progress::Failed { detail });
            Exit::Failed
        }
    }
}
