//! The anti-forensic splitter (LUKS1 specification, section 2.4; LUKS2 keeps it): a key becomes
//! `stripes` blocks of its length, and losing any one of them loses the key.

use aws_lc_rs::digest::{self, Algorithm};
use model::Secret;

use crate::VolumeError;

const CRYPTO: VolumeError = VolumeError::Crypto { what: "split or merge a key" };

/// Splits `key` into `stripes` blocks; all but the last are random.
pub(crate) fn split(
    key: &[u8],
    stripes: u32,
    hash: &'static Algorithm,
) -> Result<Secret<Vec<u8>>, VolumeError> {
    let stripes = usize::try_from(stripes).map_err(|_| CRYPTO)?;
    let mut out = vec![0; key.len().saturating_mul(stripes)];
    let random = out.len().saturating_sub(key.len());
    let (blocks, last) = out.split_at_mut_checked(random).ok_or(CRYPTO)?;
    aws_lc_rs::rand::fill(blocks).map_err(|_| CRYPTO)?;
    let running = fold(blocks, key.len(), hash)?;
    for ((to, from), mask) in last.iter_mut().zip(key).zip(running.expose()) {
        *to = from ^ mask;
    }
    Ok(Secret::new(out))
}

/// Puts together a key of `length` bytes from its split form.
pub(crate) fn merge(
    split: &[u8],
    length: usize,
    hash: &'static Algorithm,
) -> Result<Secret<Vec<u8>>, VolumeError> {
    let before = split.len().checked_sub(length).ok_or(CRYPTO)?;
    let (blocks, last) = split.split_at_checked(before).ok_or(CRYPTO)?;
    let mut key = fold(blocks, length, hash)?;
    for (to, from) in key.expose_mut().iter_mut().zip(last) {
        *to ^= from;
    }
    Ok(key)
}

/// XORs each block into the running value and diffuses it.
fn fold(
    blocks: &[u8],
    length: usize,
    hash: &'static Algorithm,
) -> Result<Secret<Vec<u8>>, VolumeError> {
    if length == 0 || !blocks.len().is_multiple_of(length) {
        return Err(CRYPTO);
    }
    let mut running = Secret::new(vec![0_u8; length]);
    for block in blocks.chunks_exact(length) {
        for (to, from) in running.expose_mut().iter_mut().zip(block) {
            *to ^= from;
        }
        diffuse(running.expose_mut(), hash);
    }
    Ok(running)
}

/// Replaces each hash-sized part by the hash of its number and itself; the rest is cut.
fn diffuse(value: &mut [u8], hash: &'static Algorithm) {
    for (number, part) in (0_u32..).zip(value.chunks_mut(hash.output_len())) {
        let mut context = digest::Context::new(hash);
        context.update(&number.to_be_bytes());
        context.update(part);
        for (to, from) in part.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_key_comes_together_again_and_no_block_is_spare() {
        let key: Vec<u8> = (0..64).collect();
        let mut parts = split(&key, 20, &digest::SHA256).unwrap();
        assert_eq!(merge(parts.expose(), 64, &digest::SHA256).unwrap().expose(), &key);
        for at in 0..20 {
            parts.expose_mut()[at * 64] ^= 1;
            assert_ne!(merge(parts.expose(), 64, &digest::SHA256).unwrap().expose(), &key);
            parts.expose_mut()[at * 64] ^= 1;
        }
    }

    #[test]
    fn a_split_form_of_the_wrong_length_is_an_error() {
        assert!(merge(&[0; 100], 64, &digest::SHA256).is_err());
        assert!(merge(&[0; 10], 64, &digest::SHA256).is_err());
    }
}
