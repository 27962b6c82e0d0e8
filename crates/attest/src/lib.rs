//! Remote attestation in the words of RFC 9334: evidence in, verdict out. Pure: no I/O, no clock,
//! no randomness but a signature's; bytes and `now` (Unix milliseconds) are arguments.
//!
//! - [`envelope`]: signed documents (DSSE) and [`Signed`], the proof of their verification.
//! - [`eventlog`], [`ima`]: what platforms say they measured.
//! - [`mod@reference`]: signed reference values that measurements are compared with.
//! - [`binding`]: that a quote was made for this purpose, nonce and session.
//! - [`host`], [`guest`]: the two appraisals; each gives an [`Appraised`] or named [`Rejection`]s.
//! - [`channel`]: a guest's client on one connection to its trust service.
//! - [`result`]: the attestation result, signed and read by others.
//!
//! **Invariants:** [`Appraised`] and [`Signed`] have private constructors: whoever holds one holds a
//! passed check. Nothing is trusted because the evidence carries it. Named events are compared, never
//! sums of PCRs. No option skips a check.

#![forbid(unsafe_code)]

mod appraised;
pub mod binding;
mod bytes;
pub mod channel;
pub mod envelope;
pub mod eventlog;
pub mod guest;
pub mod host;
pub mod ima;
pub mod parent;
pub mod predict;
mod quote;
pub mod reference;
mod rejection;
pub mod result;

pub use appraised::{Appraised, Guest, Host, Rejected};
pub use binding::Challenge;
pub use envelope::Signed;
pub use rejection::Rejection;
