//! Why a token does not serve.

use thiserror::Error;

/// A token refused, or cannot be used.
#[derive(Debug, Error)]
pub enum TokenError {
    /// More messages wait than are kept.
    #[error("the token is busy")]
    Busy,
    /// The token or its module failed.
    #[error("the token failed")]
    Device(#[source] cryptoki::error::Error),
    /// The thread that talks to the token is gone.
    #[error("the token's session has ended")]
    Ended,
    /// There is a key of this name already.
    #[error("the token has a key of this name")]
    KeyExists,
    /// The key can be taken out of the token.
    #[error("the key can be taken out of the token, and is not used")]
    KeyExtractable,
    /// Not a P-256 key, or its public half is missing or malformed.
    #[error("the key is not a P-256 key pair")]
    KeyKind,
    /// No key of this name, or several.
    #[error("the token has not exactly one key of this name")]
    KeyMissing,
    /// The module cannot be loaded.
    #[error("the PKCS #11 module cannot be loaded")]
    Module(#[source] cryptoki::error::Error),
    /// The token refused the PIN; it is not tried again.
    #[error("the token refused the PIN")]
    Pin,
    /// No thread could be started.
    #[error("no thread for the token could be started")]
    Thread(#[source] std::io::Error),
    /// It did not answer in time.
    #[error("the token did not answer in time")]
    TimedOut,
    /// No token has this label, or several have it.
    #[error("there is not exactly one token of this name")]
    TokenMissing,
}

impl TokenError {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy => "token-busy",
            Self::Device(_) => "token-device",
            Self::Ended => "token-ended",
            Self::KeyExists => "token-key-exists",
            Self::KeyExtractable => "token-key-extractable",
            Self::KeyKind => "token-key-kind",
            Self::KeyMissing => "token-key-missing",
            Self::Module(_) => "token-module",
            Self::Pin => "token-pin",
            Self::Thread(_) => "token-thread",
            Self::TimedOut => "token-timed-out",
            Self::TokenMissing => "token-missing",
        }
    }
}
