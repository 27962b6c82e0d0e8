//! Signatures: each key verifies what it made, and each refusal has its name.

use model::Secret;

use super::*;
use crate::{
    message::{
        Answer, AnswerBody, Binding, KeyInfo, KeyInfoItem, Major, ResultHead, UnverifiedKeyBinding,
    },
    soap::{self, Version},
    uri,
    xml::{Document, Element, Limits},
};

fn message() -> Element {
    Element::new(uri::XKMS, "LocateRequest")
        .with("Id", "I1")
        .with("Service", "https://s.test/")
        .child(Element::new(uri::XKMS, "QueryKeyBinding").with("Id", "B1"))
}

fn keys() -> Vec<(SigningKey, Option<PublicKey>)> {
    let mac = Secret::new(b"0123456789abcdef".to_vec());
    [
        SigningKey::generate_ec(Curve::P256).unwrap(),
        SigningKey::generate_ec(Curve::P384).unwrap(),
        SigningKey::generate_rsa().unwrap(),
        SigningKey::mac(&mac),
    ]
    .into_iter()
    .map(|key| {
        let public = key.public_key();
        (key, public)
    })
    .collect()
}

#[test]
fn what_is_signed_verifies_and_nothing_else() {
    let mac = Secret::new(b"0123456789abcdef".to_vec());
    let other = Secret::new(b"x".to_vec());
    for (signer, public) in keys() {
        let mut element = message();
        let value = sign_enveloped(&mut element, &signer, None).unwrap();
        let text = element.to_xml();
        let check = |text: &str, key| {
            let document = Document::parse(text.as_bytes(), &Limits::MESSAGE).unwrap();
            let root = document.root();
            let signature = root.children().next().unwrap();
            let place = Place { message: root, target: root };
            verify(signature, place, key, SignaturePolicy::default()).map(|s| s.value().to_vec())
        };
        let key = public.as_ref().map_or(VerifyingKey::Mac(&mac), VerifyingKey::Public);
        assert_eq!(check(&text, key), Ok(value));
        let changed = text.replace("s.test", "t.test");
        assert_eq!(check(&changed, key), Err(SignatureRejection::Digest));
        let unsigned = text.replace("#I1", "#B1");
        assert_eq!(check(&unsigned, key), Err(SignatureRejection::ReferenceElsewhere));
        let wrong = if public.is_some() {
            (VerifyingKey::Mac(&other), SignatureRejection::KeyMismatch)
        } else {
            (VerifyingKey::Mac(&other), SignatureRejection::Value)
        };
        assert_eq!(check(&text, wrong.0), Err(wrong.1));
    }
}

#[test]
fn sha1_counts_only_where_policy_says() {
    use {DigestAlgorithm as D, SignatureAlgorithm as A};
    let policy = |sha1| SignaturePolicy { sha1 };
    assert!(!policy(Sha1::Refused).accepts(A::HmacSha1, D::Sha1));
    assert!(!policy(Sha1::Refused).accepts(A::RsaSha256, D::Sha1));
    assert!(policy(Sha1::InMacs).accepts(A::HmacSha1, D::Sha1));
    assert!(!policy(Sha1::InMacs).accepts(A::RsaSha256, D::Sha1));
    assert!(!policy(Sha1::InMacs).accepts(A::RsaSha1, D::Sha256));
    assert!(policy(Sha1::Everywhere).accepts(A::RsaSha1, D::Sha1));
    assert!(SignaturePolicy::default().accepts(A::RsaSha256, D::Sha512));
}

#[test]
fn what_is_written_once_is_what_the_signed_tree_says() {
    let info = Element::new(uri::DS, "KeyInfo")
        .child(Element::new(uri::DS, "KeyName").text("a < b"))
        .child(Element::new(uri::XKMS, "Default"))
        .child(Element::new("urn:other", "Other"))
        .child(Element::new("", "None"));
    let foreign = Element::new("urn:other", "Other").child(Element::new(uri::DS, "KeyName"));
    let key_info = Some(KeyInfo {
        items: vec![KeyInfoItem::Foreign(foreign), KeyInfoItem::KeyName("n".into())],
    });
    let binding = Binding { key_info, ..Binding::default() };
    let found = UnverifiedKeyBinding { binding, validity: None };
    let bodies = [AnswerBody::Result, AnswerBody::Locate(vec![found])].map(|body| {
        let mut head = ResultHead::new("I&1", "urn:a\"<b>", Major::Success, None);
        head.opaque = Some(vec![vec![1], Vec::new()]);
        Answer { head, body }
    });
    // Those whose signatures have no randomness in them.
    let keys = || keys().into_iter().skip(2);
    for ((signer, _), answer) in bodies.iter().flat_map(|b| keys().map(move |k| (k, b))) {
        let (text, id) = (answer.to_xml_with_content(), &answer.head.id);
        let text = signed_text(text, id, &signer, &key_info_text(&info)).unwrap();
        let mut tree = answer.to_element();
        sign_enveloped(&mut tree, &signer, Some(info.clone())).unwrap();
        assert_eq!(text, tree.to_xml());
        for version in [Version::V11, Version::V12] {
            let part = |local| Element::new(version.namespace(), local);
            let whole = part("Envelope").child(part("Body").child(tree.clone()));
            assert_eq!(soap::envelop(version, text.clone()), whole.to_xml());
        }
    }
}
