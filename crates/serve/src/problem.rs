//! RFC 9457 problem details: how every refusal and error goes over HTTP.
//!
//! `type` is `urn:vouchsafe:refusal:<name>` when a rule said no and `urn:vouchsafe:error:<name>`
//! when the request could not be decided; `name` repeats the kebab-case name, `hint` says what an
//! operator can do next. A remote peer learns only what is put in here: detail that would help an
//! attacker goes to the audit log instead.

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request, rejection::BytesRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Duration, timeout};
use utoipa::ToSchema;

/// Media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

const REFUSAL: &str = "urn:vouchsafe:refusal:";
const ERROR: &str = "urn:vouchsafe:error:";

/// How long a client may take to send a JSON body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A problem (RFC 9457, section 3.1) with two members of our own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:vouchsafe:refusal:<name>` or `urn:vouchsafe:error:<name>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened, in words that do not change from case to case.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What happened this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Kebab-case name of the refusal or error.
    pub name: String,
    /// What the operator can do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A rule said no. Status 403 unless changed.
    pub fn refusal(name: impl Into<String>, title: impl Into<String>) -> Self {
        Self::new(REFUSAL, StatusCode::FORBIDDEN, name.into(), title.into())
    }

    /// The request could not be served.
    pub fn error(status: StatusCode, name: impl Into<String>, title: impl Into<String>) -> Self {
        Self::new(ERROR, status, name.into(), title.into())
    }

    /// Something failed on our side; the cause goes to the log, not to the peer.
    #[must_use]
    pub fn internal() -> Self {
        let title = "the service could not do this; its log has the cause";
        Self::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", title)
    }

    fn new(prefix: &str, status: StatusCode, name: String, title: String) -> Self {
        let kind = format!("{prefix}{name}");
        Self { kind, title, status: status.as_u16(), detail: None, name, hint: None }
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status.as_u16();
        self
    }

    /// Says what happened this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says what the operator can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether a rule said no (as opposed to an error).
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.kind.starts_with(REFUSAL)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.title)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}

/// A request body in JSON, and an answer in JSON.
///
/// As an extractor it wants `Content-Type: application/json` and refuses malformed text, unknown
/// fields (where the type denies them) and wrong types as `request-invalid`, and a body over the
/// server's limit as `request-too-large`.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        if !is_json(&request) {
            return Err(invalid("Content-Type must be application/json")
                .status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let body = match timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(body)) => body,
            Ok(Err(rejection)) => return Err(unread(&rejection)),
            Err(_elapsed) => {
                let title = "the request's body did not arrive in time";
                return Err(Problem::error(StatusCode::REQUEST_TIMEOUT, "request-timeout", title));
            }
        };
        serde_json::from_slice(&body).map(Self).map_err(|error| invalid(error.to_string()))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let Ok(body) = serde_json::to_vec(&self.0) else {
            return Problem::internal().into_response();
        };
        let mut response = Response::new(Body::from(body));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

fn is_json(request: &Request) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next()).map(str::trim);
    media_type.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}

fn invalid(detail: impl Into<String>) -> Problem {
    let title = "the request is not what this operation takes";
    Problem::refusal("request-invalid", title).status(StatusCode::BAD_REQUEST).detail(detail)
}

fn unread(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::refusal("request-too-large", "the request is larger than this service takes")
            .status(StatusCode::PAYLOAD_TOO_LARGE)
    } else {
        invalid("the body ended early")
    }
}

/// For `Router::fallback`: no such operation.
pub async fn not_found() -> Problem {
    Problem::error(StatusCode::NOT_FOUND, "no-such-operation", "there is no such operation here")
}

/// For `Router::method_not_allowed_fallback`.
pub async fn method_not_allowed() -> Problem {
    let title = "the operation exists, but not with this method";
    Problem::error(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_members_that_scripts_read() {
        let problem = Problem::refusal("vm-homed-elsewhere", "the VM's home is another host")
            .detail("home is b")
            .hint("vouchsafe vm migrate");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:vouchsafe:refusal:vm-homed-elsewhere");
        assert_eq!(json["name"], "vm-homed-elsewhere");
        assert_eq!(json["status"], 403);
        assert!(problem.is_refusal());
        assert!(!Problem::internal().is_refusal());
    }
}
