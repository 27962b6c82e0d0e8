//! `vouchsafe-host`: the agent of one server.
#![allow(dead_code, reason = "being built")]
#![forbid(unsafe_code)]

mod child;
mod config;
mod plan;
mod process;
mod qmp;
mod vm;

fn main() {}
