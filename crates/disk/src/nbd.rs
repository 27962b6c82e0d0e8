//! The NBD export: fixed newstyle over a unix socket, one thread per connection, no runtime
//! (`docs/protocols/nbd.md`; the protocol is <https://github.com/NetworkBlockDevice/nbd>,
//! `doc/proto.md`).
//!
//! ```text
//!   accept -> peer uid -> Negotiation (sans-IO) -> Transmission: receive as much as there is,
//!                                                  run every complete request in place,
//!                                                  answer them in one write
//! ```
//!
//! * [`Negotiation`] turns the client's bytes into option replies and an outcome; no I/O.
//! * [`Request::parse`] turns bytes into a request; no I/O.
//! * [`Server`] owns the socket, the threads and the counters.
//!
//! **Invariants.** Every length is checked before memory is reserved for it. A flush on one
//! connection covers the completed writes of all (`CAN_MULTI_CONN`). A malformed message ends its
//! own connection and no other.

mod answer;
mod connection;
mod counters;
mod listen;
mod negotiate;
mod received;
mod rejection;
mod reply;
mod request;
mod server;
mod transmission;
mod wire;

pub use counters::Counters;
pub(crate) use counters::add;
pub use listen::{BindError, PeerPolicy, UnixSocket, bind};
pub use negotiate::{Agreed, Export, Negotiation, Outcome, Progress};
pub use rejection::Rejection;
pub use request::{Command, Parsed, Request};
pub use server::{Server, ServerOptions};
pub use wire::MAX_PAYLOAD;
