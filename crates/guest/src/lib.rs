//! The key-management client of a VM: it proves the VM and itself to the trust service of its
//! server, demands the same of that service, and speaks XKMS for the applications of the VM.
//!
//! Six modules, by the names of the paper:
//!
//! | module | what |
//! |---|---|
//! | [`exchange`] | application exchange interface: this library, a local unix socket, the CLI |
//! | [`messages`] | message construct and parse |
//! | [`algorithms`] | encryption and decryption algorithms: keys, pass phrases, private keys that come back |
//! | [`signature`] | XML signature: orders and requests signed, answers verified |
//! | [`proof`] | trusted proof: the service's passport, the vTPM's quote |
//! | [`service`] | trust-service interface: the port or a network, TLS, HTTP |
//!
//! ```text
//! application ─► exchange ─► messages ─► signature ─► service ─► port ─► trust service
//!                               │            │           │
//!                               └ algorithms ┘         proof (before the first request)
//! ```
//!
//! **Invariants:** no request leaves before the service's passport was checked and the proof was
//! accepted; over a network on which no VM is proven, only answers that the configured key signed are
//! taken; every wait and every size has a bound; the time comes in. Deliberately absent:
//! an asynchronous runtime, several requests at once (one VM's client has one connection).

#![forbid(unsafe_code)]

pub mod algorithms;
pub mod config;
pub mod exchange;
pub mod messages;
pub mod proof;
pub mod service;
pub mod signature;
