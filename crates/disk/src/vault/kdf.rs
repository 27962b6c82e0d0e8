//! Keys of the vault format: HKDF-SHA256 (RFC 5869) of the volume key and of slot secrets, and
//! Argon2id (RFC 9106) of pass phrases, with limits on what an unverified key area may make us spend.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hkdf;
use model::Secret;

use super::header::Suite;
use crate::{Rejection, VolumeError};

/// Length of every key.
pub(crate) const KEY_BYTES: usize = 32;

const HEADER: &[u8] = b"vouchsafe vault 1 header";
const OLD_KEY: &[u8] = b"vouchsafe vault 1 old key";
const SESSION: &[u8] = b"vouchsafe vault 1 session";
const SLOT: &[u8] = b"vouchsafe vault 1 slot";

/// Argon2 memory in KiB that we follow.
const MEMORY_MAX: u32 = 1 << 20;
/// Argon2 passes that we follow.
const PASSES_MAX: u32 = 32;
/// Argon2 lanes that we follow.
const LANES_MAX: u32 = 8;

/// A 32-byte key.
pub(crate) type Key = Secret<[u8; KEY_BYTES]>;

/// The volume key of one epoch: everything else is derived from it.
#[derive(Clone, Debug)]
pub(crate) struct VolumeKey(pub(crate) Key);

/// Authenticates headers.
#[derive(Clone, Debug)]
pub(crate) struct HeaderKey(pub(crate) Key);

impl VolumeKey {
    /// A fresh one.
    pub(crate) fn random() -> Result<Self, VolumeError> {
        let mut key = Secret::new([0; KEY_BYTES]);
        random(key.expose_mut())?;
        Ok(Self(key))
    }

    /// The key that authenticates the header of volume `uuid`.
    pub(crate) fn header_key(&self, uuid: &[u8; 16]) -> Result<HeaderKey, VolumeError> {
        hkdf(uuid, self.0.expose(), &[HEADER]).map(HeaderKey)
    }

    /// The key that wraps the volume key of the epoch before.
    pub(crate) fn wrapping_key(&self, uuid: &[u8; 16]) -> Result<Key, VolumeError> {
        hkdf(uuid, self.0.expose(), &[OLD_KEY])
    }

    /// The key of one session of this key's epoch.
    pub(crate) fn session_key(
        &self,
        uuid: &[u8; 16],
        session: u32,
        salt: &[u8; 32],
        suite: Suite,
    ) -> Result<Key, VolumeError> {
        let info = [SESSION, uuid, &session.to_le_bytes(), &[suite.code()]];
        hkdf(salt, self.0.expose(), &info)
    }
}

/// What stretching a pass phrase costs: Argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory in KiB, 8 per lane to 1 GiB.
    pub memory: u32,
    /// Passes, 1 to 32.
    pub passes: u32,
    /// Lanes, 1 to 8.
    pub lanes: u32,
}

impl Default for Argon2Cost {
    /// RFC 9106, second recommended option, with 256 MiB: about a second.
    fn default() -> Self {
        Self { memory: 256 << 10, passes: 3, lanes: 4 }
    }
}

impl Argon2Cost {
    /// Whether it is within our limits.
    pub(crate) const fn within_limits(&self) -> bool {
        self.memory <= MEMORY_MAX && self.passes <= PASSES_MAX && self.lanes <= LANES_MAX
    }
}

/// The key that seals the volume key in a slot, from the slot's input key material.
pub(crate) fn slot_key(uuid: &[u8; 16], salt: &[u8; 32], ikm: &[u8]) -> Result<Key, VolumeError> {
    hkdf(salt, ikm, &[SLOT, uuid])
}

/// Stretches the pass phrase of key slot `slot`; refuses costs over the limits before it spends
/// anything.
pub(crate) fn stretch(
    cost: &Argon2Cost,
    slot: u32,
    phrase: &[u8],
    salt: &[u8; 32],
) -> Result<Key, VolumeError> {
    if !cost.within_limits() {
        return Err(Rejection::KdfTooCostly { slot }.into());
    }
    let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(KEY_BYTES))
        .map_err(|e| Rejection::malformed(e.to_string()))?;
    let mut out = Secret::new([0; KEY_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(phrase, salt, out.expose_mut())
        .map_err(|e| Rejection::malformed(e.to_string()))?;
    Ok(out)
}

/// Fills `out` from the system's generator.
pub(crate) fn random(out: &mut [u8]) -> Result<(), VolumeError> {
    aws_lc_rs::rand::fill(out).map_err(|_| VolumeError::Crypto { what: "make random bytes" })
}

fn hkdf(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> Result<Key, VolumeError> {
    let failed = |_| VolumeError::Crypto { what: "derive a key" };
    let mut out = Secret::new([0; KEY_BYTES]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(out.expose_mut()))
        .map_err(failed)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_5869_test_case_1_comes_out() {
        let salt = hex::decode("000102030405060708090a0b0c").unwrap();
        let info = hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap();
        let key = hkdf(&salt, &[0x0b; 22], &[&info[..4], &info[4..]]).unwrap();
        assert_eq!(
            hex::encode(key.expose()),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
        );
    }

    #[test]
    fn every_purpose_has_a_key_of_its_own() {
        let key = VolumeKey(Secret::new([7; 32]));
        let uuid = [1; 16];
        let session = |uuid, id, salt, suite| {
            *key.session_key(&uuid, id, &[salt; 32], suite).unwrap().expose()
        };
        let keys = [
            *key.header_key(&uuid).unwrap().0.expose(),
            *key.header_key(&[2; 16]).unwrap().0.expose(),
            *key.wrapping_key(&uuid).unwrap().expose(),
            session(uuid, 1, 3, Suite::Aes256Gcm),
            session(uuid, 2, 3, Suite::Aes256Gcm),
            session(uuid, 1, 4, Suite::Aes256Gcm),
            session(uuid, 1, 3, Suite::Aegis256X4),
            session([2; 16], 1, 3, Suite::Aes256Gcm),
            *slot_key(&uuid, &[3; 32], &[7; 32]).unwrap().expose(),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys.iter().skip(i + 1).all(|b| a != b), "key {i}");
        }
    }

    #[test]
    fn a_cost_over_the_limits_is_refused_by_name_before_it_is_spent() {
        for cost in [
            Argon2Cost { memory: MEMORY_MAX + 1, passes: 1, lanes: 1 },
            Argon2Cost { memory: 1024, passes: PASSES_MAX + 1, lanes: 1 },
            Argon2Cost { memory: 1024, passes: 1, lanes: LANES_MAX + 1 },
        ] {
            let error = stretch(&cost, 3, b"phrase", &[0; 32]).unwrap_err();
            assert_eq!(error.rejection(), Some(&Rejection::KdfTooCostly { slot: 3 }));
        }
        let error =
            stretch(&Argon2Cost { memory: 0, passes: 0, lanes: 0 }, 3, b"x", &[0; 32]).unwrap_err();
        assert_eq!(error.rejection().unwrap().code(), "metadata-malformed");
    }
}
