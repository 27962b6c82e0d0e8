//! How a host becomes known: a one-time token, a TPM whose maker we trust, and the proof that this
//! TPM holds the AK (credential activation).
//!
//! ```text
//! token ─► EK certificate to its maker ─► AK attributes ─► name free ─► challenge
//! challenge ─► secret as it was ─► AK certificate, record `pending`
//! ```

use attest::{Rejection as Evidence, host::check_ak_attributes};
use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use axum::extract::State;
use model::{
    HostId, OperationId, Secret,
    api::{
        Bytes,
        enrol::{EnrolChallenge, EnrolProof, EnrolRequest, Enrolled, TokenAnswer, TokenRequest},
    },
};
use pki::{Profile, Verified, tcg::TpmModel};
use serve::random;
use thiserror::Error;
use tpm::{Public, software};

use super::{
    Route, Who,
    gate::{Answer, Body, Named, Outcome},
    shape::Shape,
};
use crate::{
    app::{App, Shared, lock},
    audit::{Actor, Done},
    caller::{Anyone, Operator},
    failure::Failure,
    keyring::Keyring,
    record::{
        host::{HostRecord, HostRejection, Identity},
        token::{PendingEnrolment, TokenRecord, TokenRejection},
    },
    records::{self, Write},
    refusal::{Refusal, Rejection},
};

/// How long a challenge waits for its secret, milliseconds.
const CHALLENGE_LIFE: u64 = 120_000;
/// TCG vendor identifiers of software TPMs: IBM, who wrote libtpms and the reference simulator.
const SOFTWARE_VENDORS: [&str; 2] = ["id:00001014", "id:49424D00"];

/// The operations.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/tokens",
            (Who::Operator, "token-issued"),
            "Ask for a one-time enrolment token for one host name",
            Shape::of::<TokenAnswer>(),
            token,
        )
        .takes(Shape::of::<TokenRequest>()),
        Route::post(
            "/v1/hosts/enrol",
            (Who::Anyone, "host-enrolment"),
            "Present a host's TPM",
            Shape::of::<EnrolChallenge>(),
            begin,
        )
        .takes(Shape::of::<EnrolRequest>()),
        Route::post(
            "/v1/hosts/enrol/{enrolment}",
            (Who::Anyone, "host-enrolment"),
            "Prove that the TPM holds both keys",
            Shape::of::<Enrolled>(),
            prove,
        )
        .takes(Shape::of::<EnrolProof>()),
    ]
}

/// Why a TPM is not enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum EnrolRejection {
    /// The secret is not the one in the credential.
    #[error("the secret is not the one in the credential: EK and AK are not in one TPM")]
    CredentialMismatch,
    /// No such enrolment is under way.
    #[error("no such enrolment is under way")]
    EnrolmentUnknown,
    /// The EK's certificate does not hold.
    #[error("the EK is not trusted: {0}")]
    EkUntrusted(String),
}

impl Rejection for EnrolRejection {
    fn name(&self) -> &'static str {
        match self {
            Self::CredentialMismatch => "credential-mismatch",
            Self::EnrolmentUnknown => "enrolment-unknown",
            Self::EkUntrusted(_) => "ek-untrusted",
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::CredentialMismatch | Self::EnrolmentUnknown => "enrol the host again",
            Self::EkUntrusted(_) => "`ek_roots` names the TPM makers that are trusted",
        }
    }
}

impl Rejection for Evidence {
    fn name(&self) -> &'static str {
        self.code()
    }

    fn hint(&self) -> &'static str {
        self.hint()
    }
}

fn token_digest(token: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, token.trim().as_bytes()))
}

async fn token(
    State(app): State<App>,
    operator: Operator,
    Body(request): Body<TokenRequest>,
) -> Outcome<TokenAnswer> {
    let answer = new_token(&app, &request.host, false).await?;
    let done = Done::new("token-issued", subject_of(&request.host));
    app.audit.done(&operator.actor(), done).await?;
    Ok(Answer(answer))
}

