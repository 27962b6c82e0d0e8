//! XML documents, and their canonical forms.

#![no_main]

use xkms::{
    c14n::{Context, Method, canonicalize},
    xml::{Document, Element, Limits},
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(document) = Document::parse(data, &Limits::MESSAGE) else { return };
    let root = document.root();
    for method in [Method::EXCLUSIVE, Method::INCLUSIVE] {
        let form = canonicalize(root, None, &method, Context::InPlace).expect("a whole document has a form");
        let larger = Limits { bytes: usize::MAX, attributes: usize::MAX, ..Limits::MESSAGE };
        let again = Document::parse(form.as_bytes(), &larger).expect("a canonical form is read");
        assert_eq!(canonicalize(again.root(), None, &method, Context::InPlace), Some(form));
    }
    let form = canonicalize(root, None, &Method::EXCLUSIVE, Context::InPlace);
    assert_eq!(Some(Element::copy_of(root).to_xml()), form);
});
