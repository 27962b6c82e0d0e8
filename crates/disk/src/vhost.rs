//! The vhost-user-blk export: QEMU hands over the guest's memory and its rings, and requests go
//! from the guest to the volume with no system call of QEMU's between
//! (`docs/protocols/vhost-user-blk.md`).
//!
//! ```text
//!   accept -> peer uid -> Device: messages of the socket (one thread)
//!                           `-> Worker: one ring, one thread
//!                                 taken -> copied in or out -> Volume -> given back
//! ```
//!
//! **Invariants.** Data are copied between the guest's memory and ours, and encrypted or decrypted
//! only in ours: a guest that changes its buffer meanwhile changes what is written, never whether
//! its tag fits. Everything that the guest or QEMU says is checked ([`Fault`], [`Rejection`]); what
//! is wrong ends a request, a queue or a connection, and nothing else. What was taken from a ring
//! and not given back is done again by the next process.
//!
//! Deliberately absent: packed rings, live migration's dirty log, post-copy.

mod config;
mod device;
mod empty;
mod execute;
mod fault;
mod inflight;
mod memory;
mod request;
mod ring;
mod server;
mod worker;

pub use fault::{Fault, Rejection};
pub use server::{Server, ServerOptions};

/// Answers what comes on `stream` until it ends, with an empty volume behind it. For fuzzing of the
/// messages.
pub fn converse(stream: std::os::unix::net::UnixStream) {
    use std::sync::{Arc, Mutex};
    let device = device::Device::new(Arc::new(empty::Empty), Arc::default(), 2);
    let device = Arc::new(Mutex::new(device));
    let mut messages = ::vhost::vhost_user::BackendReqHandler::from_stream(stream, device);
    while messages.handle_request().is_ok() {}
}

/// Follows the chain at `head` of a ring of `size` entries whose descriptor table begins at address
/// 0 of a guest memory of `memory`, and reads its request. For tests and fuzzing of the parsers.
///
/// # Errors
/// What is wrong with it.
pub fn parse_chain(memory: &[u8], size: u16, head: u16) -> Result<(), Fault> {
    let memory = memory::Memory::of(memory).map_err(|_| Fault::OutsideMemory(0))?;
    let place = ring::Place { descriptors: 0, available: 0, used: 0 };
    let ring =
        ring::Ring::new(memory.clone(), place, size, false, 0).ok_or(Fault::OutsideMemory(0))?;
    let mut segments = Vec::new();
    ring.chain(head, &mut segments)?;
    request::Request::read(&memory, &mut segments).map(|_| ())
}
