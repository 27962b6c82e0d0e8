//! The grammatical half of the reader: from text to the tree, within limits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Attribute, Document, Kind, NodeId, XmlRejection,
    scan::{Scan, expand, is_char},
    tree::{Node, Tag},
};
use crate::uri;

/// Bounds of one document.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Elements inside each other.
    pub depth: usize,
    /// Elements, texts and comments.
    pub nodes: usize,
    /// Attributes and namespace declarations of one element.
    pub attributes: usize,
}

impl Limits {
    /// What a message may have: 256 KiB, 32 levels, 8192 nodes, 32 attributes.
    pub const MESSAGE: Self = Self { bytes: 256 * 1024, depth: 32, nodes: 8192, attributes: 32 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::MESSAGE
    }
}

/// Reads one document.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Document, XmlRejection> {
    if bytes.len() > limits.bytes {
        return Err(XmlRejection::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| XmlRejection::Encoding)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        scan: Scan::new(text),
        limits,
        nodes: Vec::with_capacity(64),
        open: Vec::new(),
        scope: vec![("xml".into(), uri::XML.into())],
        none: "".into(),
        ids: BTreeMap::new(),
        other_ids: BTreeSet::new(),
        root: None,
    };
    reader.declaration()?;
    while !reader.scan.is_done() {
        reader.step()?;
    }
    match reader.root {
        Some(root) if reader.open.is_empty() => {
            Ok(Document { nodes: reader.nodes, root, ids: reader.ids })
        }
        _ => Err(XmlRejection::Malformed),
    }
}

/// An element that is not closed yet.
#[derive(Debug)]
struct Open {
    id: NodeId,
    /// Declarations in force outside of it.
    scope: usize,
    has_comment: bool,
    has_value: bool,
}

#[derive(Debug)]
struct Reader<'a> {
    scan: Scan<'a>,
    limits: &'a Limits,
    nodes: Vec<Node>,
    open: Vec<Open>,
    scope: Vec<(Box<str>, Arc<str>)>,
    /// No namespace.
    none: Arc<str>,
    ids: BTreeMap<Box<str>, NodeId>,
    /// Values of attributes that other readers might take for Ids.
    other_ids: BTreeSet<Box<str>>,
    root: Option<NodeId>,
}

impl<'a> Reader<'a> {
    /// `<?xml version="1.0" encoding="UTF-8"?>`, if it is there.
    fn declaration(&mut self) -> Result<(), XmlRejection> {
        let rest = self.scan.rest();
        if !rest.starts_with("<?xml") || !rest.chars().nth(5).is_some_and(char::is_whitespace) {
            return Ok(());
        }
        self.scan.expect("<?xml")?;
        let mut order = ["version", "encoding", "standalone"].iter();
        let mut first = true;
        while self.scan.space() && !self.scan.rest().starts_with('?') {
            let (prefix, name) = self.scan.name()?;
            let value = self.equals()?;
            let known =
                prefix.is_empty() && order.any(|n| *n == name) && (!first || name == "version");
            let good = match name {
                "version" => value == "1.0",
                "encoding" if is_encoding(&value, self.scan.rest()) => true,
                "encoding" => return Err(XmlRejection::Encoding),
                _ => value == "yes" || value == "no",
            };
            if !known || !good {
                return Err(XmlRejection::Malformed);
            }
            first = false;
        }
        if first {
            return Err(XmlRejection::Malformed);
        }
        self.scan.expect("?>")
    }

    fn equals(&mut self) -> Result<String, XmlRejection> {
        self.scan.space();
        self.scan.expect("=")?;
        self.scan.space();
        self.scan.quoted()
    }

