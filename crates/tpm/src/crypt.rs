//! The few algorithms of TPM sessions and credentials (TPM 2.0 Library, part 1, section 11.4 and
//! annexes B and C), all on aws-lc: hashing, HMAC, KDFa, KDFe, AES-128-CFB. Private to the crate.

use aws_lc_rs::{
    cipher::{
        AES_128, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext,
        UnboundCipherKey,
    },
    constant_time, digest, hmac,
    iv::FixedLength,
    rand,
};
use model::{Digest, HashAlg};
use zeroize::Zeroizing;

use crate::error::TpmError;

const fn algorithm(alg: HashAlg) -> &'static digest::Algorithm {
    match alg {
        HashAlg::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        HashAlg::Sha256 => &digest::SHA256,
        HashAlg::Sha384 => &digest::SHA384,
        HashAlg::Sha512 => &digest::SHA512,
    }
}

/// `alg(parts[0] || parts[1] || ..)`.
pub(crate) fn hash(alg: HashAlg, parts: &[&[u8]]) -> Digest {
    let mut context = digest::Context::new(algorithm(alg));
    for part in parts {
        context.update(part);
    }
    Digest::new(alg, context.finish().as_ref()).unwrap_or(Digest::zero(alg))
}

/// `SHA-256(parts[0] || parts[1] || ..)`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(hash(HashAlg::Sha256, parts).as_bytes()) {
        *to = *from;
    }
    out
}

/// HMAC-SHA-256.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    out
}

/// Constant-time comparison.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// `count` bytes from the operating system's generator.
pub(crate) fn random(count: usize) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let mut bytes = Zeroizing::new(vec![0; count]);
    rand::fill(&mut bytes).map_err(|_| TpmError::Crypto("no randomness"))?;
    Ok(bytes)
}

/// KDFa with SHA-256 for `bits` = 128, 256 or 512 (part 1, 11.4.10.2).
pub(crate) fn kdfa(key: &[u8], label: &str, u: &[u8], v: &[u8], bits: u32) -> Zeroizing<Vec<u8>> {
    kdf_blocks(bits, |counter| {
        let parts: [&[u8]; 6] =
            [&counter.to_be_bytes(), label.as_bytes(), &[0], u, v, &bits.to_be_bytes()];
        hmac_sha256(key, &parts)
    })
}

/// KDFe with SHA-256 (part 1, 11.4.10.3): `z` is the x coordinate of the shared point.
pub(crate) fn kdfe(z: &[u8], label: &str, u: &[u8], v: &[u8], bits: u32) -> Zeroizing<Vec<u8>> {
    kdf_blocks(bits, |counter| sha256(&[&counter.to_be_bytes(), z, label.as_bytes(), &[0], u, v]))
}

fn kdf_blocks(bits: u32, block: impl Fn(u32) -> [u8; 32]) -> Zeroizing<Vec<u8>> {
    let wanted = usize::try_from(bits / 8).unwrap_or(0);
    let mut out = Zeroizing::new(Vec::with_capacity(wanted.saturating_add(32)));
    let mut counter: u32 = 1;
    while out.len() < wanted {
        out.extend_from_slice(&*Zeroizing::new(block(counter)));
        counter = counter.saturating_add(1);
    }
    out.truncate(wanted);
    out
}

const CIPHER: TpmError = TpmError::Crypto("AES-128-CFB");

fn split_key(key_iv: &[u8]) -> Result<(UnboundCipherKey, [u8; 16]), TpmError> {
    let (key, iv) = key_iv.split_at_checked(16).ok_or(CIPHER)?;
    let key = UnboundCipherKey::new(&AES_128, key).map_err(|_| CIPHER)?;
    Ok((key, iv.try_into().map_err(|_| CIPHER)?))
}

/// Encrypts in place; `key_iv` is the AES-128 key followed by the IV.
pub(crate) fn cfb_encrypt(key_iv: &[u8], data: &mut [u8]) -> Result<(), TpmError> {
    let (key, iv) = split_key(key_iv)?;
    let key = EncryptingKey::cfb128(key).map_err(|_| CIPHER)?;
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    key.less_safe_encrypt(data, context).map(|_| ()).map_err(|_| CIPHER)
}

/// Decrypts in place.
pub(crate) fn cfb_decrypt(key_iv: &[u8], data: &mut [u8]) -> Result<(), TpmError> {
    let (key, iv) = split_key(key_iv)?;
    let key = DecryptingKey::cfb128(key).map_err(|_| CIPHER)?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    key.decrypt(data, context).map(|_| ()).map_err(|_| CIPHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_cfb_matches_sp_800_38a_f_3_13() {
        let mut key_iv = vec![
            0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf,
            0x4f, 0x3c,
        ];
        key_iv.extend(0..16);
        let plain = [
            0x6b, 0xc1, 0xbe, 0xe2, 0x2e, 0x40, 0x9f, 0x96, 0xe9, 0x3d, 0x7e, 0x11, 0x73, 0x93,
            0x17, 0x2a,
        ];
        let mut data = plain;
        cfb_encrypt(&key_iv, &mut data).unwrap();
        assert_eq!(data[..4], [0x3b, 0x3f, 0xd9, 0x2e]);
        cfb_decrypt(&key_iv, &mut data).unwrap();
        assert_eq!(data, plain);
    }

    #[test]
    fn kdf_output_has_the_length_asked_for() {
        assert_eq!(kdfa(b"k", "ATH", b"u", b"v", 512).len(), 64);
        assert_eq!(kdfe(b"z", "SECRET", b"u", b"v", 128).len(), 16);
    }
}
