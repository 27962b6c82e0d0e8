//! The sealed form of a value, format 1:
//!
//! ```text
//! 01 | key id u32 | path tag 8 | version u64 | salt 16 | nonce 12 | ciphertext | GCM tag 16
//! ```
//! The AES key of a value is HKDF-SHA-256 of the sealing key with the random salt, so the 28 random
//! bytes make a collision unreachable and a sealing key has no limit of 2^32 values. The path tag
//! and the version stand in clear only to name what went wrong; both are associated data too.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf, rand,
};
use model::Secret;
use zeroize::Zeroize;

use super::{KeyId, SealError, SealKeys};
use crate::{
    codec::{Reader, Writer},
    engine::record::hash,
    error::StoreError,
    key::Key,
};

const FORMAT: u8 = 1;
const SALT: usize = 16;
const NONCE: usize = 12;

/// Bytes before the ciphertext.
pub(super) const HEADER: usize = 1 + 4 + 8 + 8 + SALT + NONCE;
/// Bytes after it.
pub(super) const TAG: usize = 16;

fn path_tag(key: &Key) -> [u8; 8] {
    let digest = hash(&[b"vouchsafe:sealed-path:v1", key.as_bytes()]);
    digest.first_chunk().copied().unwrap_or_default()
}

fn associated_data(header: &[u8], key: &Key, version: u64) -> Vec<u8> {
    Writer::new()
        .bytes(b"vouchsafe:sealed-value:v1")
        .raw(header)
        .bytes(key.as_bytes())
        .u64(version)
        .done()
}

fn value_key(key: &Secret<[u8; 32]>, salt: &[u8]) -> Option<LessSafeKey> {
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key.expose());
    let mut bytes = [0; 32];
    let info: &[&[u8]] = &[b"vouchsafe:sealed-key:v1"];
    let filled = secret.expand(info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut bytes));
    let unbound = filled.and_then(|()| UnboundKey::new(&AES_256_GCM, &bytes));
    bytes.zeroize();
    unbound.ok().map(LessSafeKey::new)
}

/// Seals a value for version `version` of `key`.
pub(super) fn seal(
    keys: &SealKeys,
    key: &Key,
    version: u64,
    value: &[u8],
) -> Result<Vec<u8>, SealError> {
    seal_inner(keys, key, version, value).ok_or_else(|| SealError::Cipher { key: key.clone() })
}

fn seal_inner(keys: &SealKeys, key: &Key, version: u64, value: &[u8]) -> Option<Vec<u8>> {
    let (mut salt, mut nonce) = ([0; SALT], [0; NONCE]);
    rand::fill(&mut salt).ok()?;
    rand::fill(&mut nonce).ok()?;
    let header = Writer::new()
        .u8(FORMAT)
        .raw(&keys.current.0.to_be_bytes())
        .raw(&path_tag(key))
        .u64(version)
        .raw(&salt)
        .raw(&nonce)
        .done();
    let aead = value_key(keys.keys.get(&keys.current)?, &salt)?;
    let aad = associated_data(&header, key, version);
    let mut body = Vec::with_capacity(value.len() + TAG);
    body.extend_from_slice(value);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let sealed = aead.seal_in_place_append_tag(nonce, Aad::from(aad), &mut body);
    if sealed.is_err() {
        body.zeroize();
        return None;
    }
    Some([header, body].concat())
}

struct Header<'a> {
    id: KeyId,
    path: [u8; 8],
    version: u64,
    salt: [u8; SALT],
    nonce: [u8; NONCE],
    raw: &'a [u8],
    body: &'a [u8],
}

fn parse(sealed: &[u8]) -> Result<Header<'_>, StoreError> {
    let mut reader = Reader::new(sealed, "sealed values");
    let raw = reader.take(HEADER)?;
    let body = sealed.get(HEADER..).unwrap_or_default();
    let mut reader = Reader::new(raw, "sealed values");
    if reader.u8()? != FORMAT || body.len() < TAG {
        return Err(StoreError::corrupt("a sealed value has another format"));
    }
    Ok(Header {
        id: KeyId(u32::from_be_bytes(reader.array()?)),
        path: reader.array()?,
        version: reader.u64()?,
        salt: reader.array()?,
        nonce: reader.array()?,
        raw,
        body,
    })
}

/// Opens a value that stands at version `version` of `key`.
pub(super) fn open(
    keys: &SealKeys,
    key: &Key,
    version: u64,
    sealed: &[u8],
) -> Result<Secret<Vec<u8>>, SealError> {
    let altered = || SealError::ValueAltered { key: key.clone() };
    let header = parse(sealed).map_err(|_| altered())?;
    if header.path != path_tag(key) {
        return Err(SealError::ValueSwapped { key: key.clone() });
    }
    if header.version != version {
        let key = key.clone();
        return Err(SealError::ValueReplayed { key, version, sealed: header.version });
    }
    let unknown = || SealError::UnknownSealKey { key: key.clone(), id: header.id };
    let aead = value_key(keys.keys.get(&header.id).ok_or_else(unknown)?, &header.salt);
    let aead = aead.ok_or_else(|| SealError::Cipher { key: key.clone() })?;
    let aad = associated_data(header.raw, key, version);
    let nonce = Nonce::assume_unique_for_key(header.nonce);
    let mut body = header.body.to_vec();
    let opened = aead.open_in_place(nonce, Aad::from(aad), &mut body).map(|plain| plain.len());
    let Ok(len) = opened else {
        body.zeroize();
        return Err(altered());
    };
    body.truncate(len);
    Ok(Secret::new(body))
}
