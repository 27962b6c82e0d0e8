//! Requests and results of XKMS: what is read can be written, and then reads the same.

#![no_main]

use xkms::{
    message::{Answer, Request},
    soap,
    xml::{Document, Limits},
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(document) = Document::parse(data, &Limits::MESSAGE) else { return };
    let Ok(message) = soap::open(&document).1 else { return };
    let larger = Limits { bytes: usize::MAX, attributes: usize::MAX, nodes: usize::MAX, ..Limits::MESSAGE };
    if let Ok(request) = Request::read(message) {
        let text = request.to_element().to_xml();
        let again = Document::parse(text.as_bytes(), &larger).expect("what is written is read");
        assert_eq!(Request::read(again.root()).map(|r| r.operation()), Ok(request.operation()));
    }
    if let Ok(answer) = Answer::read(message) {
        let text = answer.to_xml();
        assert_eq!(text, answer.to_element().to_xml(), "text and tree are one");
        let again = Document::parse(text.as_bytes(), &larger).expect("what is written is read");
        assert_eq!(Answer::read(again.root()).map(|a| a.body.name()), Ok(answer.body.name()));
    }
});
