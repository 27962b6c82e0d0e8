//! How results, words, progress and failures reach the operator.

mod place;
mod progress;

use std::io::Write as _;

use comfy_table::{Table, presets};
use serde::Serialize;
use serve::{
    client::CallError, config::ConfigError, exit::Exit, fsfile::FileError, problem::Problem,
};
use tpm::{TpmError, TransportError};

pub use self::{
    place::{Place, quoted},
    progress::Progress,
};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// A rule said no: exit status 3.
    Refused {
        /// The rejection's kebab-case name.
        name: String,
        /// What happened.
        detail: String,
        /// What to do next.
        hint: String,
        /// Of a log that is not what was recorded: the first entry that is (or can be) altered.
        index: Option<u64>,
    },
    /// It could not be done: exit status 1.
    Error {
        /// What happened, with its causes.
        message: String,
        /// What to do next; may be empty.
        hint: String,
    },
    /// It was called wrongly: exit status 2.
    Usage(String),
}

impl Failure {
    /// An error with the next step.
    pub fn error(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Error { message: message.into(), hint: hint.into() }
    }

    /// A refusal.
    pub fn refused(
        name: impl Into<String>,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let (name, detail, hint) = (name.into(), detail.into(), hint.into());
        Self::Refused { name, detail, hint, index: None }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: anyhow::Error = error.into();
        match error.downcast::<CallError>() {
            Ok(CallError::Problem(problem)) => from_problem(*problem),
            Ok(other) => Self::error(
                serve::exit::chain(&other),
                "is the other side running? see `vouchsafe lab status` or the service's log",
            ),
            Err(error) => {
                let hint = next_step(&error);
                Self::error(format!("{error:#}"), hint)
            }
        }
    }
}

/// What to do about an error that says nothing of it itself.
fn next_step(error: &anyhow::Error) -> &'static str {
    if error.is::<ConfigError>() {
        "a client's configuration has url, ca_file, client_cert and client_key; for a lab use --lab \
         DIR"
    } else if matches!(error.downcast_ref(), Some(TpmError::Transport(TransportError::Open { .. })))
    {
        "is there a TPM, and may this user use it? a software TPM is said as unix:SOCKET (--anchor \
         tpm:unix:SOCKET, --tpm=unix:SOCKET)"
    } else if error.is::<FileError>() || error.is::<std::io::Error>() {
        "is the path right, and may this user read and write there?"
    } else {
        ""
    }
}

fn from_problem(problem: Problem) -> Failure {
    let detail = problem.detail.clone().unwrap_or_else(|| problem.title.clone());
    let hint = problem.hint.clone().unwrap_or_default();
    if problem.is_refusal() {
        Failure::refused(problem.name, detail, hint)
    } else {
        Failure::error(format!("{}: {detail}", problem.name), hint)
    }
}

/// A table without lines.
#[must_use]
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

/// Prints for people or for programs.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    json: bool,
    place: Place,
}

impl Printer {
    /// `json`: one JSON object on stdout, nothing else there.
    #[must_use]
    pub const fn new(json: bool) -> Self {
        Self { json, place: Place::Default }
    }

    /// Has the commands that are printed say where: they act where this one does.
    #[must_use]
    pub const fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// A command to type next, with where: `vouchsafe WORDS --lab DIR`.
    #[must_use]
    pub fn command(self, words: &str) -> String {
        self.place.command(words)
    }

    /// Whether the output is for programs.
    #[must_use]
    pub const fn is_json(self) -> bool {
        self.json
    }

    /// The result: `value` as JSON, or `text`.
    ///
    /// # Errors
    /// [`Failure::Error`] if the value cannot be written.
    pub fn result(self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json {
            self.line(&serde_json::to_string(value)?);
        } else {
            self.line(text);
        }
        Ok(())
    }

    /// A list: one JSON object a line, or `text`.
    ///
    /// # Errors
    /// [`Failure::Error`] if a value cannot be written.
    pub fn list<T: Serialize>(self, values: &[T], text: &str) -> Result<(), Failure> {
        if !self.json {
            self.line(text);
            return Ok(());
        }
        for value in values {
            self.line(&serde_json::to_string(value)?);
        }
        Ok(())
    }

    /// One line (or block) on stdout; a reader that went away is no error.
    pub fn line(self, text: &str) {
        let _gone = writeln!(std::io::stdout(), "{text}");
    }

    /// Words for the person who waits, on stderr.
    pub fn say(self, text: &str) {
        let _gone = writeln!(std::io::stderr(), "{}", self.place.complete(text));
    }

    /// Progress on stderr: a spinner, or a line at each phase if stderr is no terminal; hidden when
    /// JSON was asked for.
    #[must_use]
    pub fn progress(self, what: &str) -> Progress {
        Progress::begin(what, !self.json)
    }

    /// Reports a failure and gives its exit status.
    #[must_use]
    pub fn failure(self, failure: &Failure) -> Exit {
        let hint = self.place.complete(failure.hint());
        if self.json {
            self.line(&failure.json(&hint).to_string());
        } else {
            match failure {
                Failure::Refused { name, detail, .. } => {
                    self.say(&format!("refused: {name}: {detail}"));
                }
                Failure::Error { message, .. } | Failure::Usage(message) => {
                    self.say(&format!("error: {message}"));
                }
            }
            if !hint.is_empty() {
                self.say(&format!("  hint: {hint}"));
            }
        }
        match failure {
            Failure::Refused { .. } => Exit::Refused,
            Failure::Error { .. } => Exit::Failed,
            Failure::Usage(_) => Exit::Usage,
        }
    }
}

impl Failure {
    fn hint(&self) -> &str {
        match self {
            Self::Refused { hint, .. } | Self::Error { hint, .. } => hint,
            Self::Usage(_) => "`vouchsafe --help`",
        }
    }

    /// As programs read it.
    fn json(&self, hint: &str) -> serde_json::Value {
        match self {
            Self::Refused { name, detail, index, .. } => {
                let mut refused = serde_json::json!({
                    "refused": name, "detail": detail, "hint": hint,
                });
                if let (Some(index), Some(fields)) = (index, refused.as_object_mut()) {
                    fields.insert("index".to_owned(), (*index).into());
                }
                refused
            }
            Self::Error { message, .. } | Self::Usage(message) => {
                serde_json::json!({"error": message, "hint": hint})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_json_with_a_next_step() {
        let usage = Failure::Usage("no".to_owned());
        assert_eq!(usage.json(usage.hint())["hint"], "`vouchsafe --help`");
        let [name, detail, hint] = ["entry-altered", "entry 6", "h"].map(str::to_owned);
        let altered = Failure::Refused { name, detail, hint, index: Some(6) };
        assert_eq!(altered.json("h")["index"], 6);
        assert_eq!(altered.json("h")["refused"], "entry-altered");
        let refused = Failure::refused("wrong-key", "no", "h").json("h");
        assert!(refused.get("index").is_none());
    }

    #[test]
    fn an_error_about_a_file_has_a_next_step() {
        let missing = serve::fsfile::read_limited(std::path::Path::new("/nope"), 1).unwrap_err();
        assert!(!Failure::from(missing).hint().is_empty());
    }
}
