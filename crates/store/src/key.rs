//! Keys and prefixes: printable ASCII without spaces, so that a key is also what a log shows, and
//! no key contains the byte that separates a key from a revision in the tables.

use std::{borrow::Borrow, fmt, str::FromStr};

use thiserror::Error;

/// Longest key and prefix, in bytes.
pub const MAX_KEY: usize = 512;

/// Why a text is not a key or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A character outside `!` to `~`.
    #[error("a key has printable ASCII characters and no spaces")]
    Character,
    /// Empty (keys only) or over [`MAX_KEY`] bytes.
    #[error("a key has 1 to 512 characters")]
    Length,
}

fn check(text: &str) -> Result<(), KeyError> {
    if text.len() > MAX_KEY {
        return Err(KeyError::Length);
    }
    if text.bytes().all(|b| b.is_ascii_graphic()) { Ok(()) } else { Err(KeyError::Character) }
}

/// A key: 1 to 512 characters of printable ASCII, by convention a path such as `vm/web-01`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Parses a key.
    ///
    /// # Errors
    /// [`KeyError`] says which rule it breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        check(&text)?;
        if text.is_empty() { Err(KeyError::Length) } else { Ok(Self(text)) }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The beginning of keys; the empty prefix is all of them.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// Parses a prefix; it may be empty.
    ///
    /// # Errors
    /// [`KeyError`] says which rule it breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        check(&text)?;
        Ok(Self(text))
    }

    /// The prefix of every key.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` begins with this prefix.
    #[must_use]
    pub fn covers(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = KeyError;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }
    };
}

as_text!(Key);
as_text!(Prefix);

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_separators_spaces_or_no_length_are_refused() {
        assert_eq!(Key::new(""), Err(KeyError::Length));
        assert_eq!(Key::new("a".repeat(513)), Err(KeyError::Length));
        assert_eq!(Key::new("a\0b"), Err(KeyError::Character));
        assert_eq!(Key::new("a b"), Err(KeyError::Character));
        assert_eq!(Key::new("é"), Err(KeyError::Character));
        assert!(Key::new("vm/web-01").is_ok());
        assert!(Prefix::new("").is_ok());
    }
}
