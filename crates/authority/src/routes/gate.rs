//! What every request passes on its way out: refusals are written to the audit log before they
//! leave, and callers without a certificate learn their names only.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, RawPathParams, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::request::Parts;
use serde::{Serialize, de::DeserializeOwned};
use serve::{https::Peer, problem};

use crate::{
    app::App,
    caller,
    failure::{Failure, Refused},
    refusal::Refusal,
};

/// The gate of one route.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    /// Everything shared.
    pub(crate) app: App,
    /// What the audit log calls the operation.
    pub(crate) event: &'static str,
}

/// Lets a request through and looks at its answer.
pub(crate) async fn pass(
    State(gate): State<Gate>,
    peer: Peer,
    parameters: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let subject = subject(&parameters);
    let mut response = next.run(request).await;
    let Some(refused) = response.extensions_mut().remove::<Refused>() else { return response };
    let Refused { refusal, subject: given, noted } = refused;
    if !noted {
        let subject = given.unwrap_or(subject);
        let actor = caller::actor(&gate.app, &peer);
        let written = gate.app.audit.refused(&actor, gate.event, &subject, &refusal).await;
        if let Err(error) = written {
            return Failure::from(error).into_response();
        }
        tracing::info!(event = gate.event, subject, refusal = refusal.name, "refused");
    }
    if caller::sees_details(&gate.app, &peer) {
        refusal.open_problem().into_response()
    } else {
        refusal.closed_problem().into_response()
    }
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
