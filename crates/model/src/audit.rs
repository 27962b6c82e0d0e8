//! Audit entries: what happened, who asked, what came of it. One entry is one line of canonical
//! JSON (the fields in the order below, no white space, empty texts left out); the Merkle tree of
//! the log is taken over exactly those bytes.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// Longest `actor`, `subject`, `detail` and `hint`, in bytes; [`AuditEvent::bounded`] cuts them.
pub const MAX_TEXT: usize = 2048;

/// Longest `event` and name of a refusal, in bytes.
pub const MAX_NAME: usize = 64;

/// What came of the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done: `"done"`.
    Done,
    /// A rule said no, by this kebab-case name: `{"refused": "vm-homed-elsewhere"}`.
    Refused(String),
}

/// An event before the log has given it its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub at: u64,
    /// Who asked: `operator:alice`, `host:a`, `authority`.
    pub actor: String,
    /// What, in kebab-case: `host-approved`, `grant-issued`.
    pub event: String,
    /// What it was about: `vm:web-01`, `host:a`.
    pub subject: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Facts for the reader; may be empty.
    pub detail: String,
    /// What an operator can do next; may be empty.
    pub hint: String,
}

/// Why an event cannot be recorded as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// `event` or the refusal is not kebab-case of at most [`MAX_NAME`] bytes.
    #[error("the names of events and refusals are kebab-case, at most 64 bytes")]
    Name,
}

impl AuditEvent {
    /// Something that was done.
    pub fn done(
        at: u64,
        actor: impl Into<String>,
        event: impl Into<String>,
        subject: impl Into<String>,
    ) -> Self {
        Self {
            at,
            actor: actor.into(),
            event: event.into(),
            subject: subject.into(),
            outcome: Outcome::Done,
            detail: String::new(),
            hint: String::new(),
        }
    }

    /// Something that a rule refused; `name` is the refusal's kebab-case name.
    pub fn refused(
        at: u64,
        actor: impl Into<String>,
        event: impl Into<String>,
        subject: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { outcome: Outcome::Refused(name.into()), ..Self::done(at, actor, event, subject) }
    }

    /// The same event with this detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The same event with this hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same event with its free texts cut to [`MAX_TEXT`] bytes, so that no peer can keep its
    /// refusal out of the log by sending long names.
    ///
    /// # Errors
    /// [`EventError::Name`] if a name is not kebab-case: those come from the code.
    pub fn bounded(mut self) -> Result<Self, EventError> {
        let refusal_is_named = match &self.outcome {
            Outcome::Done => true,
            Outcome::Refused(name) => is_kebab_case(name),
        };
        if !is_kebab_case(&self.event) || !refusal_is_named {
            return Err(EventError::Name);
        }
        for text in [&mut self.actor, &mut self.subject, &mut self.detail, &mut self.hint] {
            cut(text);
        }
        Ok(self)
    }

    /// The entry that this event becomes at place `seq`.
    #[must_use]
    pub fn at_seq(self, seq: u64) -> AuditEntry {
        let Self { at, actor, event, subject, outcome, detail, hint } = self;
        AuditEntry { seq, at, actor, event, subject, outcome, detail, hint }
    }
}

fn is_kebab_case(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn cut(text: &mut String) {
    if text.len() <= MAX_TEXT {
        return;
    }
    let mut end = MAX_TEXT.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.truncate(end);
    text.push('…');
}

/// An entry of the audit log. `seq` is its index in the Merkle tree, from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Index in the log and in its Merkle tree.
    pub seq: u64,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub at: u64,
    /// Who asked.
    pub actor: String,
    /// What, in kebab-case.
    pub event: String,
    /// What it was about.
    pub subject: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Facts for the reader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What an operator can do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl AuditEntry {
    /// The entry's canonical line, without a newline.
    ///
    /// # Errors
    /// Those of the serializer; none is known for this type.
    pub fn to_line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Parses a line; unknown fields are refused.
    ///
    /// # Errors
    /// Those of the parser.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_canonical_line() {
        let entry = AuditEvent::refused(7, "host:b", "vm-start", "vm:v1", "vm-homed-elsewhere")
            .hint("stop it first")
            .at_seq(3);
        let line = entry.to_line().unwrap();
        assert_eq!(
            line,
            r#"{"seq":3,"at":7,"actor":"host:b","event":"vm-start","subject":"vm:v1","outcome":{"refused":"vm-homed-elsewhere"},"hint":"stop it first"}"#
        );
        assert_eq!(AuditEntry::from_line(&line).unwrap(), entry);
    }

    #[test]
    fn long_texts_are_cut_and_bad_names_refused() {
        let event = AuditEvent::done(0, "é".repeat(MAX_TEXT), "vm-start", "vm:v1");
        assert!(event.bounded().unwrap().actor.len() <= MAX_TEXT);
        for bad in ["", "Vm", "vm start", "-a", "a-"] {
            assert_eq!(AuditEvent::done(0, "a", bad, "s").bounded(), Err(EventError::Name));
        }
    }
}
