//! XML Encryption, the subset that delivers private keys: `EncryptedData` under a shared key, or
//! under a fresh key that the shared one wraps.
//!
//! **Invariants:** AES-256 only; AES-CBC, which proves nothing about its content, opens only by the
//! caller's word. Deliberately absent: 3DES, RSA transport, references to cipher text elsewhere.

mod key_pair;

pub use key_pair::RsaKeyPair;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    cipher::{
        AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
        UnboundCipherKey,
    },
    iv::FixedLength,
    key_wrap::{AES_256 as WRAP_256, AesKek, KeyWrap},
    rand,
};
use model::Secret;
use thiserror::Error;

use crate::{
    text::{from_base64, to_base64},
    uri,
    xml::{Element, ElementRef, XmlRejection},
};

const KEY_WRAP: &str = "http://www.w3.org/2001/04/xmlenc#kw-aes256";
const ELEMENT: &str = "http://www.w3.org/2001/04/xmlenc#Element";
const CONTENT: &str = "http://www.w3.org/2001/04/xmlenc#Content";

/// Why encrypted data is not opened. Alphabetical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncryptionRejection {
    /// A cipher or key transport that is not accepted.
    #[error("the cipher or the transport of its key is not accepted")]
    Algorithm,
    /// The key does not open it.
    #[error("the key does not open the data")]
    Key,
    /// A key of the wrong length.
    #[error("the key does not have 32 octets")]
    KeyLength,
    /// Not the structure of the standard.
    #[error("the encrypted data is malformed")]
    Malformed,
    /// What was encrypted is no RSA key pair.
    #[error("what was encrypted is no key pair")]
    Plaintext,
    /// What was encrypted is no XML that is read here.
    #[error("what was encrypted is not read")]
    Xml(#[source] XmlRejection),
}

impl EncryptionRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Algorithm => "encryption-algorithm",
            Self::Key => "encryption-key",
            Self::KeyLength => "encryption-key-length",
            Self::Malformed => "encryption-malformed",
            Self::Plaintext => "encryption-plaintext",
            Self::Xml(_) => "encryption-xml",
        }
    }
}

/// Block ciphers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-CBC.
    Aes256Cbc,
    /// AES-256-GCM.
    Aes256Gcm,
}

impl Cipher {
    /// The algorithm's URI.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Aes256Cbc => "http://www.w3.org/2001/04/xmlenc#aes256-cbc",
            Self::Aes256Gcm => "http://www.w3.org/2009/xmlenc11#aes256-gcm",
        }
    }

    fn seal(self, key: &[u8], plain: &[u8]) -> Result<Vec<u8>, EncryptionRejection> {
        let wrong = |_| EncryptionRejection::KeyLength;
        let mut data = plain.to_vec();
        let start = match self {
            Self::Aes256Gcm => {
                let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(wrong)?;
                let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut data).map_err(wrong)?;
                nonce.as_ref().to_vec()
            }
            Self::Aes256Cbc => {
                let key = UnboundCipherKey::new(&AES_256, key).map_err(wrong)?;
                let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).map_err(wrong)?;
                let context = key.encrypt(&mut data).map_err(wrong)?;
                let vector: &[u8] = (&context).try_into().map_err(wrong)?;
                vector.to_vec()
            }
        };
        Ok([start, data].concat())
    }

    fn open(self, key: &[u8], data: &[u8]) -> Result<Secret<Vec<u8>>, EncryptionRejection> {
        let wrong = |_| EncryptionRejection::KeyLength;
        let failed = |_| EncryptionRejection::Key;
        let mut out = Secret::new(Vec::new());
        match self {
            Self::Aes256Gcm => {
                let (nonce, sealed) =
                    data.split_first_chunk().ok_or(EncryptionRejection::Malformed)?;
                out.expose_mut().extend_from_slice(sealed);
                let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(wrong)?;
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let length =
                    key.open_in_place(nonce, Aad::empty(), out.expose_mut()).map_err(failed)?.len();
                out.expose_mut().truncate(length);
            }
            Self::Aes256Cbc => {
                let (vector, sealed) =
                    data.split_first_chunk::<16>().ok_or(EncryptionRejection::Malformed)?;
                out.expose_mut().extend_from_slice(sealed);
                let key = UnboundCipherKey::new(&AES_256, key).map_err(wrong)?;
                let key = PaddedBlockDecryptingKey::cbc_iso10126(key).map_err(wrong)?;
                let context = DecryptionContext::Iv128(FixedLength::from(vector));
                let length = key.decrypt(out.expose_mut(), context).map_err(failed)?.len();
                out.expose_mut().truncate(length);
            }
        }
        Ok(out)
    }
}

/// Which ciphers may be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncryptionPolicy {
    /// Whether AES-CBC may, for peers that know nothing newer.
    pub cbc: bool,
}

/// Encrypted data, and how its key is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptedData {
    /// The algorithm's URI, as it came.
    algorithm: String,
    /// The name of the shared key, if one is said.
    key_name: Option<String>,
    /// The key of the data under the shared key; without it, the shared key is the data's.
    wrapped: Option<Vec<u8>>,
    data: Vec<u8>,
}

impl EncryptedData {
    /// Encrypts `plain`, an element, under `key` of 32 octets. With `wrap` the data has a fresh key,
    /// and `key` wraps that one.
    pub fn seal(
        plain: &Secret<Vec<u8>>,
        key: &Secret<Vec<u8>>,
        cipher: Cipher,
        wrap: bool,
        key_name: Option<&str>,
    ) -> Result<Self, EncryptionRejection> {
        let (data, wrapped) = if wrap {
            let mut fresh = Secret::new(vec![0_u8; 32]);
            rand::fill(fresh.expose_mut()).map_err(|_| EncryptionRejection::Key)?;
            let data = cipher.seal(fresh.expose(), plain.expose())?;
            (data, Some(wrap_key(key.expose(), fresh.expose())?))
        } else {
            (cipher.seal(key.expose(), plain.expose())?, None)
        };
        let key_name = key_name.map(str::to_owned);
        Ok(Self { algorithm: cipher.uri().to_owned(), key_name, wrapped, data })
    }

