//! The host's TPM: identity, quotes, random keys, and the seal around the cache key. One actor; the
//! keys that are used stay at their persistent handles.

mod resident;

use model::{Digest, Secret};
use serve::exit::chain;
use tpm::{
    Actor, Address, Auth, AuthValue, Credential, Hierarchy, KeyBlob, NvAttributes, NvPublic,
    Object, PcrSelection, Policy, Public, QualifyingData, Quote, Tpm, TpmError, handle, lease,
    template,
};

use crate::trouble::Trouble;

/// How far the policy counter is counted up at once: a TPM wears out by counting.
const COUNTER_STEPS: u64 = 64;

/// A handle to the host's TPM.
#[derive(Clone, Debug)]
pub(crate) struct HostTpm {
    actor: Actor,
    software: bool,
}

/// What enrolment shows of the TPM.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// EK certificate, DER, as the TPM's NV holds it.
    pub(crate) ek_certificate: Option<Vec<u8>>,
    /// EK, TPMT_PUBLIC.
    pub(crate) ek: Public,
    /// AK, TPMT_PUBLIC.
    pub(crate) ak: Public,
}

impl HostTpm {
    /// Starts the actor; nothing is opened yet.
    ///
    /// # Errors
    /// [`Trouble`] if the address is malformed.
    pub(crate) fn start(address: &str) -> Result<Self, Trouble> {
        let place: Address = address
            .parse()
            .map_err(|error| Trouble::failed(format!("tpm = {address:?}: {}", chain(&error))))?;
        let software = place.is_software();
        let actor = Actor::start(place).map_err(|error| Trouble::failed(chain(&error)))?;
        Ok(Self { actor, software })
    }

    /// Whether it can only be a software TPM.
    pub(crate) const fn is_software(&self) -> bool {
        self.software
    }

    async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Tpm) -> Result<R, TpmError> + Send + 'static,
    ) -> Result<R, TpmError> {
        let actor = self.actor.clone();
        let task = tokio::task::spawn_blocking(move || actor.run(job));
        task.await.unwrap_or(Err(TpmError::Unstable))
    }

    /// EK certificate, EK and AK; makes EK and AK persistent if they are not.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn identity(&self) -> Result<Identity, TpmError> {
        self.run(|tpm| {
            let ek_certificate = match tpm.nv_public(handle::EK_CERT_P256)? {
                Some(_) => Some(read_certificate(tpm)?),
                None => None,
            };
            let (ek, ak) = (ek(tpm)?, ak(tpm)?);
            Ok(Identity { ek_certificate, ek: ek.public().clone(), ak: ak.public().clone() })
        })
        .await
    }

    /// Opens a credential that was made for this TPM's EK and AK.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn activate(
        &self,
        credential: Credential,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        self.run(move |tpm| {
            let (ek, ak) = (ek(tpm)?, ak(tpm)?);
            let empty = AuthValue::empty();
            tpm.activate_credential(&ak, &empty, &ek, &empty, &credential)
        })
        .await
    }

    /// A quote by the AK over PCRs of the SHA-256 bank, with the AK's public area.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn quote(
        &self,
        qualifying: QualifyingData,
        pcrs: Vec<u8>,
    ) -> Result<(Quote, Public), TpmError> {
        self.run(move |tpm| {
            let ak = ak(tpm)?;
            let selection = PcrSelection::sha256(&pcrs);
            let quote = tpm.quote(&ak, &AuthValue::empty(), &qualifying, &selection)?;
            Ok((quote, ak.public().clone()))
        })
        .await
    }

    /// Random bytes of the TPM's generator, encrypted on their way.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn random_key(&self) -> Result<Secret<Vec<u8>>, TpmError> {
        self.run(|tpm| {
            let ek = ek(tpm)?;
            let mut session = tpm.start_hmac_session(&ek)?;
            let mut key = Secret::new(Vec::with_capacity(32));
            while key.expose().len() < 32 {
                let missing = u16::try_from(32 - key.expose().len()).unwrap_or(32);
                let part = tpm.secret_random(missing, &mut session)?;
                key.expose_mut().extend_from_slice(part.expose());
            }
            tpm.end_session(session)?;
            Ok(key)
        })
        .await
    }

    /// SHA-256 over the present values of PCRs of the SHA-256 bank, as a quote would tell it.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn pcr_digest(&self, pcrs: Vec<u8>) -> Result<Digest, TpmError> {
        self.run(move |tpm| {
            let selection = PcrSelection::sha256(&pcrs);
            let digest = tpm.pcr_read(&selection)?.digest(&selection);
            digest.map(Digest::sha256).ok_or(TpmError::Policy("a PCR is not there"))
        })
        .await
    }

    /// The policy counter of the guard; defined and counted once if it is not there.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn guard_counter(&self) -> Result<u64, TpmError> {
        self.run(|tpm| counter(tpm, handle::GUARD_COUNTER)).await
    }

    /// Counts the policy counter up to `at_least`.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::Policy`] if it is too far.
    pub(crate) async fn raise_guard_counter(&self, at_least: u64) -> Result<(), TpmError> {
        self.run(move |tpm| {
            let mut now = counter(tpm, handle::GUARD_COUNTER)?;
            if at_least.saturating_sub(now) > COUNTER_STEPS {
                return Err(TpmError::Policy("the policy counter is too far behind"));
            }
            while now < at_least {
                tpm.nv_increment(None, Auth::none(), handle::GUARD_COUNTER)?;
                now = now.saturating_add(1);
            }
            Ok(())
        })
        .await
    }

    /// The counter that the table of anchors is anchored in.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn anchor_counter(&self) -> Result<u64, TpmError> {
        self.run(|tpm| counter(tpm, handle::ANCHOR_COUNTER)).await
    }

    /// Increments it if it is `from`, and says whether it did.
    ///
    /// # Errors
    /// [`TpmError`]; whether it was incremented is unknown then.
    pub(crate) async fn increment_anchor_counter(&self, from: u64) -> Result<bool, TpmError> {
        self.run(move |tpm| {
            if counter(tpm, handle::ANCHOR_COUNTER)? != from {
                return Ok(false);
            }
            tpm.nv_increment(None, Auth::none(), handle::ANCHOR_COUNTER)?;
            Ok(counter(tpm, handle::ANCHOR_COUNTER)? == from.saturating_add(1))
        })
        .await
    }

    /// Seals under the storage root key.
    ///
    /// # Errors
    /// [`TpmError`].
    pub(crate) async fn seal(
        &self,
        policy: [u8; 32],
        data: Secret<Vec<u8>>,
    ) -> Result<KeyBlob, TpmError> {
        self.run(move |tpm| {
            let parent = storage_root(tpm)?;
            tpm.seal(&parent, &policy, &data)
        })
        .await
    }

    /// Unseals what [`Self::seal`] made, if the policy holds now.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::is_policy_refusal`] tells whether the policy does not hold.
    pub(crate) async fn unseal(
        &self,
        blob: KeyBlob,
        policy: Policy,
    ) -> Result<Secret<Vec<u8>>, TpmError> {
        self.run(move |tpm| {
            let parent = storage_root(tpm)?;
            tpm.unseal(&parent, &blob, &policy)
        })
        .await
    }
}

