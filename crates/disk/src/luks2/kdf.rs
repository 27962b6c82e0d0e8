//! Key derivation of key slots and digests: PBKDF2 (RFC 8018) and Argon2 (RFC 9106), with limits
//! on what an unverified header may make us spend.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{digest, pbkdf2};
use model::Secret;

use super::metadata::Kdf;
use crate::{Rejection, VolumeError};

/// PBKDF2 iterations that we follow: some tens of seconds.
const ITERATIONS_MAX: u32 = 100_000_000;
/// Argon2 memory in KiB that we follow: 1 GiB, the most that cryptsetup chooses by itself.
const MEMORY_MAX: u32 = 1 << 20;
/// Argon2 passes times memory in KiB: some tens of seconds.
const WORK_MAX: u64 = 64 << 20;
/// Argon2 lanes that we follow.
const LANES_MAX: u32 = 64;

/// The digest algorithms that we know by their names in LUKS.
pub(super) fn hash_named(name: &str) -> Result<&'static digest::Algorithm, Rejection> {
    match name {
        "sha256" => Ok(&digest::SHA256),
        "sha384" => Ok(&digest::SHA384),
        "sha512" => Ok(&digest::SHA512),
        _ => Err(Rejection::unsupported(format!("the hash {name}"))),
    }
}

/// PBKDF2-HMAC with the hash `name`.
pub(super) fn pbkdf2(
    name: &str,
    iterations: u32,
    salt: &[u8],
    secret: &[u8],
    out: &mut [u8],
) -> Result<(), Rejection> {
    let algorithm = match name {
        "sha256" => pbkdf2::PBKDF2_HMAC_SHA256,
        "sha384" => pbkdf2::PBKDF2_HMAC_SHA384,
        "sha512" => pbkdf2::PBKDF2_HMAC_SHA512,
        _ => return Err(Rejection::unsupported(format!("the hash {name}"))),
    };
    let iterations =
        NonZeroU32::new(iterations).ok_or_else(|| Rejection::malformed("no iterations"))?;
    pbkdf2::derive(algorithm, iterations, salt, secret, out);
    Ok(())
}

/// Derives `length` bytes from `secret` as key slot `slot` says.
pub(super) fn derive(
    kdf: &Kdf,
    slot: u32,
    secret: &[u8],
    length: usize,
) -> Result<Secret<Vec<u8>>, VolumeError> {
    let mut out = Secret::new(vec![0; length]);
    let costly = Rejection::KdfTooCostly { slot };
    match kdf {
        Kdf::Pbkdf2 { hash, iterations, salt } => {
            if *iterations > ITERATIONS_MAX {
                return Err(costly.into());
            }
            pbkdf2(hash, *iterations, &salt.0, secret, out.expose_mut())?;
        }
        Kdf::Argon2i { time, memory, cpus, salt } | Kdf::Argon2id { time, memory, cpus, salt } => {
            let work = u64::from(*time).saturating_mul(u64::from(*memory));
            if *memory > MEMORY_MAX || work > WORK_MAX || *cpus > LANES_MAX {
                return Err(costly.into());
            }
            let algorithm = match kdf {
                Kdf::Argon2i { .. } => Algorithm::Argon2i,
                Kdf::Argon2id { .. } | Kdf::Pbkdf2 { .. } => Algorithm::Argon2id,
            };
            let params = Params::new(*memory, *time, *cpus, Some(length))
                .map_err(|e| Rejection::malformed(e.to_string()))?;
            Argon2::new(algorithm, Version::V0x13, params)
                .hash_password_into(secret, &salt.0, out.expose_mut())
                .map_err(|e| Rejection::malformed(e.to_string()))?;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{super::metadata::Base64, *};

    #[test]
    fn a_derivation_over_the_limits_is_refused_by_name_before_it_runs() {
        let salt = || Base64(vec![0; 32]);
        let kdfs = [
            Kdf::Pbkdf2 { hash: "sha256".to_owned(), iterations: u32::MAX, salt: salt() },
            Kdf::Argon2id { time: 1, memory: u32::MAX, cpus: 1, salt: salt() },
            Kdf::Argon2id { time: u32::MAX, memory: 1024, cpus: 1, salt: salt() },
            Kdf::Argon2i { time: 4, memory: 1024, cpus: 1000, salt: salt() },
        ];
        for kdf in kdfs {
            let error = derive(&kdf, 3, b"k", 64).unwrap_err();
            assert_eq!(error.rejection(), Some(&Rejection::KdfTooCostly { slot: 3 }));
        }
    }

    #[test]
    fn an_unknown_hash_is_unsupported() {
        assert_eq!(hash_named("md5").unwrap_err().code(), "unsupported");
    }
}
