//! The crate against the W3C schema, against `xmlsec1`, and against forged messages.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::too_many_lines,
    clippy::panic,
    reason = "an integration test is a test module; tables of forgeries are long"
)]

mod canonical;
mod fake;
mod interop;
mod protocol;
mod samples;
mod schema;
mod tools;
mod wrapping;
