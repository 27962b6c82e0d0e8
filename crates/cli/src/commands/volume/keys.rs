//! The secret that opens a volume: out of a file, typed, or unsealed by this machine's TPM.
//!
//! A TPM's key is 32 random bytes in a key slot of the kind *sealed*; the slot's token is the sealed
//! object and the PCRs of its policy, so that the volume's file and this machine are all it takes.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::Secret;
use serde::{Deserialize, Serialize};
use tpm::{
    Actor, Address, Auth, AuthValue, Hierarchy, KeyBlob, PcrSelection, Policy, Tpm, TpmError,
};

use super::phrase;
use crate::{
    args::{NewKey, OpenKey, SourceKey},
    output::Failure,
};

/// Longest key, as LUKS has it.
pub(super) const KEY_MAX: usize = 512;
/// Bytes of a key that the TPM seals.
const SEALED_BYTES: u16 = 32;
/// PCR 7: Secure Boot's state and keys, which updates of kernel and firmware leave alone.
const PCRS: &[u8] = &[7];

/// Where a secret comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum From<'a> {
    /// A key file.
    KeyFile(&'a Path),
    /// A file with a pass phrase.
    Passphrase(&'a Path),
    /// A pass phrase that is typed.
    Typed,
    /// A TPM.
    Tpm(&'a Address),
}

/// A secret for a new key slot.
#[derive(Debug)]
pub(super) enum Fresh {
    /// A key.
    Key(Secret<Vec<u8>>),
    /// A pass phrase.
    Passphrase(Secret<Vec<u8>>),
    /// A key that a TPM has sealed.
    Sealed {
        /// The key.
        key: Secret<Vec<u8>>,
        /// What the TPM needs.
        token: Vec<u8>,
    },
}

impl OpenKey {
    /// The one that was said.
    pub(super) fn said(&self) -> Option<From<'_>> {
        let key = self.key_file.as_deref().map(From::KeyFile);
        let phrase = self.passphrase_file.as_deref().map(From::Passphrase);
        let typed = self.passphrase.then_some(From::Typed);
        key.or(phrase).or(typed).or(self.tpm.as_ref().map(From::Tpm))
    }

    /// The one that must be said.
    ///
    /// # Errors
    /// [`Failure::Usage`] if none is.
    pub(super) fn needed(&self) -> Result<From<'_>, Failure> {
        self.said().ok_or_else(|| {
            Failure::Usage("say --key-file, --passphrase, --passphrase-file or --tpm".to_owned())
        })
    }
}

impl NewKey {
    /// The one that was said.
    pub(super) fn said(&self) -> Option<From<'_>> {
        let key = self.new_key_file.as_deref().map(From::KeyFile);
        let phrase = self.new_passphrase_file.as_deref().map(From::Passphrase);
        let typed = self.new_passphrase.then_some(From::Typed);
        key.or(phrase).or(typed).or(self.new_tpm.as_ref().map(From::Tpm))
    }
}

impl SourceKey {
    /// The one that was said.
    pub(super) fn said(&self) -> Option<From<'_>> {
        let key = self.source_key_file.as_deref().map(From::KeyFile);
        let phrase = self.source_passphrase_file.as_deref().map(From::Passphrase);
        key.or(phrase).or(self.source_passphrase.then_some(From::Typed))
    }
}

impl From<'_> {
    /// The secret that opens the volume at `volume`.
    ///
    /// # Errors
    /// A refusal if the key has a wrong length or the TPM does not unseal it.
    pub(super) fn secret(self, volume: &Path) -> Result<Secret<Vec<u8>>, Failure> {
        match self {
            Self::KeyFile(path) | Self::Passphrase(path) => read(path),
            Self::Typed => phrase::ask(),
            Self::Tpm(address) => unseal(address, volume),
        }
    }

    /// A secret for a new key slot; a TPM makes and seals one.
    ///
    /// # Errors
    /// As for [`secret`](Self::secret).
    pub(super) fn fresh(self) -> Result<Fresh, Failure> {
        Ok(match self {
            Self::KeyFile(path) => Fresh::Key(read(path)?),
            Self::Passphrase(path) => Fresh::Passphrase(read(path)?),
            Self::Typed => Fresh::Passphrase(phrase::ask_new()?),
            Self::Tpm(address) => seal(address)?,
        })
    }
}

impl Fresh {
    /// `secret` again in the way in which `key` said it; a TPM's must be sealed anew.
    pub(super) fn like(key: &OpenKey, secret: &Secret<Vec<u8>>) -> Option<Self> {
        match key.said()? {
            From::KeyFile(_) => Some(Self::Key(secret.clone())),
            From::Passphrase(_) | From::Typed => Some(Self::Passphrase(secret.clone())),
            From::Tpm(_) => None,
        }
    }

