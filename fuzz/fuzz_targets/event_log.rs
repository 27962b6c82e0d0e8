//! TCG event logs: parse, describe, replay.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(log) = attest::eventlog::EventLog::parse(data) else { return };
    assert!(log.events().iter().all(|e| e.description().chars().count() <= 160));
    assert_eq!(log.replay(model::HashAlg::Sha256).is_some(), log.replay_sha256().is_some());
});
