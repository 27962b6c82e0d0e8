//! VM keys: the master key (VMK) at rest, and the keys of one epoch that are derived from it.
//!
//! `key = HKDF-SHA256(salt "vouchsafe:vm-keys:v1", VMK, label || KMI)`, the KMI as canonical JSON:
//! VM, key id, version and epoch are all in it, so no two VMs, versions or epochs share a key. At
//! rest the VMK is wrapped with AES-256-GCM under a key of its own, with the KMI (epoch left out,
//! as the VMK outlives epochs) as associated data; the record around it is sealed once more by the
//! store.
//!
//! **Invariant:** nothing here is reachable from a request but through [`crate::grant`].

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use model::{Epoch, Kmi, Secret};
use thiserror::Error;

/// Length of every key here.
pub(crate) const KEY: usize = 32;

const SALT: &[u8] = b"vouchsafe:vm-keys:v1";

/// A VM key could not be wrapped, unwrapped or derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum KeyError {
    /// The wrapped key is not this VM's, or was altered.
    #[error("the wrapped master key is not this VM's or was altered")]
    Unwrap,
    /// The cryptographic library refused its input.
    #[error("a key could not be derived or wrapped")]
    Crypto,
}

/// What a derived key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Key slot of the boot volume.
    BootVolume,
    /// Key slot of the data volume.
    DataVolume,
    /// swtpm's state at rest.
    VtpmState,
    /// swtpm's state on the wire.
    VtpmMigration,
    /// authValue of the host-owned AK in the vTPM.
    VtpmAkAuth,
}

impl Use {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::BootVolume => b"volume-slot",
            Self::DataVolume => b"data-volume-slot",
            Self::VtpmState => b"vtpm-state",
            Self::VtpmMigration => b"vtpm-migration",
            Self::VtpmAkAuth => b"vtpm-ak-auth",
        }
    }
}

struct Length;

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        KEY
    }
}

/// HKDF-SHA256 to one key.
pub(crate) fn hkdf(
    salt: &[u8],
    input: &Secret<[u8; KEY]>,
    info: &[&[u8]],
) -> Result<Secret<[u8; KEY]>, KeyError> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(input.expose());
    let mut out = Secret::new([0; KEY]);
    extracted
        .expand(info, Length)
        .and_then(|okm| okm.fill(out.expose_mut()))
        .map_err(|_| KeyError::Crypto)?;
    Ok(out)
}

/// One key of the epoch that `kmi` names.
pub(crate) fn derive(
    vmk: &Secret<[u8; KEY]>,
    kmi: &Kmi,
    purpose: Use,
) -> Result<Secret<[u8; KEY]>, KeyError> {
    let context = serde_json::to_vec(kmi).map_err(|_| KeyError::Crypto)?;
    hkdf(SALT, vmk, &[purpose.label(), b"\0", &context])
}

/// Wraps a VMK for the store: nonce, ciphertext, tag.
pub(crate) fn wrap(
    with: &Secret<[u8; KEY]>,
    nonce: [u8; NONCE_LEN],
    kmi: &Kmi,
    vmk: &Secret<[u8; KEY]>,
) -> Result<Vec<u8>, KeyError> {
    let mut sealed = vmk.expose().to_vec();
    let tag = key(with)?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated(kmi)?),
            &mut sealed,
        )
        .map_err(|_| KeyError::Crypto)?;
    Ok([&nonce[..], &sealed, tag.as_ref()].concat())
}

/// Opens what [`wrap`] made for the same VM and key.
pub(crate) fn unwrap(
    with: &Secret<[u8; KEY]>,
    kmi: &Kmi,
    wrapped: &[u8],
) -> Result<Secret<[u8; KEY]>, KeyError> {
    let (nonce, sealed) = wrapped.split_at_checked(NONCE_LEN).ok_or(KeyError::Unwrap)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Unwrap)?;
    let mut opened = Secret::new(sealed.to_vec());
    let plain = key(with)?
        .open_in_place(nonce, Aad::from(associated(kmi)?), opened.expose_mut())
        .map_err(|_| KeyError::Unwrap)?;
    let vmk: [u8; KEY] = (&*plain).try_into().map_err(|_| KeyError::Unwrap)?;
    Ok(Secret::new(vmk))
}

fn key(with: &Secret<[u8; KEY]>) -> Result<LessSafeKey, KeyError> {
    let unbound = UnboundKey::new(&AES_256_GCM, with.expose()).map_err(|_| KeyError::Crypto)?;
    Ok(LessSafeKey::new(unbound))
}

fn associated(kmi: &Kmi) -> Result<Vec<u8>, KeyError> {
    let lasting = Kmi { epoch: Epoch(0), ..kmi.clone() };
    serde_json::to_vec(&("vouchsafe:vmk-wrap:v1", lasting)).map_err(|_| KeyError::Crypto)
}

#[cfg(test)]
mod tests {
    use model::Digest;

    use super::*;

    fn kmi(vm: &str, version: u32, epoch: u64) -> Kmi {
        Kmi {
            vm: vm.parse().unwrap(),
            key_id: Digest::sha256([1; 32]),
            version,
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn no_two_vms_versions_epochs_or_uses_share_a_key() {
        let vmk = Secret::new([7; 32]);
        let mut seen = std::collections::BTreeSet::new();
        for kmi in [kmi("v1", 1, 1), kmi("v2", 1, 1), kmi("v1", 2, 1), kmi("v1", 1, 2)] {
            for purpose in [
                Use::BootVolume,
                Use::DataVolume,
                Use::VtpmState,
                Use::VtpmMigration,
                Use::VtpmAkAuth,
            ] {
                assert!(seen.insert(*derive(&vmk, &kmi, purpose).unwrap().expose()));
            }
        }
    }

    #[test]
    fn a_wrapped_key_opens_for_its_vm_in_any_epoch_and_for_no_other() {
        let with = Secret::new([3; 32]);
        let wrapped = wrap(&with, [5; 12], &kmi("v1", 1, 1), &Secret::new([7; 32])).unwrap();
        assert_eq!(unwrap(&with, &kmi("v1", 1, 4), &wrapped).unwrap().expose(), &[7; 32]);
        assert_eq!(unwrap(&with, &kmi("v2", 1, 1), &wrapped).unwrap_err(), KeyError::Unwrap);
        assert_eq!(unwrap(&with, &kmi("v1", 2, 1), &wrapped).unwrap_err(), KeyError::Unwrap);
        let mut altered = wrapped.clone();
        altered[20] ^= 1;
        assert_eq!(unwrap(&with, &kmi("v1", 1, 1), &altered).unwrap_err(), KeyError::Unwrap);
        assert_eq!(unwrap(&with, &kmi("v1", 1, 1), &wrapped[..5]).unwrap_err(), KeyError::Unwrap);
    }
}
