//! Authorization sessions (part 1, section 19): nonces, HMACs, and parameter encryption. Pure
//! bookkeeping; [`crate::Tpm`] starts and ends them. Always SHA-256 and AES-128-CFB.

use model::Secret;
use zeroize::Zeroizing;

use crate::{crypt, error::TpmError};

/// continueSession, decrypt (the command's first parameter), encrypt (the response's).
pub(crate) const CONTINUE: u8 = 0x01;
pub(crate) const DECRYPT: u8 = 0x20;
pub(crate) const ENCRYPT: u8 = 0x40;

/// A started HMAC or policy session. [`crate::Tpm::end_session`] ends it; a job's scope does so too.
#[derive(Debug)]
pub struct Session {
    pub(crate) handle: u32,
    pub(crate) is_policy: bool,
    /// Set by PolicyAuthValue: then a policy session's HMAC includes the authValue.
    pub(crate) needs_auth_value: bool,
    pub(crate) key: Secret<Vec<u8>>,
    pub(crate) nonce_tpm: Vec<u8>,
    pub(crate) nonce_caller: Vec<u8>,
}

impl Session {
    /// The session's handle in the TPM.
    #[must_use]
    pub const fn handle(&self) -> u32 {
        self.handle
    }

    /// Whether the session has a key that only this side and the TPM know.
    #[must_use]
    pub fn is_salted(&self) -> bool {
        !self.key.expose().is_empty()
    }

    pub(crate) fn renew_nonce(&mut self) -> Result<(), TpmError> {
        self.nonce_caller = crypt::random(32)?.to_vec();
        Ok(())
    }

    /// The HMAC key: session key, then the entity's authValue where it takes part.
    fn hmac_key(&self, auth_value: &[u8]) -> Zeroizing<Vec<u8>> {
        let auth_value = if self.is_policy && !self.needs_auth_value { &[] } else { auth_value };
        Zeroizing::new([self.key.expose(), auth_value].concat())
    }

    /// The HMAC over a command. `others` are the nonceTPM of other sessions that encrypt, in the
    /// first session only.
    pub(crate) fn command_hmac(
        &self,
        cp_hash: &[u8; 32],
        attributes: u8,
        auth_value: &[u8],
        others: &[u8],
    ) -> Vec<u8> {
        let key = self.hmac_key(auth_value);
        if self.is_policy && key.is_empty() {
            return Vec::new();
        }
        let parts: [&[u8]; 5] =
            [cp_hash, &self.nonce_caller, &self.nonce_tpm, others, &[attributes]];
        crypt::hmac_sha256(&key, &parts).to_vec()
    }

    /// Whether the HMAC over a response is right; `self.nonce_tpm` is the one it brought.
    pub(crate) fn response_is_authentic(
        &self,
        rp_hash: &[u8; 32],
        attributes: u8,
        auth_value: &[u8],
        hmac: &[u8],
    ) -> bool {
        let key = self.hmac_key(auth_value);
        if self.is_policy && key.is_empty() {
            return hmac.is_empty();
        }
        let parts: [&[u8]; 4] = [rp_hash, &self.nonce_tpm, &self.nonce_caller, &[attributes]];
        crypt::same(&crypt::hmac_sha256(&key, &parts), hmac)
    }

    fn cipher_key(&self, auth_value: &[u8], newer: &[u8], older: &[u8]) -> Zeroizing<Vec<u8>> {
        let value = Zeroizing::new([self.key.expose(), auth_value].concat());
        crypt::kdfa(&value, "CFB", newer, older, 256)
    }

    /// Encrypts a command's first parameter in place.
    pub(crate) fn encrypt(&self, auth_value: &[u8], data: &mut [u8]) -> Result<(), TpmError> {
        let key = self.cipher_key(auth_value, &self.nonce_caller, &self.nonce_tpm);
        crypt::cfb_encrypt(&key, data)
    }

    /// Decrypts a response's first parameter in place.
    pub(crate) fn decrypt(&self, auth_value: &[u8], data: &mut [u8]) -> Result<(), TpmError> {
        let key = self.cipher_key(auth_value, &self.nonce_tpm, &self.nonce_caller);
        crypt::cfb_decrypt(&key, data)
    }
}
