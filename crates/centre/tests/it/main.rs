//! The key-management centre from outside: over its interface, with passports of a test authority,
//! against real PKIs, and killed at any point.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "an integration test is a test module"
)]

mod anchor;
#[path = "../../../cli/tests/shared/anchored.rs"]
mod anchored;
mod crash;
mod foreign;
#[path = "../../../token/tests/it/hsm.rs"]
mod hsm;
mod migrations;
mod orders;
mod passports;
#[path = "../../../cli/tests/shared/foreign.rs"]
mod pkis;
mod pressure;
mod questions;
mod support;
mod token;
