//! What a host presents as quote, signature and public area.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = tpm::Attest::parse(data);
    let _ = tpm::Signature::parse(data);
    let _ = tpm::Public::parse(data).map(|public| attest::host::EnrolledAk::admit(public));
});
