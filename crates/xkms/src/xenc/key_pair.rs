//! `xkms:RSAKeyPair`: the plain text in which a private key is delivered.

use model::Secret;
use zeroize::Zeroizing;

use super::EncryptionRejection;
use crate::{
    der,
    text::{from_base64, strip_zeros, to_base64},
    uri,
    xml::{Document, Element, Limits},
};

/// In the order of the schema.
const NAMES: [&str; 8] = ["Modulus", "Exponent", "P", "Q", "DP", "DQ", "InverseQ", "D"];
/// Where each stands in a PKCS#1 `RSAPrivateKey`, after the version.
const PKCS1: [usize; 8] = [0, 1, 3, 4, 5, 6, 7, 2];

/// An RSA private key: eight integers in the order of the schema.
#[derive(Clone, Debug)]
pub struct RsaKeyPair(Vec<Secret<Vec<u8>>>);

impl RsaKeyPair {
    /// The integers of a PKCS#8 `PrivateKeyInfo`.
    #[must_use]
    pub fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let (info, _) = der::value(pkcs8, 0x30)?;
        let (_, rest) = der::value(info, 0x02)?;
        let (_, rest) = der::value(rest, 0x30)?;
        let (key, _) = der::value(rest, 0x04)?;
        Self::from_pkcs1(key)
    }

    /// The integers of a PKCS#1 `RSAPrivateKey`.
    #[must_use]
    pub fn from_pkcs1(pkcs1: &[u8]) -> Option<Self> {
        let (key, _) = der::value(pkcs1, 0x30)?;
        let (_, mut rest) = der::value(key, 0x02)?;
        let mut integers = Vec::with_capacity(8);
        for _ in NAMES {
            let (integer, after) = der::value(rest, 0x02)?;
            integers.push(integer);
            rest = after;
        }
        let ordered =
            PKCS1.iter().map(|at| integers.get(*at).map(|i| Secret::new(strip_zeros(i).to_vec())));
        ordered.collect::<Option<_>>().map(Self)
    }

    /// The key as PKCS#1 `RSAPrivateKey`.
    #[must_use]
    pub fn to_pkcs1(&self) -> Secret<Vec<u8>> {
        let mut content = Zeroizing::new(der::unsigned(&[]));
        for place in 0..NAMES.len() {
            let from = PKCS1.iter().position(|at| *at == place);
            if let Some(integer) = from.and_then(|from| self.0.get(from)) {
                content.extend_from_slice(&der::unsigned(integer.expose()));
            }
        }
        Secret::new(der::wrap(0x30, &content))
    }

    /// The element as text, to be encrypted.
    #[must_use]
    pub fn to_xml(&self) -> Secret<Vec<u8>> {
        let parts = NAMES
            .iter()
            .zip(&self.0)
            .map(|(name, value)| Element::new(uri::XKMS, name).text(to_base64(value.expose())));
        Secret::new(Element::new(uri::XKMS, "RSAKeyPair").children(parts).to_xml().into_bytes())
    }

    /// Reads the element that was decrypted.
    pub fn from_xml(plain: &Secret<Vec<u8>>) -> Result<Self, EncryptionRejection> {
        let document =
            Document::parse(plain.expose(), &Limits::MESSAGE).map_err(EncryptionRejection::Xml)?;
        let root = document.root();
        let mut children = root.children();
        let part = |name: &&str| {
            let element = children.next().filter(|e| e.is(uri::XKMS, name))?;
            let bytes = Zeroizing::new(from_base64(element.text()?)?);
            Some(Secret::new(strip_zeros(&bytes).to_vec()))
        };
        let parts: Option<Vec<_>> = NAMES.iter().map(part).collect();
        let whole = root.is(uri::XKMS, "RSAKeyPair") && root.children().count() == NAMES.len();
        parts.filter(|_| whole).map(Self).ok_or(EncryptionRejection::Plaintext)
    }
}
