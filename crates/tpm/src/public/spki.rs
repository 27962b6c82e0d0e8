//! SubjectPublicKeyInfo (RFC 5280, RFC 5480, RFC 8017) of the two key types in use, written and
//! read strictly as DER: one encoding a key.

use crate::error::Malformed;

/// SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING of 66 bytes, uncompressed.
const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// SEQUENCE { rsaEncryption, NULL }.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// A public key that verifies signatures or receives secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyingKey {
    /// A point on NIST P-256 (not yet checked to be one).
    P256 {
        /// x.
        x: [u8; 32],
        /// y.
        y: [u8; 32],
    },
    /// An RSA key.
    Rsa {
        /// The modulus, without leading zeros.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: u32,
    },
}

impl VerifyingKey {
    /// Parses a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`Malformed`] for anything but a P-256 or RSA key in DER.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, Malformed> {
        if let Some(point) = der.strip_prefix(&P256_PREFIX) {
            let (x, y) = point.split_at_checked(32).ok_or(Malformed::Truncated)?;
            let y = y.try_into().map_err(|_| Malformed::Value { what: "EC point" })?;
            let x = x.try_into().map_err(|_| Malformed::Truncated)?;
            return Ok(Self::P256 { x, y });
        }
        let (body, rest) = element(der, 0x30)?;
        end(rest)?;
        let bits = body
            .strip_prefix(&RSA_ALGORITHM)
            .ok_or(Malformed::Unsupported { what: "key algorithm", value: 0 })?;
        let (bits, rest) = element(bits, 0x03)?;
        end(rest)?;
        let key = bits.strip_prefix(&[0]).ok_or(Malformed::Value { what: "BIT STRING" })?;
        let (key, rest) = element(key, 0x30)?;
        end(rest)?;
        let (modulus, rest) = element(key, 0x02)?;
        let (exponent, rest) = element(rest, 0x02)?;
        end(rest)?;
        let modulus = unsigned(modulus)?.to_vec();
        if !(128..=512).contains(&modulus.len()) {
            return Err(Malformed::Value { what: "modulus" });
        }
        let exponent = unsigned(exponent)?
            .iter()
            .try_fold(0_u32, |sum, byte| sum.checked_mul(256).map(|sum| sum | u32::from(*byte)));
        let exponent = exponent.filter(|e| *e >= 3).ok_or(Malformed::Value { what: "exponent" })?;
        Ok(Self::Rsa { modulus, exponent })
    }

    /// The key as SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_der(&self) -> Vec<u8> {
        match self {
            Self::P256 { x, y } => [&P256_PREFIX[..], x, y].concat(),
            Self::Rsa { .. } => {
                let bits = [&[0], &*self.rsa_der().unwrap_or_default()].concat();
                write(0x30, &[&RSA_ALGORITHM[..], &write(0x03, &bits)].concat())
            }
        }
    }

    /// RSAPublicKey (PKCS #1) of an RSA key.
    pub(crate) fn rsa_der(&self) -> Option<Vec<u8>> {
        match self {
            Self::P256 { .. } => None,
            Self::Rsa { modulus, exponent } => {
                let numbers = [integer(modulus), integer(&exponent.to_be_bytes())].concat();
                Some(write(0x30, &numbers))
            }
        }
    }
}

/// SEQUENCE of two positive INTEGERs, as ECDSA-Sig-Value is: their magnitudes.
pub(crate) fn two_integers(der: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (body, rest) = element(der, 0x30)?;
    end(rest)?;
    let (first, rest) = element(body, 0x02)?;
    let (second, rest) = element(rest, 0x02)?;
    end(rest)?;
    Ok((unsigned(first)?, unsigned(second)?))
}

fn end(rest: &[u8]) -> Result<(), Malformed> {
    if rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
}

/// One DER element of this tag: its content and what follows. Lengths up to 64 KiB, minimal.
fn element(der: &[u8], tag: u8) -> Result<(&[u8], &[u8]), Malformed> {
    let (first, rest) = der.split_first().ok_or(Malformed::Truncated)?;
    if *first != tag {
        return Err(Malformed::Value { what: "DER tag" });
    }
    let (short, rest) = rest.split_first().ok_or(Malformed::Truncated)?;
    let (length, rest) = match (*short, rest) {
        (n @ 0..=0x7f, _) => (usize::from(n), rest),
        (0x81, [n @ 0x80..=0xff, rest @ ..]) => (usize::from(*n), rest),
        (0x82, [high @ 1..=0xff, low, rest @ ..]) => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return Err(Malformed::Value { what: "DER length" }),
    };
    rest.split_at_checked(length).ok_or(Malformed::Truncated)
}

/// The magnitude of a positive, minimally encoded INTEGER.
fn unsigned(content: &[u8]) -> Result<&[u8], Malformed> {
    match content {
        [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => Ok(rest),
        [1..=0x7f, ..] => Ok(content),
        _ => Err(Malformed::Value { what: "INTEGER" }),
    }
}

fn integer(magnitude: &[u8]) -> Vec<u8> {
    let lead = magnitude.iter().take_while(|byte| **byte == 0).count();
    let digits = magnitude.get(lead..).unwrap_or_default();
    if digits.first().is_none_or(|first| *first >= 0x80) {
        write(0x02, &[&[0], digits].concat())
    } else {
        write(0x02, digits)
    }
}

fn write(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(0);
    let [high, low] = length.to_be_bytes();
    let head = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head[..], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_as_der() {
        let mut modulus = vec![0xc1; 256];
        for key in [
            VerifyingKey::P256 { x: [1; 32], y: [2; 32] },
            VerifyingKey::Rsa { modulus: modulus.clone(), exponent: 65_537 },
            VerifyingKey::Rsa {
                modulus: {
                    modulus[0] = 0x41;
                    modulus
                },
                exponent: 3,
            },
        ] {
            let der = key.spki_der();
            assert_eq!(VerifyingKey::from_spki_der(&der), Ok(key));
            for cut in 0..der.len() {
                assert!(VerifyingKey::from_spki_der(&der[..cut]).is_err());
            }
            assert!(VerifyingKey::from_spki_der(&[&der[..], &[0]].concat()).is_err());
        }
    }
}
