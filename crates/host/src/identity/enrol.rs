//! Enrolment: the TPM shows its EK and AK, opens the credential that was made for both, and the
//! authority's keys are learnt. Done once; the token is consumed.

use std::path::{Path, PathBuf};

use model::{
    HostId,
    api::{
        Bytes,
        enrol::{EnrolChallenge, EnrolProof, EnrolRequest, Enrolled},
    },
};
use serde::{Deserialize, Serialize};
use serve::{
    client::{Call, Client},
    fsfile,
};
use tpm::Credential;

use crate::{config::Config, hosttpm::HostTpm, trouble::Trouble};

const LIMIT: usize = 1 << 20;

/// What the host keeps of its enrolment. Nothing in it is secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrolment {
    /// The host's name.
    pub(crate) host: HostId,
    /// AK certificate by the privacy CA, DER.
    pub(crate) ak_certificate: Bytes,
    /// The authority's CA, DER.
    pub(crate) ca_certificate: Bytes,
    /// Key that signs grants and verdicts, SubjectPublicKeyInfo.
    pub(crate) signing_key: Bytes,
}

fn place(config: &Config) -> PathBuf {
    config.state_dir.join("host.json")
}

/// The enrolment: read back, or made with the token.
///
/// # Errors
/// [`Trouble`]; [`Trouble::away`] if the authority cannot be reached.
pub(crate) async fn enrol(
    config: &Config,
    tpm: &HostTpm,
    client: &Client,
) -> Result<Enrolment, Trouble> {
    match fsfile::read_limited(&place(config), LIMIT) {
        Ok(bytes) => {
            let known: Enrolment = serde_json::from_slice(&bytes)?;
            if known.host == config.name {
                return Ok(known);
            }
            return Err(Trouble::failed(format!(
                "this host is enrolled as {}, the configuration says {}",
                known.host, config.name
            )));
        }
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error.into()),
    }
    let enrolled = ask(config, tpm, client).await?;
    let enrolment = Enrolment {
        host: config.name.clone(),
        ak_certificate: enrolled.ak_certificate,
        ca_certificate: enrolled.ca_certificate,
        signing_key: enrolled.signing_key,
    };
    fsfile::write_atomic(&place(config), &serde_json::to_vec(&enrolment)?, 0o600)?;
    if let Some(token) = &config.token_file {
        fsfile::remove(token)?;
    }
    tracing::info!(host.id = %config.name, mode = ?enrolled.mode, "enrolled");
    Ok(enrolment)
}

async fn ask(config: &Config, tpm: &HostTpm, client: &Client) -> Result<Enrolled, Trouble> {
    let token = read_token(config.token_file.as_deref())?;
    let identity = tpm.identity().await?;
    let ek_certificate = match (&identity.ek_certificate, &config.ek_certificate) {
        (Some(der), _) => der.clone(),
        (None, Some(file)) => fsfile::read_limited(file, LIMIT)?,
        (None, None) => {
            return Err(Trouble::failed(
                "the TPM holds no P-256 EK certificate; set ek_certificate to its file",
            ));
        }
    };
    let mut ek_intermediates = Vec::new();
    for file in &config.ek_intermediates {
        ek_intermediates.push(Bytes(fsfile::read_limited(file, LIMIT)?));
    }
    let request = EnrolRequest {
        host: config.name.clone(),
        token,
        ek_certificate: ek_certificate.into(),
        ek_intermediates,
        ek_public: identity.ek.as_bytes().to_vec().into(),
        ak_public: identity.ak.as_bytes().to_vec().into(),
    };
    let challenge: EnrolChallenge =
        client.call(Call::post("/v1/hosts/enrol").json(&request)?).await?;
    let credential = Credential {
        id_object: challenge.credential_blob.0,
        encrypted_seed: challenge.encrypted_secret.0,
    };
    let secret = tpm.activate(credential).await?;
    let proof = EnrolProof { secret: secret.expose().clone().into() };
    let path = format!("/v1/hosts/enrol/{}", challenge.enrolment);
    Ok(client.call(Call::post(path).json(&proof)?).await?)
}

fn read_token(file: Option<&Path>) -> Result<String, Trouble> {
    let Some(file) = file else {
        return Err(Trouble::failed("this host is not enrolled and token_file is not set"));
    };
    let bytes = fsfile::read_secret(file, 256)?;
    let text = std::str::from_utf8(bytes.expose())
        .map_err(|_| Trouble::failed("the enrolment token is not text"))?;
    Ok(text.trim().to_owned())
}