    /// Opens it with `key`, the shared one.
    pub fn open(
        &self,
        key: &Secret<Vec<u8>>,
        policy: EncryptionPolicy,
    ) -> Result<Secret<Vec<u8>>, EncryptionRejection> {
        let cipher =
            [Cipher::Aes256Gcm, Cipher::Aes256Cbc].into_iter().find(|c| c.uri() == self.algorithm);
        let cipher = cipher.filter(|c| policy.cbc || *c != Cipher::Aes256Cbc);
        let cipher = cipher.ok_or(EncryptionRejection::Algorithm)?;
        match &self.wrapped {
            None => cipher.open(key.expose(), &self.data),
            Some(wrapped) => {
                let fresh = unwrap_key(key.expose(), wrapped)?;
                cipher.open(fresh.expose(), &self.data)
            }
        }
    }

    /// The name of the shared key, if one is said.
    #[must_use]
    pub fn key_name(&self) -> Option<&str> {
        self.key_name.as_deref()
    }

    /// Reads `xenc:EncryptedData`.
    pub fn read(element: ElementRef<'_>) -> Result<Self, EncryptionRejection> {
        if !element.is(uri::XENC, "EncryptedData") {
            return Err(EncryptionRejection::Malformed);
        }
        if element.attribute("Type").is_some_and(|kind| kind != ELEMENT && kind != CONTENT) {
            return Err(EncryptionRejection::Malformed);
        }
        let (algorithm, data) = cipher_data(element)?;
        let info = child(element, uri::DS, "KeyInfo");
        let key_name = info.and_then(|i| child(i, uri::DS, "KeyName")).and_then(ElementRef::text);
        let encrypted = info.and_then(|i| child(i, uri::XENC, "EncryptedKey"));
        let wrapped = match encrypted.map(cipher_data).transpose()? {
            None => None,
            Some((KEY_WRAP, wrapped)) => Some(wrapped),
            Some(_) => return Err(EncryptionRejection::Algorithm),
        };
        Ok(Self {
            algorithm: algorithm.to_owned(),
            key_name: key_name.map(str::to_owned),
            wrapped,
            data,
        })
    }

    /// Writes `xenc:EncryptedData`.
    #[must_use]
    pub fn to_element(&self) -> Element {
        let named = self.key_name.as_deref().map(|n| Element::new(uri::DS, "KeyName").text(n));
        let wrapped = self.wrapped.as_deref().map(|wrapped| {
            let method = Element::new(uri::XENC, "EncryptionMethod").with("Algorithm", KEY_WRAP);
            let key = Element::new(uri::XENC, "EncryptedKey").child(method);
            key.child(cipher_element(wrapped))
        });
        let items: Vec<Element> = named.into_iter().chain(wrapped).collect();
        let info = (!items.is_empty()).then(|| Element::new(uri::DS, "KeyInfo").children(items));
        Element::new(uri::XENC, "EncryptedData")
            .with("Type", ELEMENT)
            .child(
                Element::new(uri::XENC, "EncryptionMethod")
                    .with("Algorithm", self.algorithm.as_str()),
            )
            .children(info)
            .child(cipher_element(&self.data))
    }
}

fn child<'d>(element: ElementRef<'d>, namespace: &str, local: &str) -> Option<ElementRef<'d>> {
    element.children().find(|child| child.is(namespace, local))
}

/// Algorithm and cipher text of `EncryptedData` or `EncryptedKey`.
fn cipher_data(element: ElementRef<'_>) -> Result<(&str, Vec<u8>), EncryptionRejection> {
    let method = child(element, uri::XENC, "EncryptionMethod");
    let algorithm = method.and_then(|m| m.attribute("Algorithm"));
    let value =
        child(element, uri::XENC, "CipherData").and_then(|d| child(d, uri::XENC, "CipherValue"));
    let value = value.and_then(ElementRef::text).and_then(from_base64);
    algorithm.zip(value).ok_or(EncryptionRejection::Malformed)
}

fn cipher_element(bytes: &[u8]) -> Element {
    let value = Element::new(uri::XENC, "CipherValue").text(to_base64(bytes));
    Element::new(uri::XENC, "CipherData").child(value)
}

fn wrap_key(key: &[u8], fresh: &[u8]) -> Result<Vec<u8>, EncryptionRejection> {
    let mut out = vec![0; fresh.len() + 8];
    let key = AesKek::new(&WRAP_256, key).map_err(|_| EncryptionRejection::KeyLength)?;
    let length = key.wrap(fresh, &mut out).map_err(|_| EncryptionRejection::Key)?.len();
    out.truncate(length);
    Ok(out)
}

fn unwrap_key(key: &[u8], wrapped: &[u8]) -> Result<Secret<Vec<u8>>, EncryptionRejection> {
    let mut out = Secret::new(vec![0; wrapped.len()]);
    let key = AesKek::new(&WRAP_256, key).map_err(|_| EncryptionRejection::KeyLength)?;
    let length = key.unwrap(wrapped, out.expose_mut()).map_err(|_| EncryptionRejection::Key)?.len();
    out.expose_mut().truncate(length);
    Ok(out)
}

#[cfg(test)]
mod tests;