    /// Reads one tag, comment, or run of characters.
    fn step(&mut self) -> Result<(), XmlRejection> {
        let rest = self.scan.rest();
        if !rest.starts_with('<') || rest.starts_with("<![CDATA[") {
            self.characters()
        } else if self.scan.take("<!--") {
            self.comment()
        } else if rest.starts_with("<!DOCTYPE") {
            Err(XmlRejection::Doctype)
        } else if rest.starts_with("<?") {
            Err(XmlRejection::ProcessingInstruction)
        } else if self.scan.take("</") {
            self.close_tag()
        } else {
            self.scan.expect("<")?;
            self.open_tag()
        }
    }

    fn add(&mut self, kind: Kind) -> Result<NodeId, XmlRejection> {
        let id = self.nodes.len();
        if id >= self.limits.nodes {
            return Err(XmlRejection::TooManyNodes);
        }
        self.nodes.push(Node { kind, parent: self.open.last().map(|o| o.id), end: id + 1 });
        Ok(id)
    }

    /// Characters and CDATA sections that follow each other: one text.
    fn characters(&mut self) -> Result<(), XmlRejection> {
        let mut text = String::new();
        loop {
            if self.scan.take("<![CDATA[") {
                let raw = self.scan.until("]]>")?;
                if self.open.is_empty() || !raw.chars().all(is_char) {
                    return Err(XmlRejection::Malformed);
                }
                text.push_str(&raw.replace("\r\n", "\n").replace('\r', "\n"));
            } else if self.scan.rest().starts_with('<') || self.scan.is_done() {
                break;
            } else {
                let raw = self.scan.before('<');
                if raw.contains("]]>") {
                    return Err(XmlRejection::Malformed);
                }
                expand(raw, &mut text, false)?;
            }
        }
        let blank = super::is_space(&text);
        match self.open.last_mut() {
            None if blank => return Ok(()),
            None => return Err(XmlRejection::Malformed),
            Some(open) => open.has_value |= !blank,
        }
        if text.is_empty() { Ok(()) } else { self.add(Kind::Text(text)).map(drop) }
    }

    fn comment(&mut self) -> Result<(), XmlRejection> {
        let raw = self.scan.until("--")?;
        self.scan.expect(">")?;
        if !raw.chars().all(is_char) {
            return Err(XmlRejection::Malformed);
        }
        if let Some(open) = self.open.last_mut() {
            open.has_comment = true;
            let text = raw.replace("\r\n", "\n").replace('\r', "\n");
            self.add(Kind::Comment(text))?;
        }
        Ok(())
    }

    fn close_tag(&mut self) -> Result<(), XmlRejection> {
        let (prefix, local) = self.scan.name()?;
        self.scan.space();
        self.scan.expect(">")?;
        self.close(Some((prefix, local)))
    }

    fn close(&mut self, name: Option<(&str, &str)>) -> Result<(), XmlRejection> {
        let open = self.open.pop().ok_or(XmlRejection::Malformed)?;
        let end = self.nodes.len();
        let node = self.nodes.get_mut(open.id).ok_or(XmlRejection::Malformed)?;
        node.end = end;
        let Kind::Element(tag) = &node.kind else { return Err(XmlRejection::Malformed) };
        if name.is_some_and(|name| name != (&*tag.prefix, &*tag.local)) {
            return Err(XmlRejection::Malformed);
        }
        if open.has_comment && open.has_value {
            return Err(XmlRejection::CommentInValue);
        }
        self.scope.truncate(open.scope);
        Ok(())
    }

