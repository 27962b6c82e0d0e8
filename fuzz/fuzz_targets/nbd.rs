//! What an NBD client sends, while it negotiates and afterwards.

#![no_main]

use disk::nbd::{Export, Negotiation, Parsed, Progress, Request};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Parsed::Request(_, payload)) = Request::parse(data) {
        assert!(payload.checked_add(28).is_some_and(|whole| whole <= data.len()));
    }
    let names = vec![String::new(), "v1".to_owned()];
    let export = Export { names, size: 1 << 30, read_only: false, preferred_block: 4096 };
    let (mut out, mut rest) = (Vec::new(), data);
    let mut negotiation = Negotiation::begin(export, &mut out);
    while let Ok(Progress::Consumed(used)) = negotiation.advance(rest, &mut out) {
        rest = &rest[used..];
    }
});
