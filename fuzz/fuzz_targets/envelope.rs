//! Signed documents, and the documents in them.

#![no_main]

use attest::{envelope::{Envelope, Kind, TrustedKeys}, result::AttestationResult};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = serde_json::from_slice::<AttestationResult>(data);
    let Ok(envelope) = Envelope::parse(data) else { return };
    assert!(envelope.verify_bytes(&TrustedKeys::default(), Kind::Grant, 1).is_err());
    assert_eq!(Envelope::parse(&envelope.to_json()), Ok(envelope));
});