    fn open_tag(&mut self) -> Result<(), XmlRejection> {
        if self.open.is_empty() && self.root.is_some() {
            return Err(XmlRejection::Malformed);
        }
        if self.open.len() >= self.limits.depth {
            return Err(XmlRejection::TooDeep);
        }
        let outer = self.scope.len();
        let (prefix, local) = self.scan.name()?;
        let mut declared = Vec::new();
        let mut plain = Vec::new();
        let empty = loop {
            let spaced = self.scan.space();
            if self.scan.take("/>") {
                break true;
            }
            if self.scan.take(">") {
                break false;
            }
            if !spaced {
                return Err(XmlRejection::Malformed);
            }
            if declared.len() + plain.len() >= self.limits.attributes {
                return Err(XmlRejection::TooManyAttributes);
            }
            let name = self.scan.name()?;
            let value = self.equals()?;
            match name {
                ("", "xmlns") => declare(&mut declared, "", value)?,
                ("xmlns", prefix) => declare(&mut declared, prefix, value)?,
                (prefix, local) => plain.push((prefix, local, value)),
            }
        };
        self.scope.extend(declared.iter().cloned());
        let attributes = self.attributes(plain)?;
        let namespace = self.resolve(prefix)?;
        let id = self.add(Kind::Element(Tag {
            prefix: prefix.into(),
            namespace,
            local: local.into(),
            declared,
            attributes,
        }))?;
        self.note_ids(id)?;
        self.root.get_or_insert(id);
        self.open.push(Open { id, scope: outer, has_comment: false, has_value: false });
        if empty { self.close(None) } else { Ok(()) }
    }

    fn attributes(&self, plain: Vec<(&str, &str, String)>) -> Result<Vec<Attribute>, XmlRejection> {
        let mut attributes: Vec<Attribute> = Vec::with_capacity(plain.len());
        for (prefix, local, value) in plain {
            let namespace =
                if prefix.is_empty() { Arc::clone(&self.none) } else { self.resolve(prefix)? };
            if attributes.iter().any(|a| a.namespace == namespace && &*a.local == local) {
                return Err(XmlRejection::AttributeTwice);
            }
            attributes.push(Attribute {
                prefix: prefix.into(),
                namespace,
                local: local.into(),
                value,
            });
        }
        Ok(attributes)
    }

    fn resolve(&self, prefix: &str) -> Result<Arc<str>, XmlRejection> {
        match self.scope.iter().rev().find(|(p, _)| &**p == prefix) {
            Some((_, namespace)) => Ok(Arc::clone(namespace)),
            None if prefix.is_empty() => Ok(Arc::clone(&self.none)),
            None => Err(XmlRejection::Namespace),
        }
    }

    /// Every attribute that somebody may take for an Id counts against two of one value; only `Id`
    /// of no namespace can be referred to.
    fn note_ids(&mut self, id: NodeId) -> Result<(), XmlRejection> {
        let Some(Node { kind: Kind::Element(tag), .. }) = self.nodes.get(id) else { return Ok(()) };
        for attribute in tag.attributes.iter().filter(|a| a.local.eq_ignore_ascii_case("id")) {
            let value: Box<str> = attribute.value.as_str().into();
            if self.ids.contains_key(&value) || !self.other_ids.insert(value.clone()) {
                return Err(XmlRejection::IdTwice);
            }
            if attribute.namespace.is_empty() && &*attribute.local == "Id" {
                self.ids.insert(value, id);
            }
        }
        Ok(())
    }
}

/// Whether a document of this encoding is what it looks like as UTF-8, given what follows.
fn is_encoding(name: &str, rest: &str) -> bool {
    let is = |other| name.eq_ignore_ascii_case(other);
    is("utf-8") || ((is("us-ascii") || is("ascii")) && rest.is_ascii())
}

/// Adds a namespace declaration to those of an element.
fn declare(
    declared: &mut Vec<(Box<str>, Arc<str>)>,
    prefix: &str,
    namespace: String,
) -> Result<(), XmlRejection> {
    if declared.iter().any(|(p, _)| &**p == prefix) {
        return Err(XmlRejection::AttributeTwice);
    }
    let reserved = prefix == "xmlns" || namespace == uri::XMLNS;
    let xml = (prefix == "xml") != (namespace == uri::XML);
    let emptied = !prefix.is_empty() && namespace.is_empty();
    if reserved || xml || emptied {
        return Err(XmlRejection::Namespace);
    }
    declared.push((prefix.into(), namespace.into()));
    Ok(())
}
