//! SOAP envelopes, and the signature of the message in them: nothing verifies under a fixed key.

#![no_main]

use model::Secret;
use xkms::{
    dsig::{Place, Sha1, SignaturePolicy, VerifyingKey, verify},
    message::signature_of,
    soap,
    xml::{Document, Limits},
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(document) = Document::parse(data, &Limits::MESSAGE) else { return };
    let Ok(message) = soap::open(&document).1 else { return };
    let _ = soap::fault_reason(message);
    let Some(signature) = signature_of(message) else { return };
    let key = Secret::new(b"not in any corpus".to_vec());
    let place = Place { message, target: message };
    let policy = SignaturePolicy { sha1: Sha1::Everywhere };
    assert!(verify(signature, place, VerifyingKey::Mac(&key), policy).is_err());
});
