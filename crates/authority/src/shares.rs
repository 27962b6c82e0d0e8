//! Secrets in parts: k of n shares bring 32 bytes back, fewer say nothing about them (Shamir's
//! scheme over GF(256)). A share is hexadecimal text for a person to keep.

use blahaj::{Share, Sharks};
use model::Secret;
use thiserror::Error;
use zeroize::Zeroize as _;

use crate::vmkey::KEY;

/// These are not shares of one secret, or too few, or the numbers cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("these shares do not give the key")]
pub(crate) struct SharesError;

/// `count` shares of `key`, of which `threshold` bring it back.
///
/// # Errors
/// [`SharesError`] unless 2 <= `threshold` <= `count`.
pub(crate) fn split(
    key: &Secret<[u8; KEY]>,
    threshold: u8,
    count: u8,
) -> Result<Vec<String>, SharesError> {
    if threshold < 2 || threshold > count {
        return Err(SharesError);
    }
    let dealer = Sharks(threshold).dealer(key.expose());
    Ok(dealer.take(usize::from(count)).map(|share| hex::encode(Vec::from(&share))).collect())
}

/// The key of these shares; the caller checks that it is the right one.
///
/// # Errors
/// [`SharesError`].
pub(crate) fn join(shares: &[String], threshold: u8) -> Result<Secret<[u8; KEY]>, SharesError> {
    let parse = |text: &String| {
        let mut bytes = hex::decode(text.trim()).map_err(|_| SharesError)?;
        let share = Share::try_from(bytes.as_slice()).map_err(|_| SharesError);
        bytes.zeroize();
        share
    };
    let shares = shares.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let mut key = Sharks(threshold).recover(&shares).map_err(|_| SharesError)?;
    let whole = <[u8; KEY]>::try_from(key.as_slice()).map_err(|_| SharesError);
    key.zeroize();
    Ok(Secret::new(whole?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_three_of_five_shares_bring_the_key_back_and_two_do_not() {
        let key = Secret::new([7; KEY]);
        let shares = split(&key, 3, 5).unwrap();
        for left_out in 0..3 {
            let mut some = shares.clone();
            some.remove(left_out);
            some.remove(left_out);
            assert_eq!(join(&some, 3).unwrap().expose(), &[7; KEY]);
        }
        assert!(join(&shares[..2], 3).is_err());
        assert!(join(&["zz".to_owned()], 3).is_err());
        assert!(split(&key, 1, 5).is_err());
    }
}
