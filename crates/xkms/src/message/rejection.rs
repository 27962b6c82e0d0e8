//! What the message layer refuses.

use thiserror::Error;

use super::{Major, Minor};

/// Why an element is no message that this crate takes. Alphabetical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageRejection {
    /// An attribute that is missing, or that the schema does not have there.
    #[error("an attribute is missing or must not be there")]
    Attribute,
    /// More requests in a compound than are taken.
    #[error("the compound has too many requests")]
    CompoundTooLarge,
    /// An element that is missing, or that the schema does not have there.
    #[error("an element is missing or must not be there")]
    Element,
    /// A message extension; none is known.
    #[error("the message has an extension that is not supported")]
    Extension,
    /// A response limit below one.
    #[error("the response limit is not positive")]
    ResponseLimit,
    /// No message of the protocol.
    #[error("this is no message that is taken here")]
    Unknown,
    /// A value that its type does not have.
    #[error("a value is malformed")]
    Value,
}

impl MessageRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Attribute => "message-attribute",
            Self::CompoundTooLarge => "message-compound-too-large",
            Self::Element => "message-element",
            Self::Extension => "message-extension",
            Self::ResponseLimit => "message-response-limit",
            Self::Unknown => "message-unknown",
            Self::Value => "message-value",
        }
    }

    /// The result that tells a client so.
    #[must_use]
    pub const fn result(self) -> (Major, Minor) {
        match self {
            Self::Extension => (Major::Receiver, Minor::OptionalElementNotSupported),
            Self::Unknown => (Major::Sender, Minor::MessageNotSupported),
            Self::CompoundTooLarge => (Major::Sender, Minor::Refused),
            Self::Attribute | Self::Element | Self::ResponseLimit | Self::Value => {
                (Major::Sender, Minor::Failure)
            }
        }
    }
}
