//! Leave for a key to go from one host's TPM into another's.
//!
//! **Invariants:** both hosts may hold keys at this moment; the parent is certified by the AK that
//! the target enrolled, for this migration; what is signed is for one key and that one parent. No key
//! comes here, wrapped or not.

use attest::{
    envelope::Sign as _,
    host::EnrolledAk,
    parent::{self, ParentRejection},
};
use axum::extract::State;
use http::StatusCode;
use model::api::{
    Bytes,
    duplication::{DuplicationApproval, DuplicationRequest},
};
use tpm::{Name, Public, resident};

use super::{
    Route, Who,
    gate::{Answer, Body, Outcome},
    shape::Shape,
};
use crate::{
    app::App,
    audit::Done,
    caller::HostSession,
    failure::Failure,
    refusal::{Refusal, Rejection},
};

/// The operation.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/duplications",
            (Who::Host, "key-duplication"),
            "Approve that a key of this host's TPM is duplicated to a parent in another host's TPM",
            Shape::of::<DuplicationApproval>(),
            approve,
        )
        .takes(Shape::of::<DuplicationRequest>()),
    ]
}

impl Rejection for ParentRejection {
    fn name(&self) -> &'static str {
        "key-parent-foreign"
    }

    fn hint(&self) -> &'static str {
        "the parent must be in the TPM that the target enrolled; its agent certifies it"
    }

    fn status(&self) -> StatusCode {
        StatusCode::FORBIDDEN
    }
}

async fn approve(
    State(app): State<App>,
    session: HostSession,
    Body(request): Body<DuplicationRequest>,
) -> Outcome<DuplicationApproval> {
    let subject = format!("migration:{}", request.migration);
    let signature = signed(&app, &session, &request).await;
    let signature = signature.map_err(|failure| failure.about(&subject))?;
    let detail = format!("from {} to {}", session.name(), request.target);
    let done = Done::new("key-duplication-approved", subject).detail(detail);
    app.audit.done(&session.actor(), done).await?;
    Ok(Answer(DuplicationApproval { signature: Bytes(signature) }))
}

async fn signed(
    app: &App,
    session: &HostSession,
    request: &DuplicationRequest,
) -> Result<Vec<u8>, Failure> {
    let (now, source, target) = (app.now(), session.name(), &request.target);
    session.record().value.may_hold_keys(now)?;
    let key = Name::new(&request.key.0).map_err(|_| Refusal::invalid("key is no Name"));
    let key = key.map_err(Failure::refused)?;
    let host = app.enrolled(target).await?.value;
    host.may_hold_keys(now)?;
    let ak = enrolled(&host.identity.ak_public)?;
    let parent = parent::check(&ak, &request.parent, &request.migration, (source, target))?;
    Ok(app.keys.signer.sign(&resident::approval(&key, &parent))?)
}

fn enrolled(ak: &Bytes) -> Result<EnrolledAk, Failure> {
    let public = Public::parse(&ak.0).ok().and_then(|public| EnrolledAk::admit(public).ok());
    public.ok_or_else(|| Failure::broken("an enrolled AK cannot be read"))
}
