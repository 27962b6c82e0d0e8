//! The operator's shell: a client of the authority, and the one-machine lab.
//!
//! `main` parses [`args`], [`commands`] does what was typed and returns an [`output::Failure`] or
//! nothing. Data goes to stdout, words to stderr.
//!
//! **Invariant:** nothing here decides about trust; every refusal comes from an authority, an agent
//! or a verification in `attest`.

#![forbid(unsafe_code)]

pub mod args;
pub mod client;
pub mod commands;
pub mod image;
pub mod lab;
pub mod output;
pub mod reference;
pub mod usage;
