//! How a service proves to other services which one it is, and asks the same of them: the passport
//! of this process, kept in force, and the checks of the peers'.
//!
//! ```text
//!   Passport::run: new key -> Certifier (the host's agent -> authority) -> certificate
//!        ^                                                                  |
//!        +---- at half its life, or when asked; again soon if it fails -----+
//!   client(url, wanted) -> HTTPS client: own passport shown, the server's checked
//!   server_tls()        -> HTTPS server: own passport shown, the client's taken; caller() checks it
//! ```
//!
//! **Invariants:** the key of a passport is made anew each time and is in memory only; a peer is
//! compared by service and host, never by address; no passport, no connection.

#![forbid(unsafe_code)]

mod agent;
mod keep;
mod peer;

pub use agent::{Agent, Certifier, Certifying};
pub use keep::{Current, Passport, PassportError, Refused};
pub use peer::{problem, rejection};
