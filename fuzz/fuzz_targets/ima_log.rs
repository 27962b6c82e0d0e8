//! IMA measurement lists: parse, describe, replay.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(list) = attest::ima::ImaList::parse(data) else { return };
    assert!(list.entries.iter().all(|e| e.description().chars().count() <= 160));
    let _ = list.replay_sha256(10);
});
