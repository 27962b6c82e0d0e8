//! Signatures: each key verifies what it made, and each refusal has its name.

use model::Secret;

use super::*;
use crate::{
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
