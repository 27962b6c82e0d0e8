//! The tree of a document: nodes in source order, each with the end of its subtree.

use std::{collections::BTreeMap, sync::Arc};

use super::{Limits, XmlRejection, reader};

/// Index of a node in its document.
pub(crate) type NodeId = usize;

/// One attribute that is no namespace declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Prefix; empty for none.
    pub prefix: Box<str>,
    /// Namespace; empty for none.
    pub namespace: Arc<str>,
    /// Local name.
    pub local: Box<str>,
    /// Normalised value.
    pub value: String,
}

/// What an element is, besides its children.
#[derive(Debug)]
pub(crate) struct Tag {
    pub(crate) prefix: Box<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) local: Box<str>,
    /// Declarations made here: prefix and namespace.
    pub(crate) declared: Vec<(Box<str>, Arc<str>)>,
    pub(crate) attributes: Vec<Attribute>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Element(Tag),
    Text(String),
    Comment(String),
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) parent: Option<NodeId>,
    /// One past the last node of the subtree.
    pub(crate) end: NodeId,
}

/// A document that was read. There is no way to change it.
#[derive(Debug)]
pub struct Document {
    pub(super) nodes: Vec<Node>,
    pub(super) root: NodeId,
    pub(super) ids: BTreeMap<Box<str>, NodeId>,
}

impl Document {
    /// Reads one document.
    pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Self, XmlRejection> {
        reader::read(bytes, limits)
    }

    /// The document element.
    #[must_use]
    pub const fn root(&self) -> ElementRef<'_> {
        ElementRef { document: self, id: self.root }
    }

    /// The one element whose attribute `Id` (of no namespace) is `id`.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<ElementRef<'_>> {
        self.ids.get(id).map(|id| ElementRef { document: self, id: *id })
    }

    pub(crate) fn kind(&self, id: NodeId) -> Option<&Kind> {
        self.nodes.get(id).map(|node| &node.kind)
    }

    pub(crate) fn tag(&self, id: NodeId) -> Option<&Tag> {
        match self.kind(id) {
            Some(Kind::Element(tag)) => Some(tag),
            _ => None,
        }
    }

    pub(crate) fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.nodes.get(id).and_then(|node| node.parent)
    }

    pub(crate) fn end(&self, id: NodeId) -> NodeId {
        self.nodes.get(id).map_or(id, |node| node.end)
    }

    /// The children of `id`, in order.
    pub(crate) fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let end = self.end(id);
        std::iter::successors(Some(id + 1), |at| Some(self.end(*at)))
            .take_while(move |at| *at < end)
    }
}

/// One element of a document. Two are equal if they are the same node of the same document.
#[derive(Clone, Copy, Debug)]
pub struct ElementRef<'d> {
    pub(crate) document: &'d Document,
    pub(crate) id: NodeId,
}

impl PartialEq for ElementRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.document, other.document) && self.id == other.id
    }
}

impl Eq for ElementRef<'_> {}

impl<'d> ElementRef<'d> {
    /// Namespace (empty for none) and local name.
    #[must_use]
    pub fn name(self) -> (&'d str, &'d str) {
        self.document.tag(self.id).map_or(("", ""), |tag| (&*tag.namespace, &*tag.local))
    }

    /// Whether this is the element `local` of `namespace`.
    #[must_use]
    pub fn is(self, namespace: &str, local: &str) -> bool {
        self.name() == (namespace, local)
    }

    /// All attributes, in source order.
    #[must_use]
    pub fn attributes(self) -> &'d [Attribute] {
        self.document.tag(self.id).map_or(&[], |tag| &tag.attributes)
    }

    /// The value of the attribute `local` that has no namespace.
    #[must_use]
    pub fn attribute(self, local: &str) -> Option<&'d str> {
        let mut all = self.attributes().iter();
        all.find(|a| a.namespace.is_empty() && &*a.local == local).map(|a| a.value.as_str())
    }

    /// The elements directly below.
    pub fn children(self) -> impl Iterator<Item = Self> + use<'d> {
        let document = self.document;
        let all = document.children(self.id).filter(|id| document.tag(*id).is_some());
        all.map(move |id| Self { document, id })
    }

    /// The element above.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        self.document.parent(self.id).map(|id| Self { document: self.document, id })
    }

    /// Whether `other` is this element or below it.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        std::ptr::eq(self.document, other.document)
            && (self.id..self.document.end(self.id)).contains(&other.id)
    }

    /// The characters of an element that has no elements in it.
    #[must_use]
    pub fn text(self) -> Option<&'d str> {
        let mut text = "";
        for child in self.document.children(self.id) {
            match self.document.kind(child)? {
                Kind::Text(part) => text = part,
                Kind::Comment(_) => (),
                Kind::Element(_) => return None,
            }
        }
        Some(text)
    }

    /// Whether the element has no characters besides white space directly in it.
    #[must_use]
    pub fn is_structural(self) -> bool {
        self.document.children(self.id).all(|id| match self.document.kind(id) {
            Some(Kind::Text(text)) => super::is_space(text),
            _ => true,
        })
    }
}
