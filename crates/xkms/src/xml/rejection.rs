//! What the reader refuses.

use thiserror::Error;

/// Why bytes are not XML that this crate reads. Alphabetical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum XmlRejection {
    /// Two attributes of one element have one name.
    #[error("an element has an attribute twice")]
    AttributeTwice,
    /// An entity other than the five of XML itself.
    #[error("an entity is referred to that XML itself does not define")]
    Entity,
    /// A comment among the characters of a value.
    #[error("a comment stands inside a value")]
    CommentInValue,
    /// A document type declaration.
    #[error("the document has a document type declaration")]
    Doctype,
    /// Not UTF-8, or declared as something else.
    #[error("the document is not in UTF-8")]
    Encoding,
    /// Two elements carry one Id.
    #[error("two elements carry the same Id")]
    IdTwice,
    /// Not well-formed.
    #[error("the document is not well-formed XML")]
    Malformed,
    /// A prefix that nothing declares, or a reserved one that is misused.
    #[error("a namespace prefix is undeclared or misused")]
    Namespace,
    /// A processing instruction.
    #[error("the document has a processing instruction")]
    ProcessingInstruction,
    /// Elements nested deeper than the limit.
    #[error("elements are nested too deeply")]
    TooDeep,
    /// More bytes than the limit.
    #[error("the document is too large")]
    TooLarge,
    /// More attributes on one element than the limit.
    #[error("an element has too many attributes")]
    TooManyAttributes,
    /// More nodes than the limit.
    #[error("the document has too many nodes")]
    TooManyNodes,
}

impl XmlRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AttributeTwice => "xml-attribute-twice",
            Self::CommentInValue => "xml-comment-in-value",
            Self::Doctype => "xml-doctype",
            Self::Encoding => "xml-encoding",
            Self::Entity => "xml-entity",
            Self::IdTwice => "xml-id-twice",
            Self::Malformed => "xml-malformed",
            Self::Namespace => "xml-namespace",
            Self::ProcessingInstruction => "xml-processing-instruction",
            Self::TooDeep => "xml-too-deep",
            Self::TooLarge => "xml-too-large",
            Self::TooManyAttributes => "xml-too-many-attributes",
            Self::TooManyNodes => "xml-too-many-nodes",
        }
    }
}
