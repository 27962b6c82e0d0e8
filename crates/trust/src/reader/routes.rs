//! What is served where.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRequest as _, Path, RawQuery, Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::Engine as _;
use http::{HeaderValue, StatusCode, header};
use model::keys::rpc::{KeyAnswer, KeyRequest};
use serve::{https::Peer, problem::Problem};

use super::{
    caller::Caller,
    expected,
    front::Front,
    json,
    turn::{Turn, Turns},
    wsdl,
};

/// What all handlers share.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) front: Arc<Front>,
    wsdl: Arc<str>,
    /// How long a body may take.
    patience: Duration,
    pub(super) open_queries: bool,
    pub(super) answers: u32,
    turns: Turns,
}

impl App {
    /// As many requests are worked on at once as there are `turns`.
    pub(super) fn new(front: Arc<Front>, start: &crate::start::Start, turns: Turns) -> Self {
        Self {
            turns,
            front,
            wsdl: wsdl::document(&start.service).into(),
            patience: Duration::from_secs(start.front.request_s),
            open_queries: start.front.open_queries,
            answers: start.front.answers,
        }
    }

    /// Runs what blocks where it may.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Front) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let front = Arc::clone(&self.front);
        tokio::task::spawn_blocking(move || work(&front)).await.map_err(|_| Problem::internal())
    }

    /// Runs what mostly takes no longer than a question to the keeper, in its turn: on this thread,
    /// because one that is handed over to costs more than that.
    async fn brief<T>(&self, work: impl FnOnce(&Front, &Turn) -> T) -> Result<T, Problem> {
        let turn = self.turns.next().await.ok_or_else(Problem::internal)?;
        Ok(work(&self.front, &turn))
    }

    /// Asks the keeper.
    pub(super) async fn ask(&self, request: KeyRequest) -> Result<KeyAnswer, Problem> {
        self.brief(|front, turn| front.link.ask(&request, turn)).await
    }

    /// The whole body, within bounds.
    async fn body(&self, request: Request) -> Result<Bytes, Problem> {
        match tokio::time::timeout(self.patience, Bytes::from_request(request, &())).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let title = "the request is larger than this service takes";
                Err(Problem::refusal("request-too-large", title)
                    .status(StatusCode::PAYLOAD_TOO_LARGE))
            }
            Ok(Err(_)) => {
                let title = "the body ended early";
                Err(Problem::error(StatusCode::BAD_REQUEST, "request-invalid", title))
            }
            Err(_elapsed) => {
                let title = "the request's body did not arrive in time";
                Err(Problem::error(StatusCode::REQUEST_TIMEOUT, "request-timeout", title))
            }
        }
    }
}

/// The router.
pub(super) fn router(app: App) -> Router {
    let router = Router::new()
        .route("/xkms", post(xkms).get(describe))
        .route("/xkms.wsdl", get(wsdl_document))
        .route("/ca.pem", get(ca_pem))
        .route("/crl.der", get(crl))
        .route("/delta.crl", get(delta_crl))
        .route("/ocsp", post(ocsp))
        .route("/ocsp/{*request}", get(ocsp_in_path))
        .route("/healthz", get(health));
    json::routes(router).with_state(app)
}

pub(super) fn typed(status: u16, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn xkms(State(app): State<App>, peer: Peer, request: Request) -> Result<Response, Problem> {
    let from = Caller::Anyone(peer.address());
    let body = match app.body(request).await {
        Ok(body) => body,
        Err(problem) if problem.name == "request-too-large" => {
            app.blocking(move |f| f.refused("xkms-unread", "request-too-large", &from)).await?;
            return Err(problem);
        }
        Err(problem) => return Err(problem),
    };
    let reply = app.brief(|front, turn| front.answer(&body, &from, turn)).await?;
    Ok(typed(reply.status, reply.content_type, reply.body))
}

async fn describe(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    if query.is_some_and(|query| query.eq_ignore_ascii_case("wsdl")) {
        return wsdl_document(State(app)).await;
    }
    Problem::error(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "XKMS requests are posted")
        .hint("GET /xkms?wsdl describes the service")
        .into_response()
}

async fn wsdl_document(State(app): State<App>) -> Response {
    typed(200, "text/xml; charset=utf-8", app.wsdl.to_string())
}

/// What the keeper publishes, DER.
async fn published(app: &App, request: KeyRequest) -> Result<Vec<u8>, Problem> {
    expected::published(app.ask(request).await?).map(|der| der.0).map_err(json::problem)
}

async fn ca_pem(State(app): State<App>) -> Result<Response, Problem> {
    let der = published(&app, KeyRequest::CaCertificate).await?;
    let pem = serve::pem::certificates(&[der]).map_err(|_| Problem::internal())?;
    Ok(typed(200, "application/x-pem-file", pem))
}

async fn crl(State(app): State<App>) -> Result<Response, Problem> {
    Ok(typed(200, "application/pkix-crl", published(&app, KeyRequest::Crl).await?))
}

async fn delta_crl(State(app): State<App>) -> Result<Response, Problem> {
    Ok(typed(200, "application/pkix-crl", published(&app, KeyRequest::DeltaCrl).await?))
}

async fn ocsp(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let body = app.body(request).await?;
    ocsp_answer(&app, body.to_vec()).await
}

async fn ocsp_answer(app: &App, request: Vec<u8>) -> Result<Response, Problem> {
    let der = published(app, KeyRequest::Ocsp(model::api::Bytes(request))).await?;
    Ok(typed(200, "application/ocsp-response", der))
}

/// RFC 6960, appendix A.1: the request in base64 at the end of the path.
async fn ocsp_in_path(
    State(app): State<App>,
    Path(request): Path<String>,
) -> Result<Response, Problem> {
    let request = base64::engine::general_purpose::STANDARD.decode(request).map_err(|_| {
        let title = "the path does not end in an OCSP request in base64";
        Problem::error(StatusCode::BAD_REQUEST, "request-invalid", title)
    })?;
    ocsp_answer(&app, request).await
}

async fn health(State(app): State<App>) -> Result<Response, Problem> {
    expected::noted(&app.ask(KeyRequest::Health).await?).map_err(json::problem)?;
    Ok(typed(200, "text/plain", "ok\n"))
}
