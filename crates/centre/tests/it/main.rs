//! The key-management centre from outside: over its interface, with passports of a test authority,
//! against real PKIs, and killed at any point.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "an integration test is a test module"
)]

mod orders;
mod support;
