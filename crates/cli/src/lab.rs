//! The one-machine lab: an authority and hosts with software TPMs in one directory, unprivileged,
//! on loopback. Demo, tests, benchmarks and outside tools all start from it.
//!
//! Software TPMs stand in for hardware; everything else is the product as it runs in production.
//! `up` is idempotent and finishes what an interrupted `up` began; a host TPM that has to be
//! started has "lost power", so its firmware stand-in measures the host anew.
//!
//! **Invariant:** a lab talks to nothing outside this machine, and `down` leaves no process and no
//! socket.

pub mod components;
pub mod down;
mod init;
pub mod keys;
pub mod layout;
pub mod measured_boot;
pub mod record;
mod render;
pub mod status;
pub mod tpm;
pub mod up;
