//! Making signatures. What is written is its own exclusive canonical form, so it is hashed as is.

use super::{KeyError, SignatureAlgorithm, Signer};
use crate::{
    text::to_base64,
    uri,
    xml::{Element, Sink, Text, Tree},
};

/// Signs `message` as a whole, by its attribute `Id`; the signature becomes its first child.
/// Returns the signature value.
pub fn sign_enveloped(
    message: &mut Element,
    signer: &dyn Signer,
    key_info: Option<Element>,
) -> Result<Vec<u8>, KeyError> {
    let (signature, value) = signature(message, true, signer, key_info)?;
    message.push_front(signature);
    Ok(value)
}

/// `key_info` as text, for [`signed_text`].
pub(crate) fn key_info_text(key_info: &Element) -> String {
    key_info.to_xml_inside(&[("", uri::XKMS), ("ds", uri::DS)])
}

/// `message` of XKMS, whose Id is `id`, as text with the place of its content, signed as
/// [`sign_enveloped`] does: what is hashed is what is sent.
pub(crate) fn signed_text(
    (mut text, content): (String, usize),
    id: &str,
    signer: &dyn Signer,
    key_info: &str,
) -> Result<String, KeyError> {
    let algorithm = signer.algorithm();
    let digest = algorithm.digest().of(text.as_bytes());
    let info = Text::of(|to| signed_info(to, (id, true), algorithm, digest.as_ref()));
    let (info, _) = info.into_parts();
    let value = to_base64(&signer.sign(info.as_bytes())?);
    // Its namespace is declared by what it is put into.
    let start = ["<ds:SignedInfo xmlns:ds=\"", uri::DS, "\">"].concat();
    let info = info.strip_prefix(&start).ok_or(KeyError::Malformed)?;
    let signature = [
        "<ds:Signature xmlns:ds=\"",
        uri::DS,
        "\"><ds:SignedInfo>",
        info,
        "<ds:SignatureValue>",
        &value,
        "</ds:SignatureValue>",
        key_info,
        "</ds:Signature>",
    ];
    text.insert_str(content, &signature.concat());
    Ok(text)
}

/// A signature over `target`, by its attribute `Id`, that will stand outside of it in the same
/// document.
pub fn detached_signature(
    target: &Element,
    signer: &dyn Signer,
    key_info: Option<Element>,
) -> Result<Element, KeyError> {
    signature(target, false, signer, key_info).map(|(signature, _)| signature)
}

fn signature(
    target: &Element,
    enveloped: bool,
    signer: &dyn Signer,
    key_info: Option<Element>,
) -> Result<(Element, Vec<u8>), KeyError> {
    let id = target.attribute("Id").ok_or(KeyError::Malformed)?;
    let algorithm = signer.algorithm();
    let digest = algorithm.digest().of(target.to_xml().as_bytes());
    let info = Tree::of(|to| signed_info(to, (id, enveloped), algorithm, digest.as_ref()));
    let value = signer.sign(info.to_xml().as_bytes())?;
    let encoded = Element::new(uri::DS, "SignatureValue").text(to_base64(&value));
    let signature =
        Element::new(uri::DS, "Signature").child(info).child(encoded).children(key_info);
    Ok((signature, value))
}

fn signed_info(
    to: &mut impl Sink,
    (id, enveloped): (&str, bool),
    algorithm: SignatureAlgorithm,
    digest: &[u8],
) {
    fn method(to: &mut impl Sink, local: &'static str, algorithm: &str) {
        to.empty(uri::DS, local, &[("Algorithm", Some(algorithm))]);
    }
    to.open(uri::DS, "SignedInfo", &[]);
    method(to, "CanonicalizationMethod", uri::EXC_C14N);
    method(to, "SignatureMethod", algorithm.uri());
    to.open(uri::DS, "Reference", &[("URI", Some(&["#", id].concat()))]);
    to.open(uri::DS, "Transforms", &[]);
    if enveloped {
        method(to, "Transform", "http://www.w3.org/2000/09/xmldsig#enveloped-signature");
    }
    method(to, "Transform", uri::EXC_C14N);
    to.close();
    method(to, "DigestMethod", algorithm.digest().uri());
    to.binary(uri::DS, "DigestValue", digest);
    to.close();
    to.close();
}
