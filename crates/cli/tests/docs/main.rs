//! What the documents say, held against the code: commands parse, tests, targets and files that are
//! named are there, and the refusals of the code are those of `docs/attacks.md`.

#![expect(
    clippy::tests_outside_test_module,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "an integration test is a test module"
)]

mod commands;
mod named;
mod refusals;
mod text;
