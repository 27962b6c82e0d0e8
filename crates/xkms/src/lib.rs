//! XKMS 2.0, and the only crate that knows XML.

pub mod c14n;
mod der;
pub mod dsig;
pub mod message;
pub mod passphrase;
pub mod soap;
mod text;
pub mod uri;
pub mod xenc;
pub mod xml;
