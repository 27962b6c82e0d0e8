//! Elements to be written. What is written is its own exclusive canonical form, so that signing
//! needs neither a second pass nor a tree of what was just written.

use std::borrow::Cow;

use super::{ElementRef, Kind};
use crate::{c14n, uri};

/// An element with its content, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    prefix: Cow<'static, str>,
    namespace: Cow<'static, str>,
    local: Cow<'static, str>,
    attributes: Vec<Attr>,
    content: Vec<Content>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Attr {
    prefix: Cow<'static, str>,
    namespace: Cow<'static, str>,
    local: Cow<'static, str>,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Element(Element),
    Text(String),
}

impl Element {
    /// An empty element; a namespace that this crate does not know is written as default.
    #[must_use]
    pub fn new(namespace: &'static str, local: &'static str) -> Self {
        Self {
            prefix: uri::prefix(namespace).unwrap_or_default().into(),
            namespace: namespace.into(),
            local: local.into(),
            attributes: Vec::new(),
            content: Vec::new(),
        }
    }

    /// With an attribute of no namespace.
    #[must_use]
    pub fn with(mut self, local: &'static str, value: impl Into<String>) -> Self {
        self.set(local, value);
        self
    }

    /// With an attribute, if there is a value.
    #[must_use]
    pub fn with_some(self, local: &'static str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.with(local, value),
            None => self,
        }
    }

    /// With characters.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.content.push(Content::Text(text.into()));
        self
    }

    /// With an element inside, after those already there.
    #[must_use]
    pub fn child(mut self, child: Self) -> Self {
        self.push(child);
        self
    }

    /// With elements inside.
    #[must_use]
    pub fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.content.extend(children.into_iter().map(Content::Element));
        self
    }

    /// Sets an attribute of no namespace.
    pub fn set(&mut self, local: &'static str, value: impl Into<String>) {
        let (empty, value) = (Cow::Borrowed(""), value.into());
        self.attributes.retain(|a| !(a.namespace.is_empty() && a.local == local));
        self.attributes.push(Attr {
            prefix: empty.clone(),
            namespace: empty,
            local: local.into(),
            value,
        });
    }

    /// Appends an element.
    pub fn push(&mut self, child: Self) {
        self.content.push(Content::Element(child));
    }

    /// Puts an element before all content.
    pub(crate) fn push_front(&mut self, child: Self) {
        self.content.insert(0, Content::Element(child));
    }

    /// With `xml:lang="en"`.
    #[must_use]
    pub(crate) fn with_language(mut self) -> Self {
        let (prefix, namespace, local) = ("xml".into(), uri::XML.into(), "lang".into());
        self.attributes.push(Attr { prefix, namespace, local, value: "en".to_owned() });
        self
    }

    /// The value of an attribute of no namespace.
    #[must_use]
    pub fn attribute(&self, local: &str) -> Option<&str> {
        let mut all = self.attributes.iter();
        all.find(|a| a.namespace.is_empty() && a.local == local).map(|a| a.value.as_str())
    }

    /// A copy of an element that was read, without comments.
    #[must_use]
    pub fn copy_of(element: ElementRef<'_>) -> Self {
        let (document, id) = (element.document, element.id);
        let Some(tag) = document.tag(id) else { return Self::new("", "") };
        let attributes = tag.attributes.iter().map(|a| Attr {
            prefix: Cow::Owned(a.prefix.to_string()),
            namespace: Cow::Owned(a.namespace.to_string()),
            local: Cow::Owned(a.local.to_string()),
            value: a.value.clone(),
        });
        let content = document.children(id).filter_map(|child| match document.kind(child)? {
            Kind::Text(text) => Some(Content::Text(text.clone())),
            Kind::Element(_) => {
                Some(Content::Element(Self::copy_of(ElementRef { document, id: child })))
            }
            Kind::Comment(_) => None,
        });
        Self {
            prefix: Cow::Owned(tag.prefix.to_string()),
            namespace: Cow::Owned(tag.namespace.to_string()),
            local: Cow::Owned(tag.local.to_string()),
            attributes: attributes.collect(),
            content: content.collect(),
        }
    }

    /// The text: exclusive canonical XML of this element as apex.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut out = String::with_capacity(4096);
        self.write(&mut out, &mut Vec::with_capacity(8));
        out
    }

    /// The text as it stands inside of elements that declare `shown`: prefixes and namespaces.
    pub(crate) fn to_xml_inside(&self, shown: &[(&str, &str)]) -> String {
        let mut out = String::with_capacity(1024);
        self.write(&mut out, &mut shown.to_vec());
        out
    }

    fn write<'e>(&'e self, out: &mut String, shown: &mut Vec<(&'e str, &'e str)>) {
        let outer = shown.len();
        open(out, &self.prefix, &self.local);
        self.declare(out, shown);
        let order = |a: &Attr, b: &Attr| (&a.namespace, &a.local).cmp(&(&b.namespace, &b.local));
        if self.attributes.is_sorted_by(|a, b| order(a, b).is_le()) {
            self.attributes.iter().for_each(|attribute| attribute.write(out));
        } else {
            let mut attributes: Vec<&Attr> = self.attributes.iter().collect();
            attributes.sort_unstable_by(|a, b| order(a, b));
            attributes.into_iter().for_each(|attribute| attribute.write(out));
        }
        out.push('>');
        for content in &self.content {
            match content {
                Content::Text(text) => c14n::push_text(out, text),
                Content::Element(child) => child.write(out, shown),
            }
        }
        shown.truncate(outer);
        c14n::push_end(out, &self.prefix, &self.local);
    }

    /// Declares the namespaces that are used here and not shown yet, in order of their prefixes.
    fn declare<'e>(&'e self, out: &mut String, shown: &mut Vec<(&'e str, &'e str)>) {
        let mut one = |prefix: &'e str, namespace: &'e str| {
            if prefix != "xml" && c14n::last(shown, prefix) != namespace {
                c14n::push_declaration(out, prefix, namespace);
                shown.push((prefix, namespace));
            }
        };
        let prefixed = self.attributes.iter().filter(|a| !a.prefix.is_empty());
        let mut used: Vec<(&str, &str)> = prefixed.map(|a| (&*a.prefix, &*a.namespace)).collect();
        if used.is_empty() {
            return one(&self.prefix, &self.namespace);
        }
        used.push((&self.prefix, &self.namespace));
        used.sort_unstable();
        used.dedup();
        used.into_iter().for_each(|(prefix, namespace)| one(prefix, namespace));
    }
}

impl Attr {
    fn write(&self, out: &mut String) {
        c14n::push_attribute(out, &self.prefix, &self.local, &self.value);
    }
}

fn open(out: &mut String, prefix: &str, local: &str) {
    out.push('<');
    c14n::push_name(out, prefix, local);
}
