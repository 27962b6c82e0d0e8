//! How foreign CAs are reached: [`pki::Transport`] over the process's HTTP client, and the web
//! server that shows ACME's challenges.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use pki::{
    Challenge, ChallengeKind, Challenger, HttpAnswer, HttpRequest, Method, Transport,
    TransportError,
};
use serve::client::{CallError, Exchange, RawRequest};
use tokio::runtime::Handle;

/// Exchanges on behalf of threads that are not the runtime's.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    exchange: Exchange,
    runtime: Handle,
}

impl Wire {
    /// Exchanges that run on `runtime`.
    pub(crate) const fn new(exchange: Exchange, runtime: Handle) -> Self {
        Self { exchange, runtime }
    }
}

impl Transport for Wire {
    fn exchange(&self, request: &HttpRequest<'_>) -> Result<HttpAnswer, TransportError> {
        let raw = RawRequest {
            method: match request.method {
                Method::Get => http::Method::GET,
                Method::Head => http::Method::HEAD,
                Method::Post => http::Method::POST,
            },
            url: request.url.to_owned(),
            content_type: request.content_type,
            body: request.body.to_vec(),
            most: request.most,
            within: request.timeout,
        };
        let answer = self.runtime.block_on(self.exchange.run(raw));
        let answer = answer.map_err(|error| match error {
            CallError::Unreachable { .. } | CallError::Request(_) => {
                TransportError::NotSent(Box::new(error))
            }
            CallError::Problem(_)
            | CallError::Interrupted { .. }
            | CallError::TimedOut { .. }
            | CallError::Malformed { .. } => TransportError::Lost(Box::new(error)),
        })?;
        Ok(HttpAnswer { status: answer.status, headers: answer.headers, body: answer.body })
    }
}

/// What ACME servers are to find, by token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Challenges(Arc<Mutex<HashMap<String, Shown>>>);

/// A file and the name that it proves.
#[derive(Clone, Debug)]
struct Shown {
    name: String,
    content: String,
}

impl Challenges {
    /// The web server that shows them.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/.well-known/acme-challenge/{token}", get(show))
            .with_state(self.clone())
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, HashMap<String, Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn show(
    State(challenges): State<Challenges>,
    Path(token): Path<String>,
) -> Result<String, StatusCode> {
    let shown = challenges.shown().get(&token).map(|shown| shown.content.clone());
    shown.ok_or(StatusCode::NOT_FOUND)
}

impl Challenger for Challenges {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Http01
    }

    fn publish(&self, challenge: &Challenge) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Challenge { name, token, content, .. } = challenge.clone();
        self.shown().insert(token, Shown { name, content });
        Ok(())
    }

    fn withdraw(&self, name: &str) {
        self.shown().retain(|_, shown| shown.name != name);
    }
}
