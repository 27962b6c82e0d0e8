//! The half of `vouchsafe-trust` that decides: [`keeper`]. A library, so that tests, fuzz targets
//! and benches reach it; the binary puts the reader in front of it.

#![forbid(unsafe_code)]

pub mod keeper;
pub mod peer;
