//! Certificates, as anchor and as leaf of a chain.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(anchors) = pki::Anchors::new(&[data]) else { return };
    let (now, purpose) = (time::OffsetDateTime::UNIX_EPOCH, pki::Purpose::EndorsementKey);
    let _ = pki::verify_chain(data, &[data], &anchors, now, purpose);
});
