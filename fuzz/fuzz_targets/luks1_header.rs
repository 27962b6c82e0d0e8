//! LUKS1 headers.

#![no_main]

use disk::luks1::Header;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(header) = Header::parse(data) {
        assert!(header.slots.len() <= 8 && header.data_at > 0);
    }
});
