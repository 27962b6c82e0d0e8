//! The PCR banks of a VM's vTPM: which hash algorithms its firmware and kernel measure with.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::HashAlg;

/// Why algorithms are not a set of banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BanksError {
    /// Verdicts rest on SHA-256.
    #[error("the bank sha256 must be among them")]
    NoSha256,
    /// One stands there twice.
    #[error("a bank is named twice")]
    Twice,
    /// A name of no algorithm.
    #[error("a bank is sha1, sha256, sha384 or sha512")]
    Unknown,
}

/// A set of banks, SHA-256 among them; SHA-256 alone by default. Firmware measures everything once
/// for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Vec<HashAlg>", into = "Vec<HashAlg>")]
#[schema(value_type = Vec<String>, example = json!(["sha256"]))]
pub struct PcrBanks(Vec<HashAlg>);

impl PcrBanks {
    /// The algorithms, in order of size.
    #[must_use]
    pub fn as_slice(&self) -> &[HashAlg] {
        &self.0
    }
}

impl Default for PcrBanks {
    fn default() -> Self {
        Self(vec![HashAlg::Sha256])
    }
}

impl TryFrom<Vec<HashAlg>> for PcrBanks {
    type Error = BanksError;

    fn try_from(mut banks: Vec<HashAlg>) -> Result<Self, BanksError> {
        banks.sort_unstable();
        if banks.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(BanksError::Twice);
        }
        if banks.contains(&HashAlg::Sha256) { Ok(Self(banks)) } else { Err(BanksError::NoSha256) }
    }
}

impl From<PcrBanks> for Vec<HashAlg> {
    fn from(banks: PcrBanks) -> Self {
        banks.0
    }
}

impl FromStr for PcrBanks {
    type Err = BanksError;

    fn from_str(text: &str) -> Result<Self, BanksError> {
        let named = |name| HashAlg::ALL.into_iter().find(|alg| alg.name() == name);
        let banks: Option<Vec<_>> = text.split(',').map(named).collect();
        banks.ok_or(BanksError::Unknown)?.try_into()
    }
}

impl fmt::Display for PcrBanks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|alg| alg.name()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banks_are_a_set_with_sha256() {
        let banks: PcrBanks = "sha512,sha256".parse().unwrap();
        assert_eq!(banks.as_slice(), [HashAlg::Sha256, HashAlg::Sha512]);
        assert_eq!(banks.to_string(), "sha256,sha512");
        assert_eq!("sha384".parse::<PcrBanks>(), Err(BanksError::NoSha256));
        assert_eq!("sha256,sha256".parse::<PcrBanks>(), Err(BanksError::Twice));
        assert_eq!("".parse::<PcrBanks>(), Err(BanksError::Unknown));
        assert_eq!(serde_json::from_str::<PcrBanks>(r#"["sha256"]"#).unwrap(), PcrBanks::default());
        assert!(serde_json::from_str::<PcrBanks>(r#"["sha1"]"#).is_err());
    }
}
