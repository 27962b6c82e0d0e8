//! What elements are described to: their text at once, or a tree of them that may still be changed.
//! One description serves both.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Element;
use crate::{c14n, uri};

/// An attribute of no namespace, if there is a value.
pub(crate) type Attribute<'a> = (&'static str, Option<&'a str>);

/// Takes elements in the order of a document.
pub(crate) trait Sink {
    /// Begins an element.
    fn open(&mut self, namespace: &'static str, local: &'static str, attributes: &[Attribute<'_>]);
    /// Characters.
    fn text(&mut self, text: &str);
    /// Bytes as base64.
    fn base64(&mut self, bytes: &[u8]);
    /// A whole element.
    fn element(&mut self, element: &Element);
    /// Ends the element that was begun last.
    fn close(&mut self);

    /// An element with nothing in it but attributes.
    fn empty(
        &mut self,
        namespace: &'static str,
        local: &'static str,
        attributes: &[Attribute<'_>],
    ) {
        self.open(namespace, local, attributes);
        self.close();
    }

    /// An element with characters.
    fn value(&mut self, namespace: &'static str, local: &'static str, text: &str) {
        self.open(namespace, local, &[]);
        self.text(text);
        self.close();
    }

    /// An element with base64.
    fn binary(&mut self, namespace: &'static str, local: &'static str, bytes: &[u8]) {
        self.open(namespace, local, &[]);
        self.base64(bytes);
        self.close();
    }
}

/// An element that is not closed yet.
#[derive(Debug)]
struct Open {
    prefix: &'static str,
    local: &'static str,
    /// Declarations shown outside of it.
    shown: usize,
}

/// The text of one element: exclusive canonical XML, as [`Element::to_xml`] writes it.
#[derive(Debug)]
pub(crate) struct Text {
    out: String,
    open: Vec<Open>,
    /// Declarations in force: prefixes and namespaces.
    shown: Vec<(&'static str, &'static str)>,
    /// Where the content of the outermost element begins.
    content: Option<usize>,
}

impl Text {
    /// What `describe` describes.
    pub(crate) fn of(describe: impl FnOnce(&mut Self)) -> Self {
        let mut text = Self {
            out: String::with_capacity(4096),
            open: Vec::with_capacity(8),
            shown: Vec::with_capacity(8),
            content: None,
        };
        describe(&mut text);
        text
    }

    /// The text, and where in it the content begins.
    pub(crate) fn into_parts(self) -> (String, usize) {
        (self.out, self.content.unwrap_or_default())
    }
}

impl Sink for Text {
    fn open(&mut self, namespace: &'static str, local: &'static str, attributes: &[Attribute<'_>]) {
        let prefix = uri::prefix(namespace).unwrap_or_default();
        self.open.push(Open { prefix, local, shown: self.shown.len() });
        self.out.push('<');
        c14n::push_name(&mut self.out, prefix, local);
        if c14n::last(&self.shown, prefix) != namespace {
            c14n::push_declaration(&mut self.out, prefix, namespace);
            self.shown.push((prefix, namespace));
        }
        let mut push = |(name, value): &Attribute<'_>| {
            if let Some(value) = value {
                c14n::push_attribute(&mut self.out, "", name, value);
            }
        };
        if attributes.is_sorted_by_key(|(name, _)| *name) {
            attributes.iter().for_each(push);
        } else {
            let mut sorted: Vec<&Attribute<'_>> = attributes.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            sorted.into_iter().for_each(&mut push);
        }
        self.out.push('>');
        self.content.get_or_insert(self.out.len());
    }

    fn text(&mut self, text: &str) {
        c14n::push_text(&mut self.out, text);
    }

    fn base64(&mut self, bytes: &[u8]) {
        STANDARD.encode_string(bytes, &mut self.out);
    }

    fn element(&mut self, element: &Element) {
        self.out.push_str(&element.to_xml_inside(&self.shown));
    }

    fn close(&mut self) {
        if let Some(Open { prefix, local, shown }) = self.open.pop() {
            self.shown.truncate(shown);
            c14n::push_end(&mut self.out, prefix, local);
        }
    }
}

/// A tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    open: Vec<Element>,
    done: Vec<Element>,
}

impl Tree {
    /// The one element that `describe` describes.
    pub(crate) fn of(describe: impl FnOnce(&mut Self)) -> Element {
        let mut tree = Self::default();
        describe(&mut tree);
        tree.done.pop().unwrap_or_else(|| Element::new("", ""))
    }

    fn put(&mut self, element: Element) {
        match self.open.last_mut() {
            Some(parent) => parent.push(element),
            None => self.done.push(element),
        }
    }
}

impl Sink for Tree {
    fn open(&mut self, namespace: &'static str, local: &'static str, attributes: &[Attribute<'_>]) {
        let mut element = Element::new(namespace, local);
        for (name, value) in attributes {
            element = element.with_some(name, *value);
        }
        self.open.push(element);
    }

    fn text(&mut self, text: &str) {
        if let Some(element) = self.open.pop() {
            self.open.push(element.text(text));
        }
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.text(&STANDARD.encode(bytes));
    }

    fn element(&mut self, element: &Element) {
        self.put(element.clone());
    }

    fn close(&mut self) {
        if let Some(element) = self.open.pop() {
            self.put(element);
        }
    }
}
