//! CRLs of every kind, as evidence about a certificate.

#![no_main]

use std::sync::LazyLock;

const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/pki/pkits/certs/");

static WORLD: LazyLock<(Vec<u8>, pki::Anchors)> = LazyLock::new(|| {
    let read = |name: &str| std::fs::read(format!("{SUITE}{name}.crt")).unwrap();
    let anchors = pki::Anchors::new(&[read("TrustAnchorRootCertificate")]).unwrap();
    (read("GoodCACert"), anchors)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut evidence = pki::Evidence::new();
    if evidence.add_crl(data).is_err() {
        return;
    }
    let (leaf, anchors) = &*WORLD;
    let at = time::OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap();
    let terms = pki::Terms::new(at, pki::Usage::Any);
    let _ = pki::validate(leaf, &pki::Pool::default(), anchors, Some(&evidence), &terms);
});
