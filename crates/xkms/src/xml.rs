//! XML, as little of it as the protocol needs: a bounded reader, a tree in source order, and a
//! writer whose output is its own canonical form.
//!
//! [`Document::parse`] accepts well-formed XML 1.0 with namespaces, in UTF-8, without document type,
//! entities other than the five that XML defines, processing instructions, or two elements of one
//! Id. What it refuses has a name: [`XmlRejection`]. ADR 0009 says why the reader is our own.
//!
//! **Invariants:** memory is bounded by [`Limits`] before anything is built; the tree keeps source
//! order, so that a subtree is one range of nodes; a value with a comment inside cannot exist.

mod element;
mod reader;
mod rejection;
mod scan;
mod sink;
mod tree;

pub use element::Element;
pub use reader::Limits;
pub use rejection::XmlRejection;
pub use tree::{Attribute, Document, ElementRef};

pub(crate) use scan::is_ncname;
pub(crate) use sink::{Sink, Text, Tree};
pub(crate) use tree::{Kind, NodeId};

/// Whitespace as XML defines it.
pub(crate) fn is_space(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
}

#[cfg(test)]
mod tests;
