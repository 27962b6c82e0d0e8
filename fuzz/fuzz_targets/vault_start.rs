//! Vault headers and key areas.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = disk::vault::hostile::start(data);
});
