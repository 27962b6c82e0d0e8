//! Opening where the private half is not here: a TPM has it and gives what it agrees on with `enc`.
//! From that on it is RFC 9180 by hand (sections 4.1 and 5.1), and checked against [`super::seal`].

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};
use model::Secret;

use super::{HpkeError, HpkePublic, POINT_LEN, Sealed};

/// "KEM" and DHKEM(P-256, HKDF-SHA256).
const KEM: &[u8] = b"KEM\x00\x10";
/// "HPKE", that KEM, HKDF-SHA256, AES-256-GCM.
const SUITE: &[u8] = b"HPKE\x00\x10\x00\x01\x00\x02";
/// Base mode.
const BASE: u8 = 0;

/// Opens what was sealed to `public`; `agreed` is the x coordinate of what its private half and
/// `sealed.enc` agree on.
///
/// # Errors
/// [`HpkeError::Open`].
pub fn open_agreed(
    agreed: &Secret<Vec<u8>>,
    public: &HpkePublic,
    sealed: &Sealed,
    info: &[u8],
    aad: &[u8],
) -> Result<Secret<Vec<u8>>, HpkeError> {
    if public.0.len() != POINT_LEN || sealed.enc.len() != POINT_LEN {
        return Err(HpkeError::Open);
    }
    let eae = extract(KEM, &Secret::new(Vec::new()), "eae_prk", agreed.expose());
    let both = [sealed.enc.as_slice(), &public.0].concat();
    let shared = expand(KEM, &eae, "shared_secret", &both, 32);
    let none = Secret::new(Vec::new());
    let psk_id = extract(SUITE, &none, "psk_id_hash", b"");
    let info = extract(SUITE, &none, "info_hash", info);
    let context = [&[BASE][..], psk_id.expose(), info.expose()].concat();
    let secret = extract(SUITE, &shared, "secret", b"");
    let key = expand(SUITE, &secret, "key", &context, 32);
    let nonce = expand(SUITE, &secret, "base_nonce", &context, 12);
    let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| HpkeError::Open)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce.expose()).map_err(|_| HpkeError::Open)?;
    let mut text = Secret::new(sealed.ciphertext.clone());
    let opened = LessSafeKey::new(key).open_in_place(nonce, Aad::from(aad), text.expose_mut());
    let length = opened.map_err(|_| HpkeError::Open)?.len();
    text.expose_mut().truncate(length);
    Ok(text)
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Secret<Vec<u8>> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(part);
    }
    Secret::new(context.sign().as_ref().to_vec())
}

/// LabeledExtract.
fn extract(suite: &[u8], salt: &Secret<Vec<u8>>, label: &str, ikm: &[u8]) -> Secret<Vec<u8>> {
    mac(salt.expose(), &[b"HPKE-v1", suite, label.as_bytes(), ikm])
}

/// LabeledExpand, of at most 32 octets: one round.
fn expand(
    suite: &[u8],
    prk: &Secret<Vec<u8>>,
    label: &str,
    info: &[u8],
    length: u8,
) -> Secret<Vec<u8>> {
    let size = [0, length];
    let parts = [&size, b"HPKE-v1".as_slice(), suite, label.as_bytes(), info, &[1]];
    let mut out = mac(prk.expose(), &parts);
    out.expose_mut().truncate(usize::from(length));
    out
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};

    use super::*;
    use crate::hpke::{generate, open, seal};

    #[test]
    fn what_was_sealed_opens_with_what_the_private_half_agrees_on() {
        let (private, public) = generate().unwrap();
        let sealed = seal(&public, b"info", b"aad", b"a user's key").unwrap();
        let key = PrivateKey::from_private_key(&ECDH_P256, private.secret().expose()).unwrap();
        let enc = UnparsedPublicKey::new(&ECDH_P256, &sealed.enc);
        let agreed = agree(&key, enc, (), |z| Ok(z.to_vec())).unwrap();
        let agreed = Secret::new(agreed);
        let by_hand = open_agreed(&agreed, &public, &sealed, b"info", b"aad").unwrap();
        assert_eq!(by_hand.expose(), open(&private, &sealed, b"info", b"aad").unwrap().expose());
        assert_eq!(by_hand.expose(), b"a user's key");
        let refused = |opened: Result<_, _>| assert_eq!(opened.unwrap_err(), HpkeError::Open);
        refused(open_agreed(&agreed, &public, &sealed, b"other", b"aad"));
        refused(open_agreed(&agreed, &public, &sealed, b"info", b"other"));
        let (_, other) = generate().unwrap();
        refused(open_agreed(&agreed, &other, &sealed, b"info", b"aad"));
        refused(open_agreed(&Secret::new(vec![1; 32]), &public, &sealed, b"info", b"aad"));
    }
}
