//! What other trust services may ask: one operation, `POST /v1/migrations`.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, State},
    routing::post,
};
use http::{StatusCode, request::Parts};
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

/// A trust service with a passport. Proof: made by extraction only, before a body is read.
#[derive(Debug)]
struct Caller(ServicePassport);

impl FromRequestParts<Listening> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        listening: &Listening,
    ) -> Result<Self, Self::Rejection> {
        let peer = Peer::from_request_parts(parts, listening).await?;
        match listening.passport.caller(&peer, &Wanted::any(Service::Trust)) {
            Ok(caller) => Ok(Self(caller)),
            Err(rejection) => {
                refused(&listening.keeper, "anyone".to_owned(), rejection.code()).await;
                Err(passport::problem(rejection))
            }
        }
    }
}

async fn migration(
    State(listening): State<Listening>,
    Caller(caller): Caller,
    Json(signed): Json<Signed>,
) -> Result<Json<Signed>, Problem> {
    let Listening { keeper, passport } = listening;
    let said = read(&keeper, &passport, &caller, &signed).await?;
    let current = passport.current().ok_or_else(away)?;
    // Who offers must be good at this moment; what follows rests on that.
    let trusted = if said.body == Body::Offer {
        statement::trusted(&passport, caller.host()).await.ok_or_else(away)?
    } else {
        true
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

async fn read(
    keeper: &Arc<Keeper>,
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
    refused(keeper, caller.name().to_string(), rejection.code()).await;
    Err(Problem::refusal(rejection.code(), rejection.to_string()))
}

/// A refusal that leaves goes into the audit log.
async fn refused(keeper: &Arc<Keeper>, actor: String, name: &'static str) {
    let keeper = Arc::clone(keeper);
    let note = move || keeper.note_refusal(&actor, "key-migration", name);
    if let Ok(Err(fault)) = tokio::task::spawn_blocking(note).await {
        tracing::error!(error = chain(&fault), "a refusal could not be written down");
    }
}

/// This service has no passport, or nobody knows how the other one's host stands.
fn away() -> Problem {
    let title = "the authority cannot be asked now";
    Problem::error(StatusCode::SERVICE_UNAVAILABLE, "authority-away", title)
}
