//! What every request passes on its way in and out: strangers are bounded; refusals are written to
//! the audit log before they leave, and callers without a certificate learn their names only.

use std::time::Duration;

use axum::{
    extract::{FromRequest, FromRequestParts, Path, RawPathParams, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt as _;
use http::{StatusCode, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};
use serve::{https::Peer, problem};

use crate::{
    app::{App, lock},
    caller,
    failure::{Failure, Refused},
    flood::{Flooding, Passage},
    refusal::Refusal,
};

/// How long the rest of a body that is too long may take.
const DISCARD: Duration = Duration::from_secs(10);

/// The gate of one route.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    /// Everything shared.
    pub(crate) app: App,
    /// What the audit log calls the operation.
    pub(crate) event: &'static str,
    /// Longest body.
    pub(crate) length: usize,
}

/// Lets a request through and looks at its answer.
pub(crate) async fn pass(
    State(gate): State<Gate>,
    peer: Peer,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let known = caller::is_known(&gate.app, &peer);
    let mut response = match admit(&gate, &peer, known, request).await {
        Ok(request) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    let Some(refused) = response.extensions_mut().remove::<Refused>() else { return response };
    let Refused { mut refusal, subject: given, mut noted } = refused;
    let actor = caller::actor(&gate.app, &peer);
    if actor.is_host() {
        let passage = lock(&gate.app.noise).pass(actor.0.clone(), gate.app.now());
        noted |= passage == Passage::Again;
        if passage != Passage::Free {
            refusal = Refusal::from(Flooding);
        }
    }
    if !noted {
        let subject = given.unwrap_or_else(|| subject(&parameters));
        let written = gate.app.audit.refused(&actor, gate.event, &subject, &refusal).await;
        if let Err(error) = written {
            return Failure::from(error).into_response();
        }
        tracing::info!(event = gate.event, subject, refusal = refusal.name, "refused");
    }
    if known { refusal.open_problem() } else { refusal.closed_problem() }.into_response()
}

/// Refuses strangers who ask too often, and bodies that say themselves that they are too long.
async fn admit(
    gate: &Gate,
    peer: &Peer,
    known: bool,
    request: Request,
) -> Result<Request, Failure> {
    if !known {
        let address = peer.address().map(|address| address.ip());
        let passage = lock(&gate.app.flood).pass(address, gate.app.now());
        match passage {
            Passage::Free => {}
            Passage::First => return Err(Flooding.into()),
            Passage::Again => return Err(Failure::from(Flooding).noted()),
        }
    }
    let said = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let said = said.and_then(|text| text.parse::<usize>().ok());
    if said.is_none_or(|said| said <= gate.length) {
        return Ok(request);
    }
    discard(request).await;
    Err(Failure::refused(Refusal {
        name: "request-too-large".to_owned(),
        detail: format!("the body has {} bytes, the limit is {}", said.unwrap_or(0), gate.length),
        hint: "the limits are in the authority's configuration".to_owned(),
        status: StatusCode::PAYLOAD_TOO_LARGE.as_u16(),
    }))
}

/// Reads a body and keeps nothing of it: a client that is cut off in the middle of its request
/// never sees the answer. The server's own limit ends this, or the time.
async fn discard(request: Request) {
    let mut body = request.into_body().into_data_stream();
    let all = async { while body.next().await.is_some_and(|part| part.is_ok()) {} };
    // What did not come in time is given up.
    let _ = tokio::time::timeout(DISCARD, all).await;
}

/// What the path is about.
fn subject(parameters: &RawPathParams) -> String {
    let mut words = parameters.iter().map(|(name, value)| format!("{name}:{value}"));
    words.next().unwrap_or_else(|| "authority".to_owned())
}

/// A JSON body. What is not as it should be is a refusal like any other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Self::Rejection> {
        match problem::Json::<T>::from_request(request, app).await {
            Ok(problem::Json(value)) => Ok(Self(value)),
            Err(problem) if problem.is_refusal() => Err(Failure::refused(Refusal::from(problem))),
            // The body did not arrive in time: there is nothing to note.
            Err(problem) => Err(Failure::refused(Refusal::from(problem)).noted()),
        }
    }
}

/// A name in the path. One that is none is a refusal like any other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let path = Path::<T>::from_request_parts(parts, app).await;
        let Path(value) =
            path.map_err(|error| Failure::refused(Refusal::invalid(error.to_string())))?;
        Ok(Self(value))
    }
}

/// Query parameters; unknown ones are refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, app).await;
        let query = query.map_err(|error| Failure::refused(Refusal::invalid(error.to_string())))?;
        Ok(Self(query.0))
    }
}

/// A JSON answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        problem::Json(self.0).into_response()
    }
}

/// What a handler gives back.
pub(crate) type Outcome<T> = Result<Answer<T>, Failure>;
