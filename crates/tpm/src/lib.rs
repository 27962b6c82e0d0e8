//! A synchronous TPM 2.0 client, and the software side of its protocols.
//!
//! - [`Address`] and [`Transport`]: where a TPM is and how a command gets there.
//! - [`Actor`]: one thread per TPM; jobs get a [`Tpm`] and may leave nothing behind in it.
//! - [`Tpm`]: the commands, with salted HMAC sessions and encrypted parameters wherever a secret
//!   passes, resending on TPM_RC_RETRY, and flushing of all that a job opened.
//! - [`Policy`], [`template`], [`software`]: policies with digests computed here, key templates,
//!   MakeCredential and import wrapping without a TPM.
//! - [`lease`], [`resident`]: what the product builds of them: the seal around what a host caches,
//!   and keys that live in a TPM and go to another one only as the authority says.
//! - [`Public`], [`Attest`], [`Signature`], [`QualifyingData`]: what verifiers parse and check.
//!
//! **Invariants:** `tpm2-protocol` does not appear in the public interface. No caller passes raw
//! qualifyingData. Bytes from outside never panic and never allocate by announced length.
//! Deliberately absent: resource management for several clients at once, audit sessions, SHA-1 in
//! anything that is relied on.

#![forbid(unsafe_code)]

mod actor;
mod address;
mod attest;
mod auth;
mod client;
mod crypt;
mod error;
pub mod lease;
mod pcr;
mod policy;
mod public;
mod qualifying;
pub mod resident;
mod sealed;
mod session;
mod signature;
pub mod software;
pub mod template;
mod transport;
mod wire;

pub use actor::{Actor, ActorError};
pub use address::{Address, AddressError};
pub use attest::{Attest, Attested, ClockInfo};
pub use auth::{Auth, AuthValue};
pub use client::{
    Certification, Hierarchy, NvAttributes, NvPublic, Object, Quote, SavedContext, TimeInfo, Tpm,
    handle,
};
pub use error::{CommandName, Malformed, ResponseCode, TpmError, TransportError};
pub use pcr::{PCR_COUNT, PcrSelection, PcrValues};
pub use policy::{Comparison, Policy};
pub use public::{Attributes, Key, Name, Public, Scheme, VerifyingKey};
pub use qualifying::{Purpose, QualifyingData};
pub use sealed::{Credential, Duplicate, ImportBlob, KeyBlob};
pub use session::Session;
pub use signature::{Signature, SignatureFault};
pub use transport::{Connect, StreamTransport, Transport};
