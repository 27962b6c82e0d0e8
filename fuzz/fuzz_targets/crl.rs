//! CRLs of every kind, as evidence about a certificate.

#![no_main]

use std::sync::LazyLock;

const NOW: i64 = 1_780_000_000;

static WORLD: LazyLock<(Vec<u8>, pki::Anchors)> = LazyLock::new(|| {
    let now = time::OffsetDateTime::from_unix_timestamp(NOW).unwrap();
    let validity = pki::Validity::new(now, std::time::Duration::from_secs(86_400));
    let spec = pki::CaSpec { common_name: "Root".to_owned(), path_length: 1, validity };
    let (root, _key) = pki::Ca::create_root(&spec).unwrap();
    let (sub, _key) = root.create_sub(&pki::CaSpec { path_length: 0, ..spec }).unwrap();
    let anchors = pki::Anchors::new(&[root.certificate()]).unwrap();
    (sub.certificate().to_vec(), anchors)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut evidence = pki::Evidence::new();
    if evidence.add_crl(data).is_err() {
        return;
    }
    let (leaf, anchors) = &*WORLD;
    let at = time::OffsetDateTime::from_unix_timestamp(NOW).unwrap();
    let terms = pki::Terms::new(at, pki::Usage::Any);
    let _ = pki::validate(leaf, &pki::Pool::default(), anchors, Some(&evidence), &terms);
});
