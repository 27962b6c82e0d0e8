//! `vouchsafe volume rekey --socket S`: keys are exchanged while the volume is served.
//!
//! ```text
//!   rekey ─► exchanged                                   (a key slot)
//!   rekey, data ─► started ─► state ─► state ... ended   (all data; goes on if nobody asks)
//! ```
//!
//! The frames are those of [`model::child`]; what the other side does with them is in [`control`].
//! The present key is not asked for: who may connect has the volume's plaintext over the export.

pub(super) mod control;

use std::{os::unix::net::UnixStream, path::Path, thread::sleep, time::Duration};

use anyhow::Context as _;
use model::{Secret, child, keys::order::SecretBytes};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{keys, manage::PAGE_SPAN, progress};
use crate::{
    args::VolumeRekey,
    output::{Failure, Printer},
};

/// Time between two questions how far it is.
const ASK: Duration = Duration::from_millis(200);

/// What is asked of the serving process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// Exchange a key.
    Rekey {
        /// That of all data, not only a key slot.
        data: bool,
        /// Keep the key slot that opened the volume.
        keep: bool,
        /// What opens it from now on.
        new: New,
    },
    /// How far is it?
    State {},
}

/// A secret for a new key slot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum New {
    Key(SecretBytes),
    Passphrase(SecretBytes),
    Sealed { key: SecretBytes, token: Vec<u8> },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Reply {
    /// Key slot `slot` is new.
    Exchanged { slot: usize },
    /// The data are being sealed anew; `resumed` if that was under way, with the keys of then.
    Started { resumed: bool },
    /// So many pages of so many are done; `ended` if nothing goes on any more.
    State { ended: bool, done: u64, total: u64, failed: Option<Told> },
    /// It was not done.
    Failed(Told),
}

/// A [`Failure`] on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    /// The refusal's name; absent if it could not be done.
    refused: Option<String>,
    detail: String,
    hint: String,
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { name, detail, hint, .. } => {
                Self { refused: Some(name), detail, hint }
            }
            Failure::Error { message: detail, hint } => Self { refused: None, detail, hint },
            Failure::Usage(detail) => Self { refused: None, detail, hint: String::new() },
        }
    }
}

impl Told {
    fn failure(self) -> Failure {
        match self.refused {
            Some(name) => Failure::refused(name, self.detail, self.hint),
            None => Failure::error(self.detail, self.hint),
        }
    }
}

impl From<keys::Fresh> for New {
    fn from(fresh: keys::Fresh) -> Self {
        match fresh {
            keys::Fresh::Key(key) => Self::Key(SecretBytes::new(key)),
            keys::Fresh::Passphrase(phrase) => Self::Passphrase(SecretBytes::new(phrase)),
            keys::Fresh::Sealed { key, token } => {
                Self::Sealed { key: SecretBytes::new(key), token }
            }
        }
    }
}

impl New {
    /// As a key slot's secret, if its length is right.
    fn fresh(self) -> Result<keys::Fresh, Failure> {
        let judged = |secret: SecretBytes| -> Result<Secret<Vec<u8>>, Failure> {
            keys::judged(secret.0, "the new key")
        };
        Ok(match self {
            Self::Key(key) => keys::Fresh::Key(judged(key)?),
            Self::Passphrase(phrase) => keys::Fresh::Passphrase(judged(phrase)?),
            Self::Sealed { key, token } => keys::Fresh::Sealed { key: judged(key)?, token },
        })
    }
}

/// Has the process behind `socket` exchange a key of the volume that it serves, and waits for it.
///
/// # Errors
/// A refusal of the volume, or the system's error.
pub(super) fn rekey(args: &VolumeRekey, socket: &Path, printer: Printer) -> Result<(), Failure> {
    let new = args.new.said().ok_or_else(super::manage::new_key_needed)?.fresh()?;
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("the control socket {}", socket.display()))?;
    let request = Request::Rekey { data: args.data, keep: args.keep, new: new.into() };
    match ask(&mut stream, &request)? {
        Reply::Exchanged { slot } => {
            let shown = json!({
                "rekeyed": socket, "data": false, "key_slot": slot, "kept": args.keep,
            });
            printer.result(&shown, &format!("key slot {slot} is new"))
        }
        Reply::Started { resumed } => {
            wait(&mut stream, printer)?;
            let words = if resumed { ", the one of the interrupted re-keying" } else { "" };
            let shown = json!({"rekeyed": socket, "data": true, "resumed": resumed});
            printer.result(&shown, &format!("all data are under a new key{words}"))
        }
        Reply::State { .. } | Reply::Failed(_) => Err(unexpected()),
    }
}

/// Waits until all data are sealed anew.
fn wait(stream: &mut UnixStream, printer: Printer) -> Result<(), Failure> {
    let bar = progress::bar(printer, "re-keying", 0);
    loop {
        let Reply::State { ended, done, total, failed } = ask(stream, &Request::State {})? else {
            return Err(unexpected());
        };
        bar.set_length(total * PAGE_SPAN);
        bar.set_position(done * PAGE_SPAN);
        if let Some(failed) = failed {
            return Err(super::manage::snapshots_first(failed.failure()));
        }
        if ended {
            bar.finish_and_clear();
            return Ok(());
        }
        sleep(ASK);
    }
}

fn ask(stream: &mut UnixStream, request: &Request) -> Result<Reply, Failure> {
    child::send(stream, request)?;
    match child::receive(stream)? {
        Some(Reply::Failed(told)) => Err(told.failure()),
        Some(reply) => Ok(reply),
        None => Err(Failure::error(
            "the serving process hung up",
            "may this user connect, and does it still run? what was done stays done",
        )),
    }
}

fn unexpected() -> Failure {
    Failure::error("an answer to another question", "are both of one version?")
}
