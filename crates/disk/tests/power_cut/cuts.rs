//! The workload, the guest and the medium that the test and the bench share.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    reason = "it fails loudly"
)]

mod guest;
mod medium;
mod random;
pub(crate) mod workload;
