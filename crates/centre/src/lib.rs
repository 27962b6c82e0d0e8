//! The key-management centre ([`centre`]) and its interface for trust services ([`routes`]). The
//! binary is `vouchsafe-centre`.

#![forbid(unsafe_code)]

pub mod centre;
pub mod routes;
