//! A `ds:Signature` as read: its structure, before anything is verified.

use super::{DigestAlgorithm, SignatureAlgorithm, SignatureRejection};
use crate::{c14n::Method, text, uri, xml::ElementRef};

const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const XPATH: &str = "http://www.w3.org/TR/1999/REC-xpath-19991116";
const XPATH_FILTER: &str = "http://www.w3.org/2002/06/xmldsig-filter2";
const XSLT: &str = "http://www.w3.org/TR/1999/REC-xslt-19991116";

/// At most so many prefixes are treated inclusively: each costs time at every declaration.
const PREFIXES: usize = 32;

/// The parts of a signature.
#[derive(Debug)]
pub(super) struct Parts<'d> {
    pub(super) signed_info: ElementRef<'d>,
    pub(super) method: Method,
    pub(super) algorithm: SignatureAlgorithm,
    pub(super) reference: Reference<'d>,
    pub(super) value: Vec<u8>,
}

/// The one reference.
#[derive(Debug)]
pub(super) struct Reference<'d> {
    pub(super) id: &'d str,
    pub(super) enveloped: bool,
    pub(super) method: Method,
    pub(super) digest: DigestAlgorithm,
    pub(super) value: Vec<u8>,
}

/// Children of a `ds:` element, taken in the order of the schema.
struct Children<'d>(Vec<ElementRef<'d>>);

impl<'d> Children<'d> {
    fn of(element: ElementRef<'d>) -> Result<Self, SignatureRejection> {
        if !element.is_structural() {
            return Err(SignatureRejection::Malformed);
        }
        let mut all: Vec<ElementRef<'d>> = element.children().collect();
        all.reverse();
        Ok(Self(all))
    }

    fn optional(&mut self, local: &str) -> Option<ElementRef<'d>> {
        self.0.pop_if(|next| next.is(uri::DS, local))
    }

    fn required(&mut self, local: &str) -> Result<ElementRef<'d>, SignatureRejection> {
        self.optional(local).ok_or(SignatureRejection::Malformed)
    }

    fn end(&self) -> Result<(), SignatureRejection> {
        if self.0.is_empty() { Ok(()) } else { Err(SignatureRejection::Malformed) }
    }
}

/// Reads the structure of `signature`.
pub(super) fn parts(signature: ElementRef<'_>) -> Result<Parts<'_>, SignatureRejection> {
    if !signature.is(uri::DS, "Signature") {
        return Err(SignatureRejection::Missing);
    }
    let mut children = Children::of(signature)?;
    let signed_info = children.required("SignedInfo")?;
    let value = bytes(children.required("SignatureValue")?)?;
    children.optional("KeyInfo");
    if children.optional("Object").is_some() {
        return Err(SignatureRejection::Object);
    }
    children.end()?;

    let mut children = Children::of(signed_info)?;
    let method = canonicalization(children.required("CanonicalizationMethod")?)?;
    let algorithm = signature_method(children.required("SignatureMethod")?)?;
    let reference = reference(children.required("Reference")?)?;
    if children.optional("Reference").is_some() {
        return Err(SignatureRejection::ReferencesMany);
    }
    children.end()?;
    Ok(Parts { signed_info, method, algorithm, reference, value })
}

fn reference(element: ElementRef<'_>) -> Result<Reference<'_>, SignatureRejection> {
    let target = element.attribute("URI").ok_or(SignatureRejection::ReferenceExternal)?;
    let id = target.strip_prefix('#').ok_or(SignatureRejection::ReferenceExternal)?;
    if !crate::xml::is_ncname(id) {
        return Err(SignatureRejection::ReferenceExternal);
    }
    let mut children = Children::of(element)?;
    let (enveloped, method) = match children.optional("Transforms") {
        Some(transforms) => self::transforms(transforms)?,
        None => (false, Method::INCLUSIVE),
    };
    let digest = plain_algorithm(children.required("DigestMethod")?)?;
    let digest = DigestAlgorithm::from_uri(digest).ok_or(SignatureRejection::Algorithm)?;
    let value = bytes(children.required("DigestValue")?)?;
    children.end()?;
    Ok(Reference { id, enveloped, method, digest, value })
}

/// `enveloped-signature` if at all first, then at most one canonicalisation.
fn transforms(element: ElementRef<'_>) -> Result<(bool, Method), SignatureRejection> {
    let mut enveloped = false;
    let mut method = None;
    let mut children = Children::of(element)?;
    while let Some(transform) = children.optional("Transform") {
        match transform.attribute("Algorithm").ok_or(SignatureRejection::Malformed)? {
            ENVELOPED if !enveloped && method.is_none() && transform.children().count() == 0 => {
                enveloped = true;
            }
            XPATH | XPATH_FILTER => return Err(SignatureRejection::TransformXpath),
            XSLT => return Err(SignatureRejection::TransformXslt),
            other if method.is_none() && Method::from_uri(other).is_some() => {
                // A reference by Id selects no comments, so the two forms are one here.
                method = Some(Method { comments: false, ..canonicalization(transform)? });
            }
            _ => return Err(SignatureRejection::Transform),
        }
    }
    children.end()?;
    Ok((enveloped, method.unwrap_or(Method::INCLUSIVE)))
}

/// A canonicalisation with its parameters.
fn canonicalization(element: ElementRef<'_>) -> Result<Method, SignatureRejection> {
    let algorithm = element.attribute("Algorithm").ok_or(SignatureRejection::Malformed)?;
    let mut method = Method::from_uri(algorithm).ok_or(SignatureRejection::Algorithm)?;
    for child in element.children() {
        match &mut method.exclusive {
            Some(list) if list.is_empty() && child.is(uri::EXC_C14N, "InclusiveNamespaces") => {
                let prefixes =
                    child.attribute("PrefixList").ok_or(SignatureRejection::Malformed)?;
                let prefixes = prefixes.split_ascii_whitespace();
                list.extend(prefixes.map(|p| if p == "#default" { "" } else { p }.to_owned()));
                if list.len() > PREFIXES {
                    return Err(SignatureRejection::Malformed);
                }
            }
            _ => return Err(SignatureRejection::Malformed),
        }
    }
    Ok(method)
}

fn signature_method(element: ElementRef<'_>) -> Result<SignatureAlgorithm, SignatureRejection> {
    if element.children().any(|child| child.is(uri::DS, "HMACOutputLength")) {
        return Err(SignatureRejection::TruncatedMac);
    }
    SignatureAlgorithm::from_uri(plain_algorithm(element)?).ok_or(SignatureRejection::Algorithm)
}

/// The algorithm of an element that must have no parameters.
fn plain_algorithm(element: ElementRef<'_>) -> Result<&str, SignatureRejection> {
    if element.children().next().is_some() {
        return Err(SignatureRejection::Malformed);
    }
    element.attribute("Algorithm").ok_or(SignatureRejection::Malformed)
}

fn bytes(element: ElementRef<'_>) -> Result<Vec<u8>, SignatureRejection> {
    element.text().and_then(text::from_base64).ok_or(SignatureRejection::Malformed)
}
