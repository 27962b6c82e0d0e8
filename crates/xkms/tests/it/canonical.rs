//! Canonical forms against those of libxml2, over documents made at random.

use std::fs;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use xkms::{
    c14n::{Context, Method, canonicalize},
    xml::{Document, Limits},
};

use crate::tools;

/// An element with declarations, attributes, text and children, all from small alphabets so that
/// they collide.
fn element() -> impl Strategy<Value = String> {
    let prefix = prop_oneof![Just(""), Just("a:"), Just("b:")];
    let text = "[xé<&>\t\n \r\"']{0,4}".prop_map(|t| {
        t.replace('&', "&amp;").replace('<', "&lt;").replace('\r', "&#13;").replace('>', "&gt;")
    });
    let declared = proptest::collection::vec((0..3_usize, 0..3_usize), 0..3);
    let attributes = proptest::collection::btree_set("(a:|b:|xml:)?[p-r]", 0..4);
    let open = (prefix, declared, attributes, text.clone()).prop_map(
        |(prefix, declared, attributes, value)| {
            let mut seen = [false; 3];
            let mut tag = format!("{prefix}e");
            for (which, space) in declared {
                if !std::mem::replace(&mut seen[which], true) {
                    let name = ["xmlns", "xmlns:a", "xmlns:b"][which];
                    let space = if which == 0 && space == 0 {
                        String::new()
                    } else {
                        format!("urn:{}{space}", which.min(1) * which)
                    };
                    tag += &format!(" {name}='{space}'");
                }
            }
            let value = value.replace('\'', "&apos;");
            for name in attributes {
                tag += &format!(" {name}='{value}'");
            }
            let end = format!("{prefix}e");
            (tag, end)
        },
    );
    let leaf = (open.clone(), text.clone())
        .prop_map(|((tag, end), text)| format!("<{tag}>{text}</{end}>"));
    leaf.prop_recursive(4, 24, 4, move |inner| {
        (open.clone(), proptest::collection::vec(inner, 0..4), text.clone()).prop_map(
            |((tag, end), children, text)| format!("<{tag}>{text}{}</{end}>", children.concat()),
        )
    })
}

#[test]
fn canonical_forms_are_those_of_libxml2() {
    if !tools::has("xmllint") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.xml");
    let name = path.to_str().unwrap();
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&element(), |inner| {
        let text = format!("<r xmlns='urn:d' xmlns:a='urn:a' xmlns:b='urn:b'>{inner}</r>");
        let document = Document::parse(text.as_bytes(), &Limits::MESSAGE)
            .map_err(|r| TestCaseError::fail(format!("{r}: {text}")))?;
        fs::write(&path, &text).unwrap();
        for (flag, method) in [("--c14n", Method::INCLUSIVE), ("--exc-c14n", Method::EXCLUSIVE)] {
            let theirs =
                tools::run("xmllint", &["--nonet", flag, name]).map_err(TestCaseError::fail)?;
            let ours = canonicalize(document.root(), None, &method, Context::InPlace).unwrap();
            prop_assert_eq!(&ours, &String::from_utf8(theirs).unwrap(), "{}", text);
        }
        Ok(())
    });
    outcome.unwrap();
}
