//! The type-specific part of a public area (TPMU_PUBLIC_PARMS and TPMU_PUBLIC_ID).

use crate::{error::Malformed, wire::Reader};

const RSA: u16 = 0x0001;
const KEYEDHASH: u16 = 0x0008;
const ECC: u16 = 0x0023;
const SYMCIPHER: u16 = 0x0025;
const NULL: u16 = 0x0010;
const P256: u16 = 0x0003;

/// The key's signing or encryption scheme: algorithm and hash, both as TPM_ALG_ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// TPM_ALG_NULL: chosen at use.
    Null,
    /// ECDSA with this hash.
    Ecdsa(u16),
    /// RSASSA-PKCS1-v1_5 with this hash.
    Rsassa(u16),
    /// Another scheme.
    Other(u16),
}

/// Type, parameters and unique field of a public area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// An EC key on NIST P-256; coordinates padded to 32 bytes. That the point is on the curve is
    /// checked where it is used.
    Ecc {
        /// The scheme.
        scheme: Scheme,
        /// x.
        x: [u8; 32],
        /// y.
        y: [u8; 32],
    },
    /// An RSA key of 1024 to 4096 bits.
    Rsa {
        /// The scheme.
        scheme: Scheme,
        /// The modulus, without leading zeros. Empty in a template.
        modulus: Vec<u8>,
        /// The public exponent (65537 where the TPM says 0).
        exponent: u32,
    },
    /// A keyed hash: sealed data or an HMAC key.
    KeyedHash {
        /// The digest that binds public and sensitive parts.
        unique: Vec<u8>,
    },
    /// A symmetric key.
    Symmetric,
}

impl Key {
    pub(super) fn read(kind: u16, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match kind {
            ECC => Self::read_ecc(reader),
            RSA => Self::read_rsa(reader),
            KEYEDHASH => {
                read_scheme(reader, true)?;
                Ok(Self::KeyedHash { unique: reader.sized(64)?.to_vec() })
            }
            SYMCIPHER => {
                read_symmetric(reader)?;
                reader.sized(64)?;
                Ok(Self::Symmetric)
            }
            other => Err(Malformed::Unsupported { what: "object type", value: other.into() }),
        }
    }

    fn read_ecc(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        read_symmetric(reader)?;
        let scheme = read_scheme(reader, false)?;
        let curve = reader.u16()?;
        if curve != P256 {
            return Err(Malformed::Unsupported { what: "curve", value: curve.into() });
        }
        read_scheme(reader, false)?; // kdf: algorithm and hash, as a scheme
        Ok(Self::Ecc { scheme, x: coordinate(reader)?, y: coordinate(reader)? })
    }

    fn read_rsa(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        read_symmetric(reader)?;
        let scheme = read_scheme(reader, false)?;
        let bits = reader.u16()?;
        if !matches!(bits, 1024 | 2048 | 3072 | 4096) {
            return Err(Malformed::Unsupported { what: "RSA key size", value: bits.into() });
        }
        let exponent = match reader.u32()? {
            0 => 65_537,
            small if small < 3 => return Err(Malformed::Value { what: "exponent" }),
            other => other,
        };
        let modulus = reader.sized(512)?;
        if !modulus.is_empty() && modulus.len() != usize::from(bits / 8) {
            return Err(Malformed::Value { what: "modulus" });
        }
        let lead = modulus.iter().take_while(|byte| **byte == 0).count();
        let modulus = modulus.get(lead..).unwrap_or_default().to_vec();
        Ok(Self::Rsa { scheme, modulus, exponent })
    }
}

fn coordinate(reader: &mut Reader<'_>) -> Result<[u8; 32], Malformed> {
    padded(reader.sized(32)?)
}

/// Left-pads a big-endian number of at most 32 bytes.
pub(crate) fn padded(value: &[u8]) -> Result<[u8; 32], Malformed> {
    let mut out = [0; 32];
    let skip = 32_usize.checked_sub(value.len()).ok_or(Malformed::TooLong)?;
    for (to, from) in out.iter_mut().skip(skip).zip(value) {
        *to = *from;
    }
    Ok(out)
}

/// TPMT_SYM_DEF_OBJECT: algorithm, and unless null its key size and mode.
fn read_symmetric(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    match reader.u16()? {
        NULL => Ok(()),
        0x0006 | 0x0013 | 0x0026 => reader.u32().map(|_| ()),
        other => Err(Malformed::Unsupported { what: "symmetric algorithm", value: other.into() }),
    }
}

/// A TPMT scheme: algorithm, then its hash if it has one.
fn read_scheme(reader: &mut Reader<'_>, keyed_hash: bool) -> Result<Scheme, Malformed> {
    let algorithm = reader.u16()?;
    match algorithm {
        NULL => Ok(Scheme::Null),
        0x0018 => Ok(Scheme::Ecdsa(reader.u16()?)),
        0x0014 => Ok(Scheme::Rsassa(reader.u16()?)),
        0x0015 => Ok(Scheme::Other(algorithm)), // RSAES has no parameters
        0x000a if keyed_hash => reader.u32().map(|_| Scheme::Other(algorithm)), // XOR: hash, KDF
        0x001a => reader.u32().map(|_| Scheme::Other(algorithm)), // ECDAA: hash, count
        0x0005 | 0x0007 | 0x0016 | 0x0017 | 0x0019 | 0x001b | 0x001c | 0x001d | 0x0020..=0x0022 => {
            reader.u16().map(|_| Scheme::Other(algorithm))
        }
        other => Err(Malformed::Unsupported { what: "scheme", value: other.into() }),
    }
}
