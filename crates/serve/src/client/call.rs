//! One call: attempts, deadline, and reading the answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Response, body::Incoming};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{sleep, timeout};

use super::{CallError, ClientLimits, transport::Transport};
use crate::{
    problem::{self, Problem},
    random,
};

/// A request to be made.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    body: Bytes,
    idempotent: bool,
    answer: Option<Duration>,
}

impl Call {
    /// Any method. GET, PUT, DELETE and HEAD count as idempotent.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let idempotent = method.is_idempotent();
        Self { method, path: path.into(), body: Bytes::new(), idempotent, answer: None }
    }

    /// GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// POST, sent at most once unless [`Call::idempotent`].
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// Adds a JSON body.
    ///
    /// # Errors
    /// [`CallError::Request`] if `body` cannot be written as JSON.
    pub fn json<B: Serialize>(mut self, body: &B) -> Result<Self, CallError> {
        self.body = serde_json::to_vec(body).map_err(|e| CallError::Request(e.to_string()))?.into();
        Ok(self)
    }

    /// Says that doing it twice does no more than doing it once (the body carries an operation id,
    /// for instance), so that it may be retried.
    #[must_use]
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Sets the longest time to the whole answer of one attempt: for long polls, the time the
    /// service may wait and some more.
    #[must_use]
    pub const fn answer_within(mut self, answer: Duration) -> Self {
        self.answer = Some(answer);
        self
    }

    pub(super) async fn run<T: DeserializeOwned>(
        self,
        transport: &Transport,
        limits: &ClientLimits,
    ) -> Result<T, CallError> {
        let mut wait = limits.back_off;
        let mut attempt = 1;
        loop {
            let error = match self.attempt(transport, limits).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if attempt >= limits.attempts || !self.may_retry(&error) {
                return Err(error);
            }
            tracing::debug!(attempt, error = crate::exit::chain(&error), "call is tried again");
            sleep(jittered(wait)).await;
            wait = wait.saturating_mul(2).min(Duration::from_secs(5));
            attempt += 1;
        }
    }

    /// Idempotent calls are tried again when nothing was decided, others never: even a refused
    /// connection is left to the caller, who may know better than to wait.
    fn may_retry(&self, error: &CallError) -> bool {
        let busy = || error.problem().is_some_and(|p| matches!(p.status, 429 | 502..=504));
        self.idempotent && (error.is_away() || busy())
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        transport: &Transport,
        limits: &ClientLimits,
    ) -> Result<T, CallError> {
        let request = self.request(transport)?;
        let whole = async {
            let response = transport.send(request, self.idempotent, limits.connect).await?;
            read(response, transport, limits.body).await
        };
        match timeout(self.answer.unwrap_or(limits.answer), whole).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(CallError::TimedOut { to: transport.to().to_owned() }),
        }
    }

    fn request(&self, transport: &Transport) -> Result<Request<Full<Bytes>>, CallError> {
        let mut builder = Request::builder()
            .method(self.method.clone())
            .uri(self.path.as_str())
            .header(header::HOST, transport.host())
            .header(header::ACCEPT, "application/json");
        if !self.body.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        builder
            .body(Full::new(self.body.clone()))
            .map_err(|error| CallError::Request(error.to_string()))
    }
}

/// Between half of `wait` and all of it, so that many clients do not come back at once.
fn jittered(wait: Duration) -> Duration {
    let byte = random::bytes::<1>().map_or(255, |[byte]| byte);
    wait.mul_f64(0.5 + f64::from(byte) / 510.0)
}

async fn read<T: DeserializeOwned>(
    response: Response<Incoming>,
    transport: &Transport,
    limit: usize,
) -> Result<T, CallError> {
    let status = response.status();
    let malformed =
        |detail: String| CallError::Malformed { to: transport.to().to_owned(), status, detail };
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(is_problem);
    let body = match Limited::new(response.into_body(), limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Err(match error.downcast::<hyper::Error>() {
                Ok(source) => {
                    CallError::Interrupted { to: transport.to().to_owned(), source: *source }
                }
                Err(_too_long) => malformed(format!("it is longer than {limit} bytes")),
            });
        }
    };
    if is_problem {
        return Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => CallError::Problem(Box::new(problem)),
            Err(error) => malformed(error.to_string()),
        });
    }
    if !status.is_success() {
        return Err(malformed("it is no problem document".to_owned()));
    }
    let body: &[u8] =
        if body.is_empty() || status == StatusCode::NO_CONTENT { b"null" } else { &body };
    serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))
}

fn is_problem(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| text.split(';').next() == Some(problem::MEDIA_TYPE))
}
