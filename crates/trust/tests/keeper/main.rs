//! The keeper of the trust service: every operation, every refusal by name, what survives a kill.

mod crash;
mod foreign;
mod orders;
mod pending;
mod publish;
mod recover;
mod refusals;
mod size;
mod support;
