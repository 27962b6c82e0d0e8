//! Where a TPM is: `device:/dev/tpmrm0`, `unix:/path/to/socket` or `tcp:127.0.0.1:PORT`.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use thiserror::Error;

/// Why a text is not the address of a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The part after the prefix is empty or not an IP address with port.
    #[error("malformed after the prefix")]
    Malformed,
    /// A TCP address that is not on loopback: the TPM protocol has no protection of its own.
    #[error("a TPM over TCP must be on the loopback interface")]
    NotLoopback,
    /// No known prefix.
    #[error("a TPM's address begins with `device:`, `unix:` or `tcp:`")]
    Prefix,
}

/// Where a TPM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A character device, best the kernel's resource manager `/dev/tpmrm0`.
    Device(PathBuf),
    /// swtpm's data channel on a unix socket (`--server type=unixio`).
    Unix(PathBuf),
    /// swtpm's data channel on loopback TCP (`--server type=tcp`).
    Tcp(SocketAddr),
}

impl Address {
    /// Whether this can only be a software TPM (the lab). A device may be one too.
    #[must_use]
    pub const fn is_software(&self) -> bool {
        matches!(self, Self::Unix(_) | Self::Tcp(_))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (prefix, rest) = text.split_once(':').ok_or(AddressError::Prefix)?;
        if rest.is_empty() {
            return Err(AddressError::Malformed);
        }
        match prefix {
            "device" => Ok(Self::Device(rest.into())),
            "unix" => Ok(Self::Unix(rest.into())),
            "tcp" => {
                let address: SocketAddr = rest.parse().map_err(|_| AddressError::Malformed)?;
                if !address.ip().is_loopback() {
                    return Err(AddressError::NotLoopback);
                }
                Ok(Self::Tcp(address))
            }
            _ => Err(AddressError::Prefix),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "device:{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_as_text() {
        for text in ["device:/dev/tpmrm0", "unix:/run/t.sock", "tcp:127.0.0.1:2321"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_tpm_on_the_network_is_refused() {
        assert_eq!("tcp:192.0.2.1:2321".parse::<Address>(), Err(AddressError::NotLoopback));
        assert_eq!("tcp:2321".parse::<Address>(), Err(AddressError::Malformed));
        assert_eq!("unix:".parse::<Address>(), Err(AddressError::Malformed));
        assert_eq!("/dev/tpm0".parse::<Address>(), Err(AddressError::Prefix));
    }
}
