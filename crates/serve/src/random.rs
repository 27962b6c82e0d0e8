//! Where randomness comes in: the generator of aws-lc-rs.

use model::{GrantId, Nonce, OperationId, Secret};
use thiserror::Error;
use zeroize::Zeroize as _;

/// The generator failed; nothing may be made from what it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the random generator failed")]
pub struct RandomError;

/// Fills `to` with random bytes.
///
/// # Errors
/// [`RandomError`] if the generator failed.
pub fn fill(to: &mut [u8]) -> Result<(), RandomError> {
    aws_lc_rs::rand::fill(to).map_err(|_| RandomError)
}

/// `N` random bytes.
///
/// # Errors
/// [`RandomError`] if the generator failed.
pub fn bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut out = [0; N];
    fill(&mut out)?;
    Ok(out)
}

/// `N` random bytes that are a secret.
///
/// # Errors
/// [`RandomError`] if the generator failed.
pub fn secret<const N: usize>() -> Result<Secret<[u8; N]>, RandomError> {
    let mut out = Secret::new([0; N]);
    if fill(out.expose_mut()).is_err() {
        out.zeroize();
        return Err(RandomError);
    }
    Ok(out)
}

/// A nonce for a challenge.
///
/// # Errors
/// [`RandomError`] if the generator failed.
pub fn nonce() -> Result<Nonce, RandomError> {
    bytes().map(Nonce)
}

/// An identifier for a grant.
///
/// # Errors
/// [`RandomError`] if the generator failed.
pub fn grant_id() -> Result<GrantId, RandomError> {
    bytes().map(GrantId)
}

/// An identifier for an operation.
///
/// # Errors
/// [`RandomError`] if the generator failed.
pub fn operation_id() -> Result<OperationId, RandomError> {
    bytes().map(OperationId)
}

/// A one-time token to hand to a person: 32 hexadecimal digits, 128 bits.
///
/// # Errors
/// [`RandomError`] if the generator failed.
pub fn token() -> Result<Secret<String>, RandomError> {
    Ok(Secret::new(hex::encode(secret::<16>()?.expose())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nonces_differ() {
        assert_ne!(nonce().unwrap(), nonce().unwrap());
        assert_eq!(token().unwrap().expose().len(), 32);
    }
}
