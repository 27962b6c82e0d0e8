//! The HTTPS interface for trust services: [`model::centre`]. Each route asks for a passport first;
//! what a rule said no to is in the audit log before the answer leaves.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, header, request::Parts};
use model::{
    HostId, MigrationId, OrderId,
    api::service::Service,
    centre::{
        CentreOrder, CentreProgress, CentreQuestion, Feed, Hello, MAX_WAIT_S, MigrationReport,
        Welcome,
    },
    keys::Found,
};
use passport::Passport;
use pki::Wanted;
use serde::Deserialize;
use serve::{
    https::Peer,
    problem::{self, Json, Problem},
};

use crate::centre::{Centre, Fault, Refusal, Why};

/// What routes work on.
#[derive(Clone, Debug)]
pub struct App {
    /// The centre.
    pub centre: Arc<Centre>,
    /// By which it knows callers.
    pub passport: Passport,
}

/// All routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/orders", post(order))
        .route("/v1/orders/{id}", get(progress))
        .route("/v1/questions", post(question))
        .route("/v1/feed", get(feed))
        .route("/v1/services/hello", post(hello))
        .route("/v1/migrations/{id}/report", post(report))
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .with_state(app)
}

/// A trust service with a passport in force. Proof: made by extraction only.
#[derive(Clone, Debug)]
pub struct TrustService {
    host: HostId,
}

impl FromRequestParts<App> for TrustService {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let peer = Peer::from_request_parts(parts, app).await?;
        match app.passport.caller(&peer, &Wanted::any(Service::Trust)) {
            Ok(passport) => Ok(Self { host: passport.host().clone() }),
            Err(rejection) => {
                let centre = Arc::clone(&app.centre);
                let rule = (rejection.code(), rejection.hint());
                blocking(move || centre.stranger("centre-call", rule)).await?;
                Err(passport::problem(rejection))
            }
        }
    }
}

/// An answer, or why there is none.
struct Refused(Why);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        if let Why::Fault(fault) = &self.0 {
            tracing::error!(detail = serve::exit::chain(fault), "a request failed");
        }
        let mut response = self.0.problem().into_response();
        if let Why::Full { retry_after } = self.0 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        response
    }
}

/// Runs on a thread that may block.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(run).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(fault)) => {
            tracing::error!(detail = serve::exit::chain(&fault), "a request failed");
            Err(Problem::internal())
        }
        Err(_panicked) => Err(Problem::internal()),
    }
}

/// What is asked, by whom and about what: for the audit log.
#[derive(Clone, Debug)]
struct About {
    event: &'static str,
    host: HostId,
    subject: String,
}

impl About {
    fn new(event: &'static str, caller: &TrustService, subject: String) -> Self {
        Self { event, host: caller.host.clone(), subject }
    }
}

/// Does it on a thread that may block, and writes down a rule's no.
async fn done<T: Send + 'static>(
    app: &App,
    about: About,
    run: impl FnOnce(&Centre, &HostId) -> Result<T, Why> + Send + 'static,
) -> Result<T, Response> {
    let centre = Arc::clone(&app.centre);
    let judged = blocking(move || {
        let About { event, host, subject } = about;
        let outcome = run(&centre, &host);
        if let Err(why) = &outcome {
            centre.note(&format!("trust:{host}"), event, &subject, why)?;
        }
        Ok(outcome)
    });
    let outcome = judged.await.map_err(IntoResponse::into_response)?;
    outcome.map_err(|why| Refused(why).into_response())
}

async fn order(
    State(app): State<App>,
    caller: TrustService,
    Json(order): Json<CentreOrder>,
) -> Result<Json<CentreProgress>, Response> {
    let about = About::new("order", &caller, format!("order:{}", order.id));
    done(&app, about, |centre, host| centre.order(host, order)).await.map(Json)
}

/// How long a long poll may take.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Patience {
    wait_s: u64,
}

impl Patience {
    fn duration(self) -> Duration {
        Duration::from_secs(self.wait_s.min(MAX_WAIT_S))
    }
}

async fn progress(
    State(app): State<App>,
    caller: TrustService,
    Path(id): Path<String>,
    Query(patience): Query<Patience>,
) -> Result<Json<CentreProgress>, Response> {
    let about = About::new("order-progress", &caller, format!("order:{id}"));
    let outcome = match id.parse::<OrderId>() {
        Ok(id) => app.centre.outcome(&caller.host, id, patience.duration()).await,
        Err(_) => Err(Refusal::OrderUnknown.into()),
    };
    // What was found meanwhile is told, and a rule's no written down, as everywhere.
    done(&app, about, move |_, _| outcome).await.map(Json)
}

async fn question(
    State(app): State<App>,
    caller: TrustService,
    Json(asked): Json<CentreQuestion>,
) -> Result<Json<Found>, Response> {
    let about = About::new("question", &caller, format!("tenant:{}", asked.tenant));
    done(&app, about, move |centre, host| centre.question(host, &asked)).await.map(Json)
}

/// Where a reader of the feed is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Reader {
    after: u64,
    wait_s: u64,
}

async fn feed(
    State(app): State<App>,
    caller: TrustService,
    Query(reader): Query<Reader>,
) -> Result<Json<Feed>, Response> {
    let patience = Patience { wait_s: reader.wait_s }.duration();
    let feed = app.centre.news(&caller.host, reader.after, patience).await;
    feed.map(Json).map_err(|why| Refused(why).into_response())
}

async fn hello(
    State(app): State<App>,
    caller: TrustService,
    Json(hello): Json<Hello>,
) -> Result<Json<Welcome>, Response> {
    let about = About::new("service-hello", &caller, "centre".to_owned());
    done(&app, about, move |centre, host| centre.hello(host, &hello)).await.map(Json)
}

async fn report(
    State(app): State<App>,
    caller: TrustService,
    Path(id): Path<String>,
    Json(report): Json<MigrationReport>,
) -> Result<Json<()>, Response> {
    let about = About::new("key-migration", &caller, format!("migration:{id}"));
    let report = move |centre: &Centre, host: &HostId| {
        let id: MigrationId = id.parse().map_err(|_| Refusal::MigrationUnknown)?;
        centre.report(host, id, &report)
    };
    done(&app, about, report).await.map(Json)
}
