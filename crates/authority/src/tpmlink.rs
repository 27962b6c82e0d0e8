//! The authority's own TPM: seals the root key and counts the store's heads. Jobs are short and run
//! on the TPM's own thread; this side only waits.

use anchor::TpmCounter;
use model::Secret;
use thiserror::Error;
use tpm::{
    Actor, ActorError, Address, Auth, AuthValue, Hierarchy, KeyBlob, PcrSelection, Policy, Tpm,
    TpmError, template,
};

/// NV index of the counter that anchors the store, in the owner's range.
const COUNTER: u32 = 0x0180_5601;

/// The TPM did not do what it was asked.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// Its thread is gone.
    #[error("the authority's TPM cannot be used")]
    Actor(#[from] ActorError),
    /// A selected PCR has no value.
    #[error("the TPM has no SHA-256 bank with all of `seal_pcrs`")]
    Pcrs,
    /// Its own answer, or none.
    #[error("the authority's TPM refused or did not answer")]
    Tpm(#[from] TpmError),
}

/// A handle to the authority's TPM.
#[derive(Clone, Debug)]
pub(crate) struct TpmLink(Actor);

impl TpmLink {
    /// The TPM at `address`; nothing is sent yet.
    ///
    /// # Errors
    /// [`LinkError::Actor`].
    pub(crate) fn new(address: Address) -> Result<Self, LinkError> {
        Ok(Self(Actor::start(address)?))
    }

    async fn job<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Tpm) -> Result<R, LinkError> + Send + 'static,
    ) -> Result<R, LinkError> {
        let actor = self.0.clone();
        tokio::task::spawn_blocking(move || actor.run(job))
            .await
            .map_err(|_| LinkError::Actor(ActorError::Gone))?
    }

    /// Seals the root key to this TPM and to the present values of `pcrs`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn seal(
        &self,
        key: Secret<Vec<u8>>,
        pcrs: Vec<u8>,
    ) -> Result<Vec<u8>, LinkError> {
        self.job(move |tpm| {
            let parent = storage_root(tpm)?;
            let policy = policy(tpm, &pcrs)?;
            Ok(tpm.seal(&parent, &policy.digest(), &key)?.to_bytes()?)
        })
        .await
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// [`LinkError`]; [`TpmError::is_policy_refusal`] if the PCRs have changed.
    pub(crate) async fn unseal(
        &self,
        blob: KeyBlob,
        pcrs: Vec<u8>,
    ) -> Result<Secret<Vec<u8>>, LinkError> {
        self.job(move |tpm| {
            let parent = storage_root(tpm)?;
            let policy = policy(tpm, &pcrs)?;
            Ok(tpm.unseal(&parent, &blob, &policy)?)
        })
        .await
    }

    /// The counter that the store's head is anchored in.
    pub(crate) fn counter(&self) -> TpmCounter {
        TpmCounter::new(self.0.clone(), COUNTER)
    }
}

fn storage_root(tpm: &mut Tpm) -> Result<tpm::Object, LinkError> {
    let template = template::srk_p256();
    Ok(tpm.create_primary(Hierarchy::Owner, Auth::none(), &template, &AuthValue::empty())?)
}

fn policy(tpm: &mut Tpm, pcrs: &[u8]) -> Result<Policy, LinkError> {
    if pcrs.is_empty() {
        return Ok(Policy::new());
    }
    let selection = PcrSelection::sha256(pcrs);
    let values = tpm.pcr_read(&selection)?;
    Policy::new().pcr(&selection, &values).ok_or(LinkError::Pcrs)
}
