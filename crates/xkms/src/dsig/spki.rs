//! A public key as `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7): what certificates and the
//! world outside of XML know it by.

use super::{Curve, PublicKey};
use crate::der::{unsigned, value, wrap};

/// `rsaEncryption` with its parameters, `NULL`.
const RSA: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// `id-ecPublicKey` with `prime256v1`.
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// `id-ecPublicKey` with `secp384r1`.
const P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];

impl PublicKey {
    /// The key of a `SubjectPublicKeyInfo`, DER; `None` if it is malformed or of another kind.
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        let (info, after) = value(der, 0x30)?;
        let (algorithm, key) = [RSA, P256, P384]
            .into_iter()
            .find_map(|algorithm| Some((algorithm, info.strip_prefix(algorithm)?)))?;
        let (bits, end) = value(key, 0x03)?;
        let bits = bits.strip_prefix(&[0])?;
        if !after.is_empty() || !end.is_empty() {
            return None;
        }
        match algorithm {
            RSA => {
                let (sequence, end) = value(bits, 0x30)?;
                let (modulus, rest) = value(sequence, 0x02)?;
                let (exponent, rest) = value(rest, 0x02)?;
                (end.is_empty() && rest.is_empty()).then(|| Self::rsa(modulus, exponent))
            }
            _ => {
                let curve = if algorithm == P256 { Curve::P256 } else { Curve::P384 };
                Some(Self::Ec { curve, point: bits.to_vec() })
            }
        }
    }

    /// The key as `SubjectPublicKeyInfo`, DER. Two equal keys have the same octets.
    #[must_use]
    pub fn to_spki(&self) -> Vec<u8> {
        let (algorithm, key) = match self {
            Self::Rsa { modulus, exponent } => {
                (RSA, wrap(0x30, &[unsigned(modulus), unsigned(exponent)].concat()))
            }
            Self::Ec { curve: Curve::P256, point } => (P256, point.clone()),
            Self::Ec { curve: Curve::P384, point } => (P384, point.clone()),
        };
        let bits = wrap(0x03, &[&[0], key.as_slice()].concat());
        wrap(0x30, &[algorithm, &bits].concat())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer, PublicKeyX509Der},
        rsa,
        signature::{
            ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
            KeyPair as _,
        },
    };

    use super::*;

    #[test]
    fn a_key_keeps_its_octets_both_ways() {
        let ec = |algorithm| {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            spki.as_ref().to_vec()
        };
        let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let rsa: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
        for spki in [
            ec(&ECDSA_P256_SHA256_ASN1_SIGNING),
            ec(&ECDSA_P384_SHA384_ASN1_SIGNING),
            rsa.as_ref().to_vec(),
        ] {
            assert_eq!(PublicKey::from_spki(&spki).unwrap().to_spki(), spki);
            for cut in 0..spki.len() {
                assert_eq!(PublicKey::from_spki(&spki[..cut]), None);
            }
            assert_eq!(PublicKey::from_spki(&[spki.as_slice(), &[0]].concat()), None);
        }
    }
}
