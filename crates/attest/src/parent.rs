//! The parent that a target shows for a key that comes from another host's TPM: certified by the
//! target's AK for this migration, fixed to that TPM, and good for wrapping only.

use model::{HostId, MigrationId, api::duplication::StorageParent};
use thiserror::Error;
use tpm::{Attest, Attested, Name, Public, Signature, resident};

use crate::host::EnrolledAk;

/// Why a parent does not get a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParentRejection {
    /// It is certified for something else.
    #[error("the parent was certified for another migration, source or target")]
    Elsewhere,
    /// It is no key that is fixed to its TPM and wraps only.
    #[error("the parent is no storage key that is fixed to its TPM")]
    Kind,
    /// The certification does not name it.
    #[error("another key than the parent was certified")]
    Name,
    /// Nothing that a TPM said.
    #[error("the parent, or what certifies it, cannot be read")]
    Unreadable,
    /// The AK of the target did not sign.
    #[error("the parent is not certified by the AK that the target enrolled")]
    Unsigned,
}

/// Checks a target's parent for a migration; its Name.
///
/// # Errors
/// [`ParentRejection`].
pub fn check(
    ak: &EnrolledAk,
    parent: &StorageParent,
    migration: &MigrationId,
    (source, target): (&HostId, &HostId),
) -> Result<Name, ParentRejection> {
    let unreadable = |_| ParentRejection::Unreadable;
    let public = Public::parse(&parent.public.0).map_err(unreadable)?;
    let signature = Signature::parse(&parent.signature.0).map_err(unreadable)?;
    let bytes: &[u8] = match &signature {
        Signature::Ecdsa { rs } => rs,
        Signature::Rsassa { bytes } => bytes,
    };
    let signed = ak.key().verify_sig(&parent.attest.0, bytes);
    signed.map_err(|_| ParentRejection::Unsigned)?;
    let attest = Attest::parse(&parent.attest.0).map_err(unreadable)?;
    if !attest.is_for(&resident::qualifying(migration, source, target)) {
        return Err(ParentRejection::Elsewhere);
    }
    let certified = match attest.attested {
        Attested::Certify { name, .. } => name,
        Attested::Quote { .. } => return Err(ParentRejection::Unreadable),
    };
    if certified != public.name() {
        return Err(ParentRejection::Name);
    }
    if resident::is_parent(&public) { Ok(certified) } else { Err(ParentRejection::Kind) }
}
