//! What other trust services may ask: one operation, `POST /v1/migrations`.

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use http::StatusCode;
use model::{
    api::service::Service,
    migration::{Body, Signed, Statement},
};
use passport::Passport;
use pki::{ServicePassport, Wanted};
use serve::{
    exit::chain,
    https::Peer,
    problem::{Json, Problem},
};

use super::statement::{self, StatementRejection};
use crate::keeper::{Keeper, Why};

#[derive(Clone, Debug)]
struct Listening {
    keeper: Arc<Keeper>,
    passport: Passport,
}

/// The operations.
pub(super) fn router(keeper: Arc<Keeper>, passport: Passport) -> Router {
    Router::new()
        .route("/v1/migrations", post(migration))
        .with_state(Listening { keeper, passport })
}

async fn migration(
    State(listening): State<Listening>,
    peer: Peer,
    Json(signed): Json<Signed>,
) -> Result<Json<Signed>, Problem> {
    let Listening { keeper, passport } = listening;
    let caller = passport.caller(&peer, &Wanted::any(Service::Trust)).map_err(|rejection| {
        refused(&keeper, "anyone", rejection.code());
        passport::problem(rejection)
    })?;
    let said = read(&keeper, &passport, &caller, &signed)?;
    let current = passport.current().ok_or_else(away)?;
    let trusted = match &said.body {
        // Who offers must be good at this moment; what follows rests on that.
        Body::Offer => statement::trusted(&passport, caller.host()).await.ok_or_else(away)?,
        _ => true,
    };
    let own = statement::own(&current);
    let answered = tokio::task::spawn_blocking(move || keeper.incoming(&said, &own, trusted)).await;
    let answer = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(Why::Refused(refusal))) => {
            return Err(Problem::refusal(refusal.name(), refusal.to_string())
                .status(StatusCode::CONFLICT)
                .hint(refusal.hint()));
        }
        Ok(Err(Why::Fault(fault))) => {
            tracing::error!(error = chain(&fault), "a migration cannot go on");
            return Err(Problem::internal());
        }
        Err(_) => return Err(Problem::internal()),
    };
    statement::sign(&current, &answer).map(Json).map_err(|_| Problem::internal())
}

fn read(
    keeper: &Keeper,
    passport: &Passport,
    caller: &ServicePassport,
    signed: &Signed,
) -> Result<Statement, Problem> {
    let current = passport.current().ok_or_else(away)?;
    let read = statement::verify(signed, caller.host(), &current.trusted, passport.now());
    let rejection = match read {
        Ok(said) if said.source == *caller.host() => return Ok(said),
        Ok(_) => StatementRejection::Verdict,
        Err(rejection) => rejection,
    };
    refused(keeper, &caller.name().to_string(), rejection.code());
    Err(Problem::refusal(rejection.code(), rejection.to_string()))
}

/// A refusal that leaves goes into the audit log.
fn refused(keeper: &Keeper, actor: &str, name: &str) {
    if let Err(fault) = keeper.note_refusal(actor, "key-migration", name) {
        tracing::error!(error = chain(&fault), "a refusal could not be written down");
    }
}

/// This service has no passport, or nobody knows how the other one's host stands.
fn away() -> Problem {
    let title = "the authority cannot be asked now";
    Problem::error(StatusCode::SERVICE_UNAVAILABLE, "authority-away", title)
}
