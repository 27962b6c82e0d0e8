//! Canonical XML 1.0, inclusive and exclusive, with and without comments, of one subtree.
//!
//! The subtree may be seen in its place, or as if it were a document of its own
//! ([`Context::Detached`]): then nothing that stands outside of it has any effect. Deliberately
//! absent: node sets that are no subtree, and canonical XML 1.1.

use std::sync::Arc;

use crate::{
    uri,
    xml::{Attribute, Document, ElementRef, Kind, NodeId},
};

/// A canonicalisation algorithm with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// Exclusive canonicalisation, with the prefixes that are treated inclusively ("" is the
    /// default namespace); `None` is inclusive canonicalisation.
    pub exclusive: Option<Vec<String>>,
    /// Whether comments are kept.
    pub comments: bool,
}

impl Method {
    /// Exclusive, without comments or prefix list.
    pub const EXCLUSIVE: Self = Self { exclusive: Some(Vec::new()), comments: false };
    /// Inclusive, without comments.
    pub const INCLUSIVE: Self = Self { exclusive: None, comments: false };

    /// The method named by an algorithm URI.
    #[must_use]
    pub fn from_uri(algorithm: &str) -> Option<Self> {
        let (exclusive, comments) = match algorithm {
            "http://www.w3.org/TR/2001/REC-xml-c14n-20010315" => (None, false),
            "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments" => (None, true),
            uri::EXC_C14N => (Some(Vec::new()), false),
            "http://www.w3.org/2001/10/xml-exc-c14n#WithComments" => (Some(Vec::new()), true),
            _ => return None,
        };
        Some(Self { exclusive, comments })
    }
}

/// How much of the document around a subtree counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context<'d> {
    /// All of it.
    InPlace,
    /// Nothing above this element.
    Detached(ElementRef<'d>),
}

/// The canonical form of `apex`, without the subtree `without`. `None` if, detached, a prefix is
/// declared nowhere.
#[must_use]
pub fn canonicalize(
    apex: ElementRef<'_>,
    without: Option<ElementRef<'_>>,
    method: &Method,
    context: Context<'_>,
) -> Option<String> {
    let horizon = match context {
        Context::InPlace => None,
        Context::Detached(element) => Some(element.id),
    };
    let document = apex.document;
    let mut writer = Writer {
        document,
        method,
        without: without.map(|e| e.id),
        scope: Vec::new(),
        shown: Vec::new(),
        out: String::with_capacity(2048),
    };
    let above = ancestors(document, apex.id, horizon);
    for id in above.iter().rev() {
        writer.enter(*id);
    }
    let inherited =
        if method.exclusive.is_none() { xml_attributes(document, &above) } else { Vec::new() };
    writer.element(apex.id, true, &inherited)?;
    Some(writer.out)
}

/// The elements above `id` that count, nearest first.
fn ancestors(document: &Document, id: NodeId, horizon: Option<NodeId>) -> Vec<NodeId> {
    let mut above = Vec::new();
    let mut at = id;
    while horizon != Some(at) {
        let Some(parent) = document.parent(at) else { break };
        above.push(parent);
        at = parent;
    }
    above
}

/// Attributes of the namespace `xml` that an apex inherits; the nearest wins.
fn xml_attributes<'d>(document: &'d Document, above: &[NodeId]) -> Vec<&'d Attribute> {
    let mut found: Vec<&Attribute> = Vec::new();
    for tag in above.iter().filter_map(|id| document.tag(*id)) {
        for attribute in tag.attributes.iter().filter(|a| &*a.namespace == uri::XML) {
            if !found.iter().any(|f| f.local == attribute.local) {
                found.push(attribute);
            }
        }
    }
    found
}

struct Writer<'d, 'm> {
    document: &'d Document,
    method: &'m Method,
    without: Option<NodeId>,
    /// Declarations in force.
    scope: Vec<(&'d str, &'d str)>,
    /// Declarations written by elements that are still open.
    shown: Vec<(&'d str, &'d str)>,
    out: String,
}

