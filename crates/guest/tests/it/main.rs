//! The client against a running `vouchsafe-trust` and a software TPM; the server's agent and QEMU's
//! end of the port are stood in for. Each refusal of the trusted proof, on either side, by its name.

#![cfg(test)]

mod agent;
mod away;
mod network;
mod proofs;
mod qemu;
mod vtpm;
mod world;
