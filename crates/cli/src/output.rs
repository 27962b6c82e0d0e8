//! How results, words, progress and failures reach the operator.

use std::{io::Write as _, time::Duration};

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serve::{client::CallError, exit::Exit, problem::Problem};

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
        Self::Refused { name: name.into(), detail: detail.into(), hint: hint.into() }
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
            Err(error) => Self::error(format!("{error:#}"), ""),
        }
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
}

impl Printer {
    /// `json`: one JSON object on stdout, nothing else there.
    #[must_use]
    pub const fn new(json: bool) -> Self {
        Self { json }
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
        let _gone = writeln!(std::io::stderr(), "{text}");
    }

    /// A progress line on stderr; hidden when stderr is no terminal or JSON was asked for.
    #[must_use]
    pub fn progress(self, what: &str) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    /// Reports a failure and gives its exit status.
    #[must_use]
    pub fn failure(self, failure: &Failure) -> Exit {
        match failure {
            Failure::Refused { name, detail, hint } => {
                if self.json {
                    let said = serde_json::json!({"refused": name, "detail": detail, "hint": hint});
                    self.line(&said.to_string());
                } else {
                    self.say(&format!("refused: {name}: {detail}"));
                    self.hint(hint);
                }
                Exit::Refused
            }
            Failure::Error { message, hint } => {
                if self.json {
                    let said = serde_json::json!({"error": message, "hint": hint});
                    self.line(&said.to_string());
                } else {
                    self.say(&format!("error: {message}"));
                    self.hint(hint);
                }
                Exit::Failed
            }
            Failure::Usage(message) => {
                self.say(&format!("error: {message}\n\nFor more, try '--help'."));
                Exit::Usage
            }
        }
    }

    fn hint(self, hint: &str) {
        if !hint.is_empty() {
            self.say(&format!("  hint: {hint}"));
        }
    }
}
