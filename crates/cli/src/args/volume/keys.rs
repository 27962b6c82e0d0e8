//! What opens a volume, what is to open it, and what says that it is the latest.

use std::{path::PathBuf, str::FromStr};

use clap::Args;

/// What opens a volume: one of them, and for a raw one none.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct OpenKey {
    /// File with the key, 1 to 512 bytes, taken as they are.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// File with the pass phrase, 1 to 512 bytes, taken as they are.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Ask for the pass phrase on the terminal.
    #[arg(long)]
    pub passphrase: bool,
    /// Unseal the key by this machine's TPM [default: device:/dev/tpmrm0].
    #[arg(
        long,
        value_name = "TPM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "device:/dev/tpmrm0"
    )]
    pub tpm: Option<tpm::Address>,
}

/// What is to open a volume from now on: exactly one.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct NewKey {
    /// File with the new key.
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
    /// File with the new pass phrase.
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Ask for the new pass phrase on the terminal.
    #[arg(long)]
    pub new_passphrase: bool,
    /// Make a key that only this machine's TPM unseals [default: device:/dev/tpmrm0].
    #[arg(
        long,
        value_name = "TPM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "device:/dev/tpmrm0"
    )]
    pub new_tpm: Option<tpm::Address>,
}

/// What opens the source of a conversion; if none is said, what is to open the new volume.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct SourceKey {
    /// File with the key of an encrypted source [default: what is to open the new volume].
    #[arg(long, value_name = "FILE")]
    pub source_key_file: Option<PathBuf>,
    /// File with the pass phrase of an encrypted source.
    #[arg(long, value_name = "FILE")]
    pub source_passphrase_file: Option<PathBuf>,
    /// Ask for the source's pass phrase on the terminal.
    #[arg(long)]
    pub source_passphrase: bool,
}

/// Where a volume's anchor is.
#[derive(Clone, Debug)]
pub enum AnchorPlace {
    /// In a file.
    File(PathBuf),
    /// In a counter of a TPM.
    Tpm(tpm::Address),
}

impl FromStr for AnchorPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = match (text, text.strip_prefix("tpm:")) {
            ("tpm", _) => "device:/dev/tpmrm0",
            (_, Some(address)) => address,
            (_, None) => return Ok(Self::File(text.into())),
        };
        address.parse().map(Self::Tpm).map_err(|error| format!("{address:?}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anchor_is_a_file_or_in_a_tpm() {
        let place = |text: &str| format!("{:?}", text.parse::<AnchorPlace>());
        assert_eq!(place("tpm"), place("tpm:device:/dev/tpmrm0"));
        assert!(place("tpm:unix:/s").contains("Unix"));
        assert!(place("/a/tpm").contains("File"));
        assert!("tpm:x".parse::<AnchorPlace>().is_err());
    }
}
