//! Keys that live in the host's TPM, for services of this host; see [`model::agent::resident`].
//!
//! **Invariants:** a key goes only where the authority says at this moment, and the TPM checks that
//! word itself; a key that comes is one that may go on like that.

use axum::extract::State;
use http::StatusCode;
use model::{
    agent::resident::{Agreed, Agreement, Departure, ParentFor, ResidentKey, Travelling},
    api::{
        Bytes,
        duplication::{DuplicationApproval, DuplicationRequest, StorageParent},
    },
    keys::order::SecretBytes,
};
use serve::{
    exit::chain,
    problem::{Json, Problem},
};
use tpm::{KeyBlob, Public, TpmError, lease::Approver, resident};

use super::{Local, problem};
use crate::trouble::Trouble;

/// `POST /v1/keys`.
pub(super) async fn make(State(local): State<Local>) -> Result<Json<ResidentKey>, Problem> {
    let made = local.host.tpm.make_key(approver(&local)?).await;
    Ok(Json(shown(&made.map_err(failed)?)?))
}

/// `POST /v1/keys/agree`.
pub(super) async fn agree(
    State(local): State<Local>,
    Json(asked): Json<Agreement>,
) -> Result<Json<Agreed>, Problem> {
    let agreed = local.host.tpm.agree(blob(&asked.blob)?, asked.point.0).await.map_err(failed)?;
    Ok(Json(Agreed { secret: SecretBytes::new(agreed) }))
}

/// `POST /v1/keys/parent`.
pub(super) async fn parent(
    State(local): State<Local>,
    Json(asked): Json<ParentFor>,
) -> Result<Json<StorageParent>, Problem> {
    let own = &local.host.config.name;
    let qualifying = resident::qualifying(&asked.migration, &asked.source, own);
    let (public, certified) = local.host.tpm.key_parent(qualifying).await.map_err(failed)?;
    Ok(Json(StorageParent {
        public: Bytes(public.as_bytes().to_vec()),
        attest: Bytes(certified.attest),
        signature: Bytes(certified.signature),
    }))
}

/// `POST /v1/keys/duplicate`.
pub(super) async fn duplicate(
    State(local): State<Local>,
    Json(asked): Json<Departure>,
) -> Result<Json<Travelling>, Problem> {
    let blob = blob(&asked.blob)?;
    let parent = Public::parse(&asked.parent.public.0).map_err(|_| invalid("parent"))?;
    let session = local.host.link.session().map_err(|trouble| problem(&trouble))?;
    let request = DuplicationRequest {
        migration: asked.migration,
        target: asked.target,
        key: Bytes(blob.public.name().as_bytes().to_vec()),
        parent: asked.parent,
    };
    let answer = session.client.post("/v1/duplications", &request).await;
    let approval: DuplicationApproval = answer.map_err(|error| problem(&Trouble::from(error)))?;
    let word = (approver(&local)?, approval.signature.0);
    let sent = local.host.tpm.send_key(blob, parent, word).await;
    let sent = sent.map_err(|error| match error.is_policy_refusal() {
        true => refused("key-parent-foreign", "the TPM does not give the key to this parent"),
        false => failed(error),
    })?;
    Ok(Json(sent))
}

/// `POST /v1/keys/import`.
pub(super) async fn import(
    State(local): State<Local>,
    Json(came): Json<Travelling>,
) -> Result<Json<ResidentKey>, Problem> {
    let taken = local.host.tpm.take_key(came, approver(&local)?).await;
    let taken = taken.map_err(|error| {
        tracing::warn!(error = chain(&error), "a key that came is not taken");
        let ours = matches!(error, TpmError::Policy(_)) || error.code().is_some();
        if ours {
            refused("key-unfit", "the key is not for this host's TPM")
        } else {
            failed(error)
        }
    })?;
    Ok(Json(shown(&taken)?))
}

/// The key whose word lets keys go: the authority's.
fn approver(local: &Local) -> Result<Approver, Problem> {
    let enrolment = local.host.link.enrolment().map_err(|trouble| problem(&trouble))?;
    Approver::from_spki(&enrolment.signing_key.0).map_err(|_| Problem::internal())
}

fn blob(bytes: &Bytes) -> Result<KeyBlob, Problem> {
    KeyBlob::parse(&bytes.0).map_err(|_| invalid("blob"))
}

fn shown(blob: &KeyBlob) -> Result<ResidentKey, Problem> {
    let point = resident::point(&blob.public).map_err(|_| Problem::internal())?;
    let bytes = blob.to_bytes().map_err(failed)?;
    Ok(ResidentKey { blob: Bytes(bytes), point: Bytes(point) })
}

fn invalid(what: &str) -> Problem {
    Problem::refusal("request-invalid", format!("{what} cannot be read"))
        .status(StatusCode::BAD_REQUEST)
}

fn refused(name: &'static str, title: &str) -> Problem {
    Problem::refusal(name, title.to_owned()).status(StatusCode::FORBIDDEN)
}

fn failed(error: TpmError) -> Problem {
    problem(&Trouble::from(error))
}
