//! The half of the TPM's protocols that runs without one: encrypting a secret to an EK so that only
//! the TPM with a certain AK opens it (MakeCredential), and wrapping data for TPM2_Import.
//!
//! Part 1, sections 23 (duplication) and 24 (credentials), annexes B.10 and C.6 (seeds).

use aws_lc_rs::{
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    rand::SystemRandom,
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey},
};
use model::{HashAlg, Secret};
use zeroize::Zeroizing;

use crate::{
    crypt,
    error::TpmError,
    public::{Name, Public, VerifyingKey},
    sealed::{Credential, ImportBlob},
    template,
    wire::Writer,
};

/// The longest secret that fits into a credential for a SHA-256 EK.
pub const CREDENTIAL_LIMIT: usize = 32;

const POINT: TpmError = TpmError::Crypto("the public key is not a point on P-256");
const RSA: TpmError = TpmError::Crypto("RSA-OAEP");

/// A fresh seed of 256 bits and its encryption to a decryption key with nameAlg SHA-256.
pub(crate) fn seed_for(
    key: &Public,
    label: &str,
) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), TpmError> {
    if key.name_alg() != HashAlg::Sha256 {
        return Err(TpmError::Crypto("the key's nameAlg is not SHA-256"));
    }
    match key.verifying_key().map_err(TpmError::malformed("encryption key"))? {
        VerifyingKey::P256 { x, y } => ecdh_seed(&x, &y, label),
        rsa @ VerifyingKey::Rsa { .. } => oaep_seed(&rsa, label),
    }
}

fn ecdh_seed(
    x: &[u8; 32],
    y: &[u8; 32],
    label: &str,
) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), TpmError> {
    let ephemeral =
        EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(|_| POINT)?;
    let own = ephemeral.compute_public_key().map_err(|_| POINT)?;
    let (own_x, own_y) = own.as_ref().get(1..).and_then(|p| p.split_at_checked(32)).ok_or(POINT)?;
    let peer = [&[4][..], x, y].concat();
    let seed = agree_ephemeral(ephemeral, UnparsedPublicKey::new(&ECDH_P256, peer), POINT, |z| {
        Ok(crypt::kdfe(z, label, own_x, x, 256))
    })?;
    let mut encrypted = Writer::small();
    encrypted.sized(own_x).sized(own_y);
    Ok((seed, encrypted.finish_public()?))
}

fn oaep_seed(key: &VerifyingKey, label: &str) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), TpmError> {
    let seed = crypt::random(32)?;
    let key = PublicEncryptingKey::from_der(&key.spki_der()).map_err(|_| RSA)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| RSA)?;
    let label = [label.as_bytes(), &[0]].concat();
    let mut encrypted = vec![0; key.ciphertext_size()];
    let used = key
        .encrypt(&OAEP_SHA256_MGF1SHA256, &seed, &mut encrypted, Some(&label))
        .map_err(|_| RSA)?
        .len();
    encrypted.truncate(used);
    Ok((seed, encrypted))
}

/// Encrypts `content` (sized) under `seed` for the object `name`, and binds both: integrity HMAC as
/// TPM2B, then the ciphertext.
fn protect(seed: &[u8], name: &Name, content: &[u8]) -> Result<Vec<u8>, TpmError> {
    let mut sized = Writer::new();
    sized.sized(content);
    let mut ciphertext = sized.finish()?;
    let mut key_iv = crypt::kdfa(seed, "STORAGE", name.as_bytes(), &[], 128);
    key_iv.extend_from_slice(&[0; 16]);
    crypt::cfb_encrypt(&key_iv, &mut ciphertext)?;
    let hmac_key = crypt::kdfa(seed, "INTEGRITY", &[], &[], 256);
    let hmac = crypt::hmac_sha256(&hmac_key, &[&ciphertext, name.as_bytes()]);
    let mut out = Writer::new();
    out.sized(&hmac).bytes(&ciphertext);
    out.finish_public()
}

/// MakeCredential: only a TPM that holds `ek` *and* has an object with Name `ak_name` loaded can
/// recover `secret` (TPM2_ActivateCredential).
///
/// # Errors
/// [`TpmError::TooLong`] over [`CREDENTIAL_LIMIT`] bytes, [`TpmError::Crypto`] for an EK that is
/// no decryption key or not a valid key.
pub fn make_credential(
    ek: &Public,
    ak_name: &Name,
    secret: &Secret<Vec<u8>>,
) -> Result<Credential, TpmError> {
    if secret.expose().len() > CREDENTIAL_LIMIT {
        return Err(TpmError::TooLong);
    }
    let needed = crate::public::Attributes::RESTRICTED.and(crate::public::Attributes::DECRYPT);
    if !ek.attributes().contains(needed) {
        return Err(TpmError::Crypto("the EK is not a restricted decryption key"));
    }
    let (seed, encrypted_seed) = seed_for(ek, "IDENTITY")?;
    Ok(Credential { id_object: protect(&seed, ak_name, secret.expose())?, encrypted_seed })
}

/// Wraps data for TPM2_Import under `parent`, a storage key: it can be loaded and, if `policy` is
/// satisfied, unsealed there and nowhere else. At most 128 bytes.
///
/// # Errors
/// [`TpmError`].
pub fn wrap_sealed(
    parent: &Public,
    policy: &[u8; 32],
    data: &Secret<Vec<u8>>,
) -> Result<ImportBlob, TpmError> {
    if data.expose().len() > 128 {
        return Err(TpmError::TooLong);
    }
    let obfuscation = crypt::random(32)?;
    let unique = crypt::sha256(&[&obfuscation, data.expose()]);
    let public = Public::parse(template::imported(policy, &unique).as_bytes())
        .map_err(TpmError::malformed("own template"))?;
    let mut sensitive = Writer::new();
    sensitive.u16(0x0008).sized(&[]).sized(&obfuscation).sized(data.expose());
    let (seed, encrypted_seed) = seed_for(parent, "DUPLICATE")?;
    let duplicate = protect(&seed, &public.name(), &sensitive.finish()?)?;
    Ok(ImportBlob { public, duplicate, encrypted_seed })
}
