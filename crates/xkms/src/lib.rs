//! XKMS 2.0, and the only crate that knows XML.

pub mod c14n;
pub mod dsig;
mod text;
pub mod uri;
pub mod xml;
