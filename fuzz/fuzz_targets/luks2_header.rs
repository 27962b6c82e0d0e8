//! LUKS2 headers: the binary part and the JSON area.

#![no_main]

use disk::luks2::{BinaryHeader, Copy, Metadata};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = BinaryHeader::parse(data, Copy::Primary);
    let _ = BinaryHeader::parse(data, Copy::Secondary);
    let _ = Metadata::parse(data);
});
