//! XKMS 2.0, and the only crate that knows XML.
//!
//! From the bottom: [`xml`] reads within bounds and writes its own canonical form; [`c14n`];
//! [`dsig`], where a verified signature yields the very element it covers; [`xenc`]; [`soap`];
//! [`message`], every message of the schema; [`passphrase`], the keys that the protocol derives;
//! [`nonce`]; [`service`], what a key service does, without XML; [`responder`] in front of one; and
//! [`client`].
//!
//! **Invariants:** no I/O and no clock, and randomness for Ids and nonces comes in; no bytes make
//! it panic, recurse without bound, or resolve anything outside of the message. `docs/protocols/
//! xkms.md` says what is spoken, `docs/adr/0009-xml.md` why the XML is our own.

pub mod c14n;
pub mod client;
mod der;
pub mod dsig;
pub mod message;
pub mod nonce;
pub mod passphrase;
pub mod responder;
pub mod service;
pub mod soap;
mod text;
pub mod uri;
pub mod xenc;
pub mod xml;
