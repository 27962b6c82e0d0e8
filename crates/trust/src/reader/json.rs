//! Questions in JSON, for programs that do not speak XML: the types are those of `model::keys`.
//! Answers are not signed; who gives them, the channel says.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{StatusCode, header};
use model::keys::{Found, Query, order::KeyFailure, rpc::KeyRequest};
use serve::{
    https::Peer,
    problem::{Json, Problem},
};

use super::{caller::Caller, expected, openapi, routes::App};

/// The routes, added to `router`.
pub(super) fn routes(router: Router<App>) -> Router<App> {
    router
        .route(openapi::LOCATE, post(locate))
        .route(openapi::VALIDATE, post(validate))
        .route("/v1/openapi.json", get(document))
}

async fn locate(
    State(app): State<App>,
    peer: Peer,
    Json(query): Json<Query>,
) -> Result<Json<Found>, Problem> {
    found(&app, &peer, query, KeyRequest::Locate).await
}

async fn validate(
    State(app): State<App>,
    peer: Peer,
    Json(query): Json<Query>,
) -> Result<Json<Found>, Problem> {
    found(&app, &peer, query, KeyRequest::Validate).await
}

async fn found(
    app: &App,
    peer: &Peer,
    mut query: Query,
    request: impl FnOnce(Query) -> KeyRequest,
) -> Result<Json<Found>, Problem> {
    if !app.open_queries {
        let from = Caller::Anyone(peer.address());
        app.blocking(move |front| front.refused("keys-query", "queries-closed", &from)).await?;
        let title = "questions that nobody signed are not answered here";
        return Err(Problem::refusal("queries-closed", title).hint("ask by a signed XKMS request"));
    }
    query.limit = query.limit.min(app.answers);
    expected::found(app.ask(request(query)).await?).map(Json).map_err(problem)
}

/// A failure of the keeper over HTTP.
pub(super) fn problem(failure: KeyFailure) -> Problem {
    let title = "the keeper of the keys does not do this";
    let name = failure.code();
    match failure {
        KeyFailure::Internal => Problem::internal(),
        KeyFailure::Busy => Problem::error(StatusCode::SERVICE_UNAVAILABLE, name, title),
        KeyFailure::NoAuthentication
        | KeyFailure::NotAuthoritative
        | KeyFailure::NotSynchronous
        | KeyFailure::NotSupported
        | KeyFailure::OptionalElement
        | KeyFailure::PossessionRequired
        | KeyFailure::Refused
        | KeyFailure::TimeInstantNotSupported
        | KeyFailure::TimeInstantOutOfRange
        | KeyFailure::TooMany => Problem::refusal(name, title),
    }
}

async fn document() -> Response {
    match openapi::text() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => Problem::internal().into_response(),
    }
}