impl<'d> Writer<'d, '_> {
    fn enter(&mut self, id: NodeId) {
        if let Some(tag) = self.document.tag(id) {
            let declared = tag.declared.iter().filter(|(p, _)| &**p != "xml");
            self.scope.extend(declared.map(|(p, n): &(Box<str>, Arc<str>)| (&**p, &**n)));
        }
    }

    fn element(&mut self, id: NodeId, apex: bool, inherited: &[&'d Attribute]) -> Option<()> {
        let tag = self.document.tag(id)?;
        let (outer, shown) = (self.scope.len(), self.shown.len());
        self.enter(id);
        let mut attributes: Vec<&Attribute> = tag.attributes.iter().collect();
        let absent = |a: &&&Attribute| {
            !tag.attributes.iter().any(|t| t.namespace == a.namespace && t.local == a.local)
        };
        attributes.extend(inherited.iter().filter(absent));
        attributes
            .sort_unstable_by(|a, b| (&*a.namespace, &*a.local).cmp(&(&*b.namespace, &*b.local)));
        self.out.push('<');
        push_name(&mut self.out, &tag.prefix, &tag.local);
        for (prefix, namespace) in self.declarations(id, apex, outer)? {
            push_declaration(&mut self.out, prefix, namespace);
            self.shown.push((prefix, namespace));
        }
        for attribute in attributes {
            push_attribute(&mut self.out, &attribute.prefix, &attribute.local, &attribute.value);
        }
        self.out.push('>');
        self.content(id)?;
        push_end(&mut self.out, &tag.prefix, &tag.local);
        self.scope.truncate(outer);
        self.shown.truncate(shown);
        Some(())
    }

    fn content(&mut self, id: NodeId) -> Option<()> {
        let (document, without) = (self.document, self.without);
        for child in document.children(id).filter(|child| without != Some(*child)) {
            match document.kind(child)? {
                Kind::Element(_) => self.element(child, false, &[])?,
                Kind::Text(text) => push_text(&mut self.out, text),
                Kind::Comment(text) if self.method.comments => {
                    self.out.push_str("<!--");
                    self.out.push_str(&text.replace('\r', "&#xD;"));
                    self.out.push_str("-->");
                }
                Kind::Comment(_) => (),
            }
        }
        Some(())
    }

    /// The namespace declarations to write on element `id`, in order of their prefixes.
    fn declarations(
        &self,
        id: NodeId,
        apex: bool,
        outer: usize,
    ) -> Option<Vec<(&'d str, &'d str)>> {
        let tag = self.document.tag(id)?;
        let attributes = tag.attributes.iter().map(|a| &*a.prefix).filter(|p| !p.is_empty());
        let mut used: Vec<&'d str> =
            attributes.chain([&*tag.prefix]).filter(|p| *p != "xml").collect();
        if used.iter().any(|p| !p.is_empty() && last(&self.scope, p).is_empty())
            || last(&self.scope, &tag.prefix) != &*tag.namespace && &*tag.prefix != "xml"
        {
            return None;
        }
        let from = if apex { 0 } else { outer };
        let declared = self.scope.get(from..).unwrap_or_default().iter().map(|(p, _)| *p);
        match &self.method.exclusive {
            None => used = declared.collect(),
            Some(list) => used.extend(declared.filter(|p| list.iter().any(|l| l == p))),
        }
        used.sort_unstable();
        used.dedup();
        let wanted = used.into_iter().map(|p| (p, last(&self.scope, p)));
        Some(wanted.filter(|(p, n)| last(&self.shown, p) != *n).collect())
    }
}

/// The namespace that `prefix` has last been given; empty if none.
pub(crate) fn last<'a>(scope: &[(&'a str, &'a str)], prefix: &str) -> &'a str {
    scope.iter().rev().find(|(p, _)| *p == prefix).map_or("", |(_, namespace)| namespace)
}

pub(crate) fn push_name(out: &mut String, prefix: &str, local: &str) {
    if !prefix.is_empty() {
        out.push_str(prefix);
        out.push(':');
    }
    out.push_str(local);
}

pub(crate) fn push_end(out: &mut String, prefix: &str, local: &str) {
    out.push_str("</");
    push_name(out, prefix, local);
    out.push('>');
}

pub(crate) fn push_declaration(out: &mut String, prefix: &str, namespace: &str) {
    if prefix.is_empty() {
        push_attribute(out, "", "xmlns", namespace);
    } else {
        push_attribute(out, "xmlns", prefix, namespace);
    }
}

pub(crate) fn push_attribute(out: &mut String, prefix: &str, local: &str, value: &str) {
    out.push(' ');
    push_name(out, prefix, local);
    out.push_str("=\"");
    push_escaped(out, value, |c| match c {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'"' => Some("&quot;"),
        b'\t' => Some("&#x9;"),
        b'\n' => Some("&#xA;"),
        b'\r' => Some("&#xD;"),
        _ => None,
    });
    out.push('"');
}

pub(crate) fn push_text(out: &mut String, text: &str) {
    push_escaped(out, text, |c| match c {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'\r' => Some("&#xD;"),
        _ => None,
    });
}

/// Appends `text` with what `escape` says for some ASCII characters; all else in long runs.
fn push_escaped(out: &mut String, text: &str, escape: impl Fn(u8) -> Option<&'static str>) {
    // Mostly there is nothing, which is seen fastest without stopping at the first.
    if !text.bytes().fold(false, |found, b| found | escape(b).is_some()) {
        return out.push_str(text);
    }
    let mut rest = text;
    while let Some((at, escaped)) =
        rest.bytes().enumerate().find_map(|(n, b)| escape(b).map(|e| (n, e)))
    {
        out.push_str(rest.get(..at).unwrap_or_default());
        out.push_str(escaped);
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    out.push_str(rest);
}
