//! The three keys of a vTPM, as they come by descriptor: 96 bytes.

use model::Secret;
use thiserror::Error;
use tpm::AuthValue;

/// Bytes in the descriptor.
pub(crate) const KEYS_LENGTH: usize = 96;

/// The descriptor does not hold three keys of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the key descriptor must hold exactly 96 bytes: state, migration, authValue")]
pub(crate) struct KeysError;

/// What the process knows that the guest does not.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Encrypts swtpm's state files.
    pub(crate) state: Secret<[u8; 32]>,
    /// Encrypts state that leaves swtpm for another host.
    pub(crate) migration: Secret<[u8; 32]>,
    /// The authValue of the host's AK.
    pub(crate) auth_value: AuthValue,
}

impl Keys {
    /// Splits the descriptor's content.
    pub(crate) fn parse(bytes: &Secret<Vec<u8>>) -> Result<Self, KeysError> {
        let (keys, rest) = bytes.expose().as_chunks::<32>();
        let [state, migration, auth_value] = keys else { return Err(KeysError) };
        if !rest.is_empty() {
            return Err(KeysError);
        }
        Ok(Self {
            state: Secret::new(*state),
            migration: Secret::new(*migration),
            auth_value: AuthValue::new(auth_value).map_err(|_| KeysError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_whole_keys_are_taken() {
        assert!(Keys::parse(&vec![1; KEYS_LENGTH].into()).is_ok());
        assert!(Keys::parse(&vec![1; KEYS_LENGTH - 1].into()).is_err());
        assert!(Keys::parse(&vec![1; KEYS_LENGTH + 32].into()).is_err());
    }
}
