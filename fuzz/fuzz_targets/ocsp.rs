//! OCSP: responses as evidence, and requests to a responder.

#![no_main]

use std::sync::LazyLock;

struct World {
    leaf: Vec<u8>,
    anchors: pki::Anchors,
    responder: pki::Responder,
    now: time::OffsetDateTime,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let now = time::OffsetDateTime::from_unix_timestamp(1_780_000_000).unwrap();
    let day = std::time::Duration::from_secs(86_400);
    let validity = pki::Validity::new(now, day);
    let common_name = "Root".to_owned();
    let spec = pki::CaSpec { common_name, path_length: 1, validity };
    let (root, key) = pki::Ca::create_root(&spec).unwrap();
    let (sub, _) = root.create_sub(&pki::CaSpec { path_length: 0, ..spec }).unwrap();
    let own = root.certificate();
    World {
        leaf: sub.certificate().to_vec(),
        anchors: pki::Anchors::new(&[own]).unwrap(),
        responder: pki::Responder::load(own, &key, own).unwrap(),
        now,
    }
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let World { leaf, anchors, responder, now } = &*WORLD;
    let hour = std::time::Duration::from_secs(3600);
    let _ = responder.respond(data, *now, hour, |_| pki::OcspStatus::Good);
    let mut evidence = pki::Evidence::new();
    if evidence.add_ocsp(data).is_ok() {
        let terms = pki::Terms::new(*now, pki::Usage::Any);
        let _ = pki::validate(leaf, &pki::Pool::default(), anchors, Some(&evidence), &terms);
    }
});