/// Makes a token. `replaces`: it admits another TPM in the place of the one that has the name.
pub(super) async fn new_token(
    app: &App,
    host: &HostId,
    replaces: bool,
) -> Result<TokenAnswer, Failure> {
    let token = hex::encode(random::secret::<32>()?.expose());
    let life = app.policy().token_life_s.saturating_mul(1000);
    let expires_at = app.now().saturating_add(life);
    let record = TokenRecord { host: host.clone(), expires_at, used_by: None, replaces };
    let write = Write::new().put(records::token(&token_digest(&token))?, &record, 0)?;
    app.records.commit(write).await?;
    Ok(TokenAnswer { token, expires_at })
}

async fn begin(
    State(app): State<App>,
    _anyone: Anyone,
    Body(request): Body<EnrolRequest>,
) -> Outcome<EnrolChallenge> {
    let subject = format!("host:{}", request.host);
    let answer = consider(&app, request).await.map_err(|failure| failure.about(subject))?;
    Ok(Answer(answer))
}

async fn consider(app: &App, request: EnrolRequest) -> Result<EnrolChallenge, Failure> {
    let now = app.now();
    let token = token_digest(&request.token);
    let record = app.records.get(&records::token(&token)?).await?;
    let record = record.ok_or(TokenRejection::Unknown)?.value;
    let invalid = |what: &str| Failure::refused(Refusal::invalid(format!("{what} is malformed")));
    let ak = Public::parse(&request.ak_public.0).map_err(|_| invalid("ak_public"))?;
    let ek = Public::parse(&request.ek_public.0).map_err(|_| invalid("ek_public"))?;
    let ak_name = ak.name().to_string();
    record.admits(&request.host, &ak_name, now)?;
    let replaces = record.replaces;
    let ek_issuer = check_ek(app, &request, &ek)?;
    check_ak_attributes(&ak)?;
    if let Some(known) = app.records.get(&records::host(&request.host)?).await? {
        match known.value.admits(ek.as_bytes(), ak.as_bytes()) {
            Err(HostRejection::Taken) if replaces => known.value.may_be_replaced()?,
            other => other?,
        }
    }
    let secret = random::secret::<32>()?;
    let wrapped = Secret::new(secret.expose().to_vec());
    let credential = software::make_credential(&ek, &ak.name(), &wrapped)
        .map_err(|error| EnrolRejection::EkUntrusted(error.to_string()))?;
    let enrolment = random::operation_id()?;
    let pending = PendingEnrolment {
        host: request.host,
        token,
        secret,
        ek_certificate: request.ek_certificate,
        ek_issuer,
        ek_public: request.ek_public,
        ak_public: request.ak_public,
        ak_name,
        expires_at: now.saturating_add(CHALLENGE_LIFE),
    };
    remember(app, enrolment, pending);
    Ok(EnrolChallenge {
        enrolment,
        credential_blob: Bytes(credential.id_object),
        encrypted_secret: Bytes(credential.encrypted_seed),
    })
}

/// The EK's certificate leads to a trusted maker, is for this key, and for a TPM of an allowed kind.
/// Returns its issuer's name.
fn check_ek(app: &Shared, request: &EnrolRequest, ek: &Public) -> Result<String, Failure> {
    let intermediates: Vec<&[u8]> =
        request.ek_intermediates.iter().map(|bytes| bytes.0.as_slice()).collect();
    let verified = pki::verify_chain(
        &request.ek_certificate.0,
        &intermediates,
        &app.ek_roots.anchors,
        app.date(),
        pki::Purpose::EndorsementKey,
    );
    let verified = verified.map_err(|rejection| {
        EnrolRejection::EkUntrusted(format!("{}: {rejection}", rejection.code()))
    })?;
    if ek.spki_der().ok().as_deref() != Some(verified.spki()) {
        let why = "the certificate is for another key".to_owned();
        return Err(EnrolRejection::EkUntrusted(why).into());
    }
    if is_software(verified.tpm()) && !app.config.allow_software_tpm {
        let why = "software TPMs are for the lab (allow_software_tpm)".to_owned();
        return Err(EnrolRejection::EkUntrusted(why).into());
    }
    Ok(issuer(&verified))
}

/// Whether an EK certificate says that its TPM is software.
pub(crate) fn is_software(model: Option<&TpmModel>) -> bool {
    model.is_some_and(|model| {
        SOFTWARE_VENDORS.iter().any(|vendor| model.manufacturer.eq_ignore_ascii_case(vendor))
    })
}

fn issuer(verified: &Verified) -> String {
    verified.issuer()
}

