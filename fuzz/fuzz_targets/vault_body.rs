//! Pages, session pages, snapshot pages and log records of a vault volume, behind their tags.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = disk::vault::hostile::body(data);
});
