//! Names and identifiers. A name is what an operator types and what becomes a directory: lower-case
//! letters, digits and `-`, 1 to 40 characters, first a letter or digit, last not `-`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// Why a text is not a name or identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Empty or over 40 characters.
    #[error("a name has 1 to 40 characters")]
    Length,
    /// A character outside `a-z0-9-`, or `-` first or last.
    #[error("a name has lower-case letters, digits and inner hyphens only")]
    Character,
    /// Not 32 hexadecimal digits.
    #[error("an identifier has 32 hexadecimal digits")]
    Identifier,
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > 40 {
        return Err(NameError::Length);
    }
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !plain || text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Character);
    }
    Ok(())
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check_name(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        text_serde!($name);
    };
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| NameError::Identifier)?;
                Ok(Self(bytes))
            }
        }

        text_serde!($name);
    };
}

name_type!(
    /// A host (a server that runs VMs), unique in one authority.
    HostId
);
name_type!(
    /// A virtual machine, unique in one authority.
    VmId
);
name_type!(
    /// A tenant of the cloud, unique in one key-management centre.
    Tenant
);
name_type!(
    /// A PKI that a key-management centre orders from.
    Domain
);
random_id!(
    /// A grant of VM keys; each is used once.
    GrantId
);
random_id!(
    /// An order of a trust service to the key-management centre.
    OrderId
);
random_id!(
    /// A move of one owner's keys from one trust service to another.
    MigrationId
);
random_id!(
    /// One request to change a VM, from its acceptance to its outcome.
    OperationId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", "..", "a/b", "-a", "a-", "A", "a b", &"a".repeat(41)] {
            assert!(bad.parse::<VmId>().is_err(), "{bad:?} was taken for a name");
        }
        assert!("web-01".parse::<VmId>().is_ok());
    }

    #[test]
    fn identifiers_round_trip_as_text() {
        let id = GrantId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("ab".parse::<GrantId>(), Err(NameError::Identifier));
    }
}