/// Keeps an enrolment under way; of too many, the oldest goes.
fn remember(app: &Shared, id: OperationId, pending: PendingEnrolment) {
    let now = app.now();
    let mut enrolments = lock(&app.enrolments);
    enrolments.retain(|_, pending| now < pending.expires_at);
    while enrolments.len() >= app.config.limits.enrolments.max(1) {
        let oldest = enrolments.iter().min_by_key(|(_, pending)| pending.expires_at);
        let Some(id) = oldest.map(|(id, _)| *id) else { break };
        enrolments.remove(&id);
    }
    enrolments.insert(id, pending);
}

async fn prove(
    State(app): State<App>,
    _anyone: Anyone,
    Named(enrolment): Named<OperationId>,
    Body(proof): Body<EnrolProof>,
) -> Outcome<Enrolled> {
    let now = app.now();
    let pending = lock(&app.enrolments).remove(&enrolment);
    let pending = pending
        .filter(|pending| now < pending.expires_at)
        .ok_or(EnrolRejection::EnrolmentUnknown)?;
    let subject = format!("host:{}", pending.host);
    let same = verify_slices_are_equal(&proof.secret.0, pending.secret.expose());
    if same.is_err() {
        return Err(Failure::from(EnrolRejection::CredentialMismatch).about(subject));
    }
    let host = admit(&app, &pending).await.map_err(|failure| failure.about(subject.clone()))?;
    let done = Done::new("host-enrolled", subject)
        .detail(format!("AK {}, EK {}", host.identity.ak_name, host.identity.ek_fingerprint));
    app.audit.done(&Actor::anyone(), done).await?;
    Ok(Answer(Enrolled {
        mode: host.mode,
        ak_certificate: host.identity.ak_certificate,
        ca_certificate: Bytes(app.keys.ca.certificate().to_vec()),
        signing_key: Bytes(app.keys.signer.spki().to_vec()),
    }))
}

/// Writes the host's record and uses up the token, in one transaction.
async fn admit(app: &App, pending: &PendingEnrolment) -> Result<HostRecord, Failure> {
    loop {
        let token = app.records.get(&records::token(&pending.token)?).await?;
        let token = token.ok_or(TokenRejection::Unknown)?;
        token.value.admits(&pending.host, &pending.ak_name, app.now())?;
        let known = app.records.get(&records::host(&pending.host)?).await?;
        let (host, version) = match known {
            Some(known) => {
                let admitted = known.value.admits(&pending.ek_public.0, &pending.ak_public.0);
                let host = match admitted {
                    Err(HostRejection::Taken) if token.value.replaces => {
                        known.value.may_be_replaced()?;
                        known.value.replaced(identity(app, pending)?, app.now())
                    }
                    other => other.map(|()| known.value)?,
                };
                (host, known.version)
            }
            None => {
                let identity = identity(app, pending)?;
                (HostRecord::enrolled(pending.host.clone(), identity, app.now()), 0)
            }
        };
        let used = token.value.used(&pending.ak_name);
        let write = Write::new().put(records::token(&pending.token)?, &used, token.version)?.put(
            records::host(&pending.host)?,
            &host,
            version,
        )?;
        if app.records.commit(write).await? {
            return Ok(host);
        }
    }
}

fn identity(app: &App, pending: &PendingEnrolment) -> Result<Identity, Failure> {
    let ak = Public::parse(&pending.ak_public.0).map_err(|_| Failure::broken("AK changed"))?;
    let spki = ak.spki_der().map_err(|_| Failure::broken("AK changed"))?;
    let profile = Profile::HostAk { host: pending.host.clone() };
    let certificate = Keyring::device(&app.keys.ca, &profile, &spki, app.date())?;
    let fingerprint = digest::digest(&digest::SHA256, &pending.ek_certificate.0);
    Ok(Identity {
        ek_certificate: pending.ek_certificate.clone(),
        ek_fingerprint: hex::encode(fingerprint),
        ek_issuer: pending.ek_issuer.clone(),
        ek_public: pending.ek_public.clone(),
        ak_public: pending.ak_public.clone(),
        ak_name: pending.ak_name.clone(),
        ak_certificate: Bytes(certificate),
    })
}

/// Names of hosts are subjects in the audit log.
pub(crate) fn subject_of(host: &HostId) -> String {
    format!("host:{host}")
}
