//! Trusted proof, both ways: the service's passport before anything is sent to it, then this VM and
//! this client by the VM's TPM.
//!
//! ```text
//! TLS: passport of an attested host? ─► challenge(EK certificate, EK, fresh AK)
//!   ─► credential opened by the TPM, quote over boot PCRs and PCR 10, bound to nonce and connection
//!   ─► IMA's list ─► attest ─► admitted
//! ```
//!
//! **Invariants:** the AK is made for one proof and leaves no trace; the list is read after the
//! quote, so nothing that was quoted is missing from it; the credential's secret answers the service
//! alone.

pub mod knowledge;
pub mod passport;

use std::path::PathBuf;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use model::{
    Digest, HashAlg, VmId,
    api::Bytes,
    guest::{
        Admitted, ChallengeAsk, ChannelEvidence, GuestChallenge, IMA_PCR, MAX_CERTIFICATE, MAX_IMA,
        PCRS,
    },
    keys::order::SecretBytes,
};
use thiserror::Error;
use tpm::{
    Address, Auth, AuthValue, Connect as _, Credential, Hierarchy, Object, PcrSelection, Purpose,
    QualifyingData, Tpm, TpmError, TransportError, handle, template,
};

use crate::{
    config::{self, ConfigError},
    service::{Connection, ServiceError},
};

/// Why there is no proof.
#[derive(Debug, Error)]
pub enum ProofError {
    /// The TPM cannot be reached.
    #[error("the TPM cannot be reached")]
    Reach(#[from] TransportError),
    /// The TPM.
    #[error("the TPM did not do it")]
    Tpm(#[from] TpmError),
    /// IMA's list.
    #[error("IMA's list cannot be read")]
    Ima(#[from] ConfigError),
    /// The service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The connection has no TLS that a proof could be bound to.
    #[error("this connection cannot carry a proof")]
    Unbound,
}

/// What proves this VM.
#[derive(Clone, Debug)]
pub struct Prover {
    /// The VM's TPM.
    pub tpm: Address,
    /// IMA's list.
    pub ima_log: PathBuf,
    /// The VM's name, which a port has and a network has not.
    pub vm: Option<VmId>,
}

/// A proof under way.
#[derive(Debug)]
pub struct Begun {
    /// What the AK is made from.
    unique: [u8; 64],
    /// What to ask the challenge with.
    pub ask: ChallengeAsk,
}

impl Prover {
    /// Proves this VM and this client on `connection`.
    ///
    /// # Errors
    /// [`ProofError`]; [`ServiceError::Refused`] in it names the rule that said no.
    pub fn prove(&self, connection: &mut Connection) -> Result<Admitted, ProofError> {
        let exporter = connection.exporter()?.ok_or(ProofError::Unbound)?;
        let begun = self.begin()?;
        let challenge: GuestChallenge = connection.post_json("/guest/v1/challenge", &begun.ask)?;
        let evidence = self.answer(&begun, &challenge, &exporter)?;
        Ok(connection.post_json("/guest/v1/attest", &evidence)?)
    }

    /// Makes an AK for one proof.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn begin(&self) -> Result<Begun, ProofError> {
        let mut unique = [0; 64];
        SystemRandom::new()
            .fill(&mut unique)
            .map_err(|_| TpmError::Crypto("no randomness for a key"))?;
        let ask = self.scoped(|tpm| {
            let ek = endorsement_key(tpm)?;
            let index = handle::EK_CERT_P256;
            let certificate = tpm.nv_read(None, &mut Auth::Password(&AuthValue::empty()), index)?;
            if certificate.len() > MAX_CERTIFICATE {
                return Err(TpmError::TooLong);
            }
            let ak = attestation_key(tpm, &unique)?;
            Ok(ChallengeAsk {
                vm: self.vm.clone(),
                ek_certificate: Bytes(certificate.to_vec()),
                ek: Bytes(ek.public().as_bytes().to_vec()),
                ak: Bytes(ak.public().as_bytes().to_vec()),
            })
        })?;
        Ok(Begun { unique, ask })
    }

    /// Answers a challenge that came on the connection with this exporter.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn answer(
        &self,
        begun: &Begun,
        challenge: &GuestChallenge,
        exporter: &[u8; 32],
    ) -> Result<ChannelEvidence, ProofError> {
        let hashed = digest(&SHA256, exporter);
        let channel = Digest::new(HashAlg::Sha256, hashed.as_ref());
        let channel = channel.map_err(|_| ProofError::Unbound)?;
        let qualifying =
            QualifyingData::bind(Purpose::GuestChannel, &challenge.nonce, &[channel.as_bytes()]);
        let credential = Credential {
            id_object: challenge.id_object.0.clone(),
            encrypted_seed: challenge.encrypted_seed.0.clone(),
        };
        let none = AuthValue::empty();
        let (secret, quote) = self.scoped(|tpm| {
            let ek = endorsement_key(tpm)?;
            let ak = attestation_key(tpm, &begun.unique)?;
            let secret = tpm.activate_credential(&ak, &none, &ek, &none, &credential)?;
            let quote = tpm.quote(&ak, &none, &qualifying, &PcrSelection::sha256(&PCRS))?;
            Ok((secret, quote))
        })?;
        let limit = u64::try_from(MAX_IMA).unwrap_or(0);
        let ima_log = config::read_bounded(&self.ima_log, limit)?;
        let ima_value = quote.pcrs.get(HashAlg::Sha256, IMA_PCR).copied();
        Ok(ChannelEvidence {
            nonce: challenge.nonce,
            channel,
            secret: SecretBytes::new(secret),
            quote: Bytes(quote.attest),
            signature: Bytes(quote.signature),
            ima_value: ima_value.unwrap_or(Digest::zero(HashAlg::Sha256)),
            ima_log: Bytes(ima_log),
        })
    }

    fn scoped<T>(
        &self,
        job: impl FnOnce(&mut Tpm) -> Result<T, TpmError>,
    ) -> Result<T, ProofError> {
        let mut address = self.tpm.clone();
        Ok(Tpm::new(address.connect()?).scoped(job)?)
    }
}

/// The EK where manufacturing put it; else derived again.
fn endorsement_key(tpm: &mut Tpm) -> Result<Object, TpmError> {
    if let Some(ek) = tpm.persistent(handle::EK)? {
        return Ok(ek);
    }
    let none = AuthValue::empty();
    tpm.create_primary(Hierarchy::Endorsement, Auth::Password(&none), &template::ek_p256(), &none)
}

/// The AK of one proof: the same again from the same bytes.
fn attestation_key(tpm: &mut Tpm, unique: &[u8; 64]) -> Result<Object, TpmError> {
    let none = AuthValue::empty();
    let template = template::ak_p256_unique(unique);
    tpm.create_primary(Hierarchy::Endorsement, Auth::Password(&none), &template, &none)
}
