//! Authorization values and how a command shows that it knows them.

use std::fmt;

use model::Secret;

use crate::{error::TpmError, session::Session};

/// The authValue of an object, NV index or hierarchy: at most 32 bytes, wiped on drop.
#[derive(Clone)]
pub struct AuthValue(Secret<Vec<u8>>);

impl AuthValue {
    /// No authorization value.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Secret::new(Vec::new()))
    }

    /// An authorization value. Trailing zeros do not count, as in the TPM.
    ///
    /// # Errors
    /// [`TpmError::TooLong`] over 32 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, TpmError> {
        if bytes.len() > 32 {
            return Err(TpmError::TooLong);
        }
        let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        Ok(Self(Secret::new(bytes.get(..used).unwrap_or_default().to_vec())))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl fmt::Debug for AuthValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthValue(..)")
    }
}

/// How a command is authorized for one of its handles.
#[derive(Debug)]
pub enum Auth<'a> {
    /// The authValue itself, in the clear on the way to the TPM: for empty values and for channels
    /// that nobody else sees.
    Password(&'a AuthValue),
    /// An HMAC or policy session; the value is that of the entity. Parameters are encrypted where
    /// the command has something to encrypt and the session is salted.
    Session(&'a mut Session, &'a AuthValue),
}

impl Auth<'_> {
    /// The same authorization for another command.
    pub(crate) const fn again(&mut self) -> Auth<'_> {
        match self {
            Self::Password(value) => Auth::Password(value),
            Self::Session(session, value) => Auth::Session(session, value),
        }
    }
}

/// The empty authorization value.
pub(crate) static EMPTY: AuthValue = AuthValue::empty();

impl Auth<'static> {
    /// The empty password.
    #[must_use]
    pub fn none() -> Self {
        Self::Password(&EMPTY)
    }
}