/// The value of one of the agent's counters; defined and counted once if it is not there.
fn counter(tpm: &mut Tpm, index: u32) -> Result<u64, TpmError> {
    let expected = NvPublic { index, ..lease::counter() };
    let found = match tpm.nv_public(expected.index)? {
        Some(found) => found,
        None => {
            tpm.nv_define(Hierarchy::Owner, Auth::none(), &expected, &AuthValue::empty())?;
            expected.clone()
        }
    };
    if found.written() != expected.written() {
        return Err(TpmError::Policy("a counter's NV index is used for something else"));
    }
    if !found.attributes.contains(NvAttributes::WRITTEN) {
        tpm.nv_increment(None, Auth::none(), expected.index)?;
    }
    tpm.nv_read_counter(None, &mut Auth::none(), expected.index)
}

fn ek(tpm: &mut Tpm) -> Result<Object, TpmError> {
    match tpm.persistent(handle::EK)? {
        Some(ek) => Ok(ek),
        None => {
            let template = template::ek_p256();
            let empty = AuthValue::empty();
            let ek = tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &template, &empty)?;
            tpm.persist(Hierarchy::Owner, Auth::none(), &ek, handle::EK)
        }
    }
}

/// The AK is a primary key of the endorsement hierarchy, made persistent once.
fn ak(tpm: &mut Tpm) -> Result<Object, TpmError> {
    match tpm.persistent(handle::HOST_AK)? {
        Some(ak) => Ok(ak),
        None => {
            let template = template::ak_p256();
            let empty = AuthValue::empty();
            let ak = tpm.create_primary(Hierarchy::Endorsement, Auth::none(), &template, &empty)?;
            tpm.persist(Hierarchy::Owner, Auth::none(), &ak, handle::HOST_AK)
        }
    }
}

fn storage_root(tpm: &mut Tpm) -> Result<Object, TpmError> {
    match tpm.persistent(handle::SRK)? {
        Some(root) => Ok(root),
        None => {
            let template = template::srk_p256();
            tpm.create_primary(Hierarchy::Owner, Auth::none(), &template, &AuthValue::empty())
        }
    }
}

/// The NV index may be larger than the certificate; DER says where it ends.
fn read_certificate(tpm: &mut Tpm) -> Result<Vec<u8>, TpmError> {
    let content = tpm.nv_read(None, &mut Auth::none(), handle::EK_CERT_P256)?;
    let length = match content.get(..4) {
        Some(&[0x30, 0x82, high, low]) => {
            usize::from(u16::from_be_bytes([high, low])).saturating_add(4)
        }
        _ => content.len(),
    };
    Ok(content.get(..length).unwrap_or(&content).to_vec())
}
