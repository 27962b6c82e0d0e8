//! X.509: issuing certificates by named profiles, revoking them, and verifying chains.
//!
//! [`Ca`] issues by [`Profile`]; [`verify_chain`] turns bytes into [`Verified`], whose constructor
//! is private: a value of it is the proof that a chain led to one of the caller's [`Anchors`].
//!
//! **Invariants:** no clock here, `now` comes in; every certificate that goes in is bounded in size,
//! number and search effort; what a certificate says (names, keys) is only readable after it was
//! verified. Deliberately absent: policies and policy mapping, name constraints (a chain that
//! has them is refused), OCSP, signatures other than ECDSA P-256/P-384 and RSA from 2048 bits.

mod ca;
mod cert;
mod crl;
mod identity;
mod profile;
pub mod tcg;
mod verify;

pub use ca::{Ca, CaSpec, IssueError, Issued, Validity};
pub use crl::{Crl, CrlRejection, Revocation, RevocationReason};
pub use identity::Identity;
pub use profile::Profile;
pub use verify::{Anchors, CertRejection, Purpose, Verified, verify_chain};
