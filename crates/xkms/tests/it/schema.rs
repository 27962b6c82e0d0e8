//! What is written can be read again, and validates against the W3C schema.

use std::fs;

use xkms::{
    dsig::{Curve, SigningKey, sign_enveloped},
    message::{Answer, Request},
    xml::{Document, Element, Limits},
};

use crate::{samples, tools};

fn parse(text: &str) -> Document {
    Document::parse(text.as_bytes(), &Limits::MESSAGE).unwrap()
}

#[test]
fn every_message_comes_back_as_it_was() {
    for request in samples::requests() {
        let document = parse(&request.to_element().to_xml());
        assert_eq!(Request::read(document.root()).as_ref(), Ok(&request));
    }
    for answer in samples::answers() {
        let text = answer.to_xml();
        assert_eq!(text, answer.to_element().to_xml());
        let document = parse(&text);
        assert_eq!(Answer::read(document.root()).as_ref(), Ok(&answer));
    }
}

#[test]
fn every_message_signed_and_not_validates_against_the_schema() {
    let Some(w3c) = tools::w3c().filter(|_| tools::has("xmllint")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::generate_ec(Curve::P256).unwrap();
    let requests = samples::requests();
    let answers = samples::answers();
    let all =
        requests.iter().map(Request::to_element).chain(answers.iter().map(Answer::to_element));
    let mut paths = Vec::new();
    let mut write = |element: &Element| {
        let path = folder.path().join(format!("{}.xml", paths.len()));
        fs::write(&path, element.to_xml()).unwrap();
        paths.push(path.to_str().unwrap().to_owned());
    };
    for mut element in all {
        write(&element);
        sign_enveloped(&mut element, &key, None).unwrap();
        write(&element);
    }
    let schema = tools::with_ours(&w3c, folder.path());
    let mut arguments = vec!["--noout", "--nonet", "--schema", &schema];
    arguments.extend(paths.iter().map(String::as_str));
    assert!(paths.len() >= 60);
    tools::run("xmllint", &arguments).unwrap();
}
