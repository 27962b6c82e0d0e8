//! Reading an element in the order that the schema fixes.

use super::MessageRejection;
use crate::{
    text, uri,
    xml::{ElementRef, is_ncname},
};

const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// The children of an element that are not read yet.
#[derive(Debug)]
pub(crate) struct Fields<'d> {
    element: ElementRef<'d>,
    left: Vec<ElementRef<'d>>,
}

impl<'d> Fields<'d> {
    /// Begins with `element`, which may have the attributes `allowed`.
    pub(crate) fn of(element: ElementRef<'d>, allowed: &[&str]) -> Result<Self, MessageRejection> {
        let known = |a: &crate::xml::Attribute| match &*a.namespace {
            "" => allowed.contains(&&*a.local),
            XSI => &*a.local == "schemaLocation",
            _ => false,
        };
        if !element.attributes().iter().all(known) {
            return Err(MessageRejection::Attribute);
        }
        if !element.is_structural() {
            return Err(MessageRejection::Value);
        }
        let mut left: Vec<ElementRef<'d>> = element.children().collect();
        left.reverse();
        Ok(Self { element, left })
    }

    /// The next child, if it is this one.
    pub(crate) fn optional_of(&mut self, namespace: &str, local: &str) -> Option<ElementRef<'d>> {
        self.left.pop_if(|next| next.is(namespace, local))
    }

    /// The next child, if it is this one of XKMS.
    pub(crate) fn optional(&mut self, local: &str) -> Option<ElementRef<'d>> {
        self.optional_of(uri::XKMS, local)
    }

    /// The next child, which must be this one of XKMS.
    pub(crate) fn required(&mut self, local: &str) -> Result<ElementRef<'d>, MessageRejection> {
        self.optional(local).ok_or(MessageRejection::Element)
    }

    /// All next children that are this one of XKMS.
    pub(crate) fn many(&mut self, local: &str) -> Vec<ElementRef<'d>> {
        std::iter::from_fn(|| self.optional(local)).collect()
    }

    /// The next child, whatever it is.
    pub(crate) fn peek(&self) -> Option<ElementRef<'d>> {
        self.left.last().copied()
    }

    /// All children that are left.
    pub(crate) fn rest(&mut self) -> Vec<ElementRef<'d>> {
        let mut rest = std::mem::take(&mut self.left);
        rest.reverse();
        rest
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), MessageRejection> {
        if self.left.is_empty() { Ok(()) } else { Err(MessageRejection::Element) }
    }

    pub(crate) fn attribute(&self, local: &str) -> Option<&'d str> {
        self.element.attribute(local)
    }

    pub(crate) fn needed(&self, local: &str) -> Result<&'d str, MessageRejection> {
        self.attribute(local).ok_or(MessageRejection::Attribute)
    }

    /// An attribute of type `anyURI`, which must be there: its type collapses white space.
    pub(crate) fn uri(&self, local: &str) -> Result<String, MessageRejection> {
        self.needed(local).map(|text| text.trim_matches([' ', '\t', '\n', '\r']).to_owned())
    }

    /// An attribute of type `NCName` or `ID`.
    pub(crate) fn name(&self, local: &str) -> Result<Option<String>, MessageRejection> {
        self.attribute(local).map(name).transpose()
    }

    /// An attribute of type `base64Binary`.
    pub(crate) fn bytes(&self, local: &str) -> Result<Option<Vec<u8>>, MessageRejection> {
        let bytes = |text| text::from_base64(text).ok_or(MessageRejection::Value);
        self.attribute(local).map(bytes).transpose()
    }

    /// An attribute of type `integer`.
    pub(crate) fn integer(&self, local: &str) -> Result<Option<i64>, MessageRejection> {
        let integer = |text| text::from_integer(text).ok_or(MessageRejection::Value);
        self.attribute(local).map(integer).transpose()
    }

    /// An attribute of type `dateTime`.
    pub(crate) fn instant(
        &self,
        local: &str,
    ) -> Result<Option<time::OffsetDateTime>, MessageRejection> {
        let instant = |text| text::from_date_time(text).ok_or(MessageRejection::Value);
        self.attribute(local).map(instant).transpose()
    }
}

/// An `NCName`, with the white space around it that its type collapses.
fn name(text: &str) -> Result<String, MessageRejection> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    if is_ncname(text) && text.len() <= 256 {
        Ok(text.to_owned())
    } else {
        Err(MessageRejection::Value)
    }
}

/// The characters of an element without attributes.
pub(super) fn characters(element: ElementRef<'_>) -> Result<&str, MessageRejection> {
    if element.attributes().iter().any(|a| a.namespace.is_empty()) {
        return Err(MessageRejection::Attribute);
    }
    element.text().ok_or(MessageRejection::Element)
}

/// The bytes of an element of type `base64Binary`.
pub(super) fn bytes(element: ElementRef<'_>) -> Result<Vec<u8>, MessageRejection> {
    text::from_base64(characters(element)?).ok_or(MessageRejection::Value)
}
