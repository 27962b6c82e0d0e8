//! The hashes that LUKS headers name, and PBKDF2 (RFC 8018) over them.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, pbkdf2};

use crate::Rejection;

/// PBKDF2 iterations that we follow in an unverified header: some tens of seconds.
pub(crate) const ITERATIONS_MAX: u32 = 100_000_000;

/// The digest algorithms that we know by their names in LUKS.
pub(crate) fn hash_named(name: &str) -> Result<&'static digest::Algorithm, Rejection> {
    match name {
        "sha1" => Ok(&digest::SHA1_FOR_LEGACY_USE_ONLY),
        "sha256" => Ok(&digest::SHA256),
        "sha384" => Ok(&digest::SHA384),
        "sha512" => Ok(&digest::SHA512),
        _ => Err(Rejection::unsupported(format!("the hash {name}"))),
    }
}

/// PBKDF2-HMAC with the hash `name`.
pub(crate) fn pbkdf2(
    name: &str,
    iterations: u32,
    salt: &[u8],
    secret: &[u8],
    out: &mut [u8],
) -> Result<(), Rejection> {
    let algorithm = match name {
        "sha1" => pbkdf2::PBKDF2_HMAC_SHA1,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_hash_is_unsupported() {
        assert_eq!(hash_named("md5").unwrap_err().code(), "unsupported");
        assert_eq!(pbkdf2("md5", 1, &[], &[], &mut [0]).unwrap_err().code(), "unsupported");
    }
}
