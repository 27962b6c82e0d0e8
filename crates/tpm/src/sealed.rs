//! What leaves a TPM to be kept elsewhere: wrapped keys, credentials, import blobs.

use model::Secret;

use crate::{
    error::{Malformed, TpmError},
    public::Public,
    wire::{Reader, Writer},
};

/// A created object: its public area and its private part, wrapped by its parent. Not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBlob {
    /// The public area.
    pub public: Public,
    /// TPM2B_PRIVATE content.
    pub private: Vec<u8>,
}

impl KeyBlob {
    /// TPM2B_PUBLIC followed by TPM2B_PRIVATE (as `tpm2-tools` write the two files).
    ///
    /// # Errors
    /// [`TpmError::TooLong`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, TpmError> {
        let mut writer = Writer::new();
        self.public.write(&mut writer);
        writer.sized(&self.private);
        writer.finish_public()
    }

    /// Reads what [`Self::to_bytes`] wrote, exactly.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let public = Public::parse(reader.sized(1024)?)?;
        let private = reader.sized(2048)?.to_vec();
        reader.finish()?;
        Ok(Self { public, private })
    }
}

/// What MakeCredential makes for one EK and one AK Name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// TPM2B_ID_OBJECT content: integrity HMAC and encrypted secret.
    pub id_object: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET content: the seed, encrypted to the EK.
    pub encrypted_seed: Vec<u8>,
}

impl Credential {
    /// TPM2B_ID_OBJECT followed by TPM2B_ENCRYPTED_SECRET.
    ///
    /// # Errors
    /// [`TpmError::TooLong`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, TpmError> {
        let mut writer = Writer::new();
        writer.sized(&self.id_object).sized(&self.encrypted_seed);
        writer.finish_public()
    }

    /// Reads what [`Self::to_bytes`] wrote, exactly.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let id_object = reader.sized(256)?.to_vec();
        let encrypted_seed = reader.sized(512)?.to_vec();
        reader.finish()?;
        Ok(Self { id_object, encrypted_seed })
    }
}

/// An object on its way to another TPM (TPM2_Duplicate): wrapped for its new parent, and inside that
/// under a key of its own.
#[derive(Clone, Debug)]
pub struct Duplicate {
    /// The outer wrapping, for the new parent.
    pub blob: ImportBlob,
    /// The inner wrapper's key, AES-128.
    pub inner: Secret<Vec<u8>>,
}

/// An object wrapped in software for one parent, for [`crate::Tpm::import`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportBlob {
    /// The object's public area.
    pub public: Public,
    /// TPM2B_PRIVATE content: integrity HMAC and encrypted sensitive area.
    pub duplicate: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET content.
    pub encrypted_seed: Vec<u8>,
}
