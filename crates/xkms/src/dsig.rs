//! XML Signature, the subset that XKMS needs: one reference, to one element by its `Id`.
//!
//! [`verify()`] never answers yes or no: it returns the very element that the reference resolves to,
//! after comparing it with the element the caller is about to process. What is read from it becomes
//! a [`Signed`], whose constructor is private.
//!
//! **Invariants:** one `Reference`, `URI="#Id"`; the transforms are `enveloped-signature` (only if
//! the signature is a child of the element it signs) and at most one canonicalisation; no `Object`,
//! no truncated MAC, no key taken from the message on its own word. Deliberately absent: XPath,
//! XSLT, external references, manifests, DSA.

mod algorithm;
mod key;
mod parse;
mod rejection;
mod sign;
mod spki;
mod verify;

pub use algorithm::{Curve, DigestAlgorithm, Sha1, SignatureAlgorithm, SignaturePolicy};
pub use key::{KeyError, PublicKey, Signer, SigningKey, VerifyingKey};
pub use rejection::SignatureRejection;
pub use sign::{detached_signature, sign_enveloped};
pub(crate) use sign::{key_info_text, signed_text};
pub use verify::{Form, Place, Signed, SignedElement, verify};

#[cfg(test)]
mod tests;
