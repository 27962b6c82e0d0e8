//! Key derivation of key slots: PBKDF2 (RFC 8018) and Argon2 (RFC 9106), with limits on what an unverified header may make us spend.

use argon2::{Algorithm, Argon2, Params, Version};
use model::Secret;

use super::metadata::Kdf;
use crate::{
    Rejection, VolumeError,
    cipher::hash::{ITERATIONS_MAX, pbkdf2},
};

/// Argon2 memory in KiB that we follow: 1 GiB, the most that cryptsetup chooses by itself.
const MEMORY_MAX: u32 = 1 << 20;
/// Argon2 passes times memory in KiB: some tens of seconds.
const WORK_MAX: u64 = 64 << 20;
/// Argon2 lanes that we follow.
const LANES_MAX: u32 = 64;

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
}