    /// The secret itself.
    pub(super) const fn secret(&self) -> &Secret<Vec<u8>> {
        match self {
            Self::Key(secret) | Self::Passphrase(secret) | Self::Sealed { key: secret, .. } => {
                secret
            }
        }
    }
}

/// A file with 1 to 512 bytes.
///
/// # Errors
/// `key-length`, or the system's error.
fn read(path: &Path) -> Result<Secret<Vec<u8>>, Failure> {
    let shown = || path.display().to_string();
    let file = File::open(path).with_context(shown)?;
    let mut secret = Secret::new(Vec::with_capacity(1 + KEY_MAX));
    file.take(KEY_MAX as u64 + 1).read_to_end(secret.expose_mut()).with_context(shown)?;
    judged(secret, &shown())
}

/// A secret from `place`, if its length is right.
///
/// # Errors
/// `key-length`.
pub(super) fn judged(secret: Secret<Vec<u8>>, place: &str) -> Result<Secret<Vec<u8>>, Failure> {
    if secret.expose().is_empty() || secret.expose().len() > KEY_MAX {
        let detail = format!("{place}: a key has 1 to {KEY_MAX} bytes");
        return Err(Failure::refused("key-length", detail, "give another one"));
    }
    Ok(secret)
}

/// The token of a key slot that a TPM sealed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// PCRs of its policy, in the SHA-256 bank.
    tpm2_pcrs: Vec<u8>,
    /// The sealed object: public and private area, base64.
    tpm2_blob: String,
}

fn selection(pcrs: &[u8]) -> Result<PcrSelection, Failure> {
    if pcrs.iter().any(|pcr| *pcr > 23) {
        return Err(Failure::error("the key slot's token names a PCR that there is not", ""));
    }
    Ok(PcrSelection::sha256(pcrs))
}

fn storage_key(tpm: &mut Tpm) -> Result<tpm::Object, TpmError> {
    let template = tpm::template::srk_p256();
    tpm.create_primary(Hierarchy::Owner, Auth::none(), &template, &AuthValue::new(&[])?)
}

fn seal(address: &Address) -> Result<Fresh, Failure> {
    let pcrs = selection(PCRS)?;
    let actor = Actor::start(address.clone())?;
    let (key, blob) = actor.run(move |tpm| -> Result<_, TpmError> {
        let parent = storage_key(tpm)?;
        let mut session = tpm.start_hmac_session(&parent)?;
        let key = tpm.secret_random(SEALED_BYTES, &mut session)?;
        tpm.end_session(session)?;
        let values = tpm.pcr_read(&pcrs)?;
        let policy = Policy::new().pcr(&pcrs, &values).ok_or(TpmError::TooLong)?;
        let blob = tpm.seal(&parent, &policy.digest(), &key)?;
        Ok((key, blob))
    })?;
    let token = Token { tpm2_pcrs: PCRS.to_vec(), tpm2_blob: STANDARD.encode(blob.to_bytes()?) };
    Ok(Fresh::Sealed { key, token: serde_json::to_vec(&token)? })
}

fn unseal(address: &Address, volume: &Path) -> Result<Secret<Vec<u8>>, Failure> {
    let tokens = super::vault::tokens(volume)?;
    let actor = Actor::start(address.clone())?;
    let mut refused = None;
    for token in tokens.iter().filter_map(|token| serde_json::from_slice::<Token>(token).ok()) {
        let pcrs = selection(&token.tpm2_pcrs)?;
        let blob = KeyBlob::parse(&STANDARD.decode(&token.tpm2_blob)?)?;
        let unsealed = actor.run(move |tpm| -> Result<_, TpmError> {
            let parent = storage_key(tpm)?;
            let values = tpm.pcr_read(&pcrs)?;
            let policy = Policy::new().pcr(&pcrs, &values).ok_or(TpmError::TooLong)?;
            tpm.unseal(&parent, &blob, &policy)
        });
        match unsealed {
            Ok(secret) => return Ok(secret),
            Err(error) => refused = Some(error),
        }
    }
    let detail = refused.map_or_else(
        || "no key slot was sealed by a TPM".to_owned(),
        |error| format!("this TPM does not unseal it: {}", serve::exit::chain(&error)),
    );
    let hint = "was it sealed on another machine, or did Secure Boot change? use another key slot";
    Err(Failure::refused("tpm-refused", detail, hint))
}
