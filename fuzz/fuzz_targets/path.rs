//! Certificates of any kind as leaf, pool and anchor of a general validation.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(anchors) = pki::Anchors::new(&[data]) else { return };
    let Ok(pool) = pki::Pool::new([data]) else { return };
    let at = time::OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap();
    let mut terms = pki::Terms::new(at, pki::Usage::Any);
    terms.require_policy = true;
    let _ = pki::validate(data, &pool, &anchors, None, &terms);
});
