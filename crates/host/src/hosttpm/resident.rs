//! Keys of this host's services that live in its TPM, under the storage root key: made, used, sent to
//! another host's TPM and taken from one. What of them is outside is wrapped, and kept by the service.

use model::{Secret, agent::resident::Travelling, api::Bytes, keys::order::SecretBytes};
use tpm::{
    Certification, Duplicate, ImportBlob, KeyBlob, Public, QualifyingData, TpmError,
    lease::Approver, resident,
};

use super::{HostTpm, ak, storage_root};

impl HostTpm {
    /// Makes a key that goes elsewhere only as `approver` says.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn make_key(&self, approver: Approver) -> Result<KeyBlob, TpmError> {
        self.run(move |tpm| {
            let parent = storage_root(tpm)?;
            resident::make(tpm, &parent, &approver)
        })
        .await
    }

    /// What a key and a point agree on.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn agree(
        &self,
        blob: KeyBlob,
        point: Vec<u8>,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        self.run(move |tpm| {
            let parent = storage_root(tpm)?;
            resident::agree(tpm, &parent, &blob, &point)
        })
        .await
    }

    /// The storage root key, certified by the AK: where keys of other hosts' TPMs come to.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn key_parent(
        &self,
        qualifying: QualifyingData,
    ) -> Result<(Public, Certification), TpmError> {
        self.run(move |tpm| {
            tpm.scoped(|tpm| {
                let (parent, ak) = (storage_root(tpm)?, ak(tpm)?);
                let certified = resident::certified(tpm, (&parent, &ak), &qualifying)?;
                Ok((parent.public().clone(), certified))
            })
        })
        .await
    }

    /// Duplicates a key for a parent that `approver` approved.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::is_policy_refusal`] if it was approved for another key or parent.
    pub(crate) async fn send_key(
        &self,
        blob: KeyBlob,
        parent: Public,
        (approver, signature): (Approver, Vec<u8>),
    ) -> Result<Travelling, TpmError> {
        let sent = self.run(move |tpm| {
            let root = storage_root(tpm)?;
            resident::leave(tpm, (&root, &blob), &parent, (&approver, &signature))
        });
        let Duplicate { blob, inner } = sent.await?;
        Ok(Travelling {
            public: Bytes(blob.public.as_bytes().to_vec()),
            duplicate: Bytes(blob.duplicate),
            seed: Bytes(blob.encrypted_seed),
            inner: SecretBytes::new(inner),
        })
    }

    /// Takes a key that came for the storage root key.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn take_key(
        &self,
        came: Travelling,
        approver: Approver,
    ) -> Result<KeyBlob, TpmError> {
        let public = Public::parse(&came.public.0);
        let public = public.map_err(|_| TpmError::Policy("its public area cannot be read"))?;
        let (duplicate, encrypted_seed) = (came.duplicate.0, came.seed.0);
        let blob = ImportBlob { public, duplicate, encrypted_seed };
        let duplicate = Duplicate { blob, inner: came.inner.0 };
        self.run(move |tpm| {
            let parent = storage_root(tpm)?;
            resident::arrive(tpm, &parent, &approver, &duplicate)
        })
        .await
    }
}
