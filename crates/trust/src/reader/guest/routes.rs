//! One connection of a guest's client: TLS, then what is served on it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest as _, Request},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http::StatusCode;
use http_body_util::Limited;
use model::{
    Digest, HashAlg, VmId,
    guest::{
        Admitted, ChallengeAsk, ChannelEvidence, EXPORTER, GuestAnswer, GuestChallenge,
        GuestRequest, MAX_BODY,
    },
};
use serde::de::DeserializeOwned;
use serve::{
    clock::{Clock as _, SystemClock},
    https::{self, Limits, ServerTls},
    problem::Problem,
};
use tokio::io::DuplexStream;

use super::Guests;
use crate::reader::{DRAIN, routes};

/// One TLS connection of the client of one VM.
#[derive(Clone, Debug)]
struct Connection {
    guests: Guests,
    vm: VmId,
    /// Digest of its exporter.
    channel: Digest,
    /// Until when requests are taken, Unix milliseconds.
    until: Arc<Mutex<u64>>,
}

/// Serves a connection to its end.
pub(super) async fn serve(guests: &Guests, vm: &VmId, stream: DuplexStream) -> io::Result<()> {
    let GuestAnswer::Passport { chain, key } = guests.ask(GuestRequest::Passport).await else {
        return Err(io::Error::other("the service has no passport"));
    };
    let chain: Vec<Vec<u8>> = chain.into_iter().map(|der| der.0).collect();
    let tls = ServerTls::new(&chain, &key.0, &[], SystemClock::shared());
    let tls = tls.map_err(io::Error::other)?;
    let shaken = tokio::time::timeout(guests.patience, tls.accept(stream)).await;
    let stream = shaken.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    let exporter = stream.get_ref().1.export_keying_material([0_u8; 32], EXPORTER, None);
    let exporter = exporter.map_err(io::Error::other)?;
    let connection = Connection {
        guests: guests.clone(),
        vm: vm.clone(),
        channel: sha256(&exporter),
        until: Arc::default(),
    };
    let limits = Limits {
        body: MAX_BODY,
        head: guests.idle,
        handshake: guests.patience,
        connections: 1,
        drain: DRAIN,
    };
    https::serve_stream(stream, router(connection), limits, guests.shutdown.clone()).await;
    Ok(())
}

fn sha256(bytes: &[u8]) -> Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Digest::new(HashAlg::Sha256, digest.as_ref()).unwrap_or(Digest::zero(HashAlg::Sha256))
}

fn router(connection: Connection) -> Router {
    let body = connection.guests.body;
    let xkms = Router::new()
        .route("/xkms", post(routes::xkms))
        .with_state(connection.guests.app.clone())
        .route_layer(middleware::from_fn(move |request: Request, next: Next| {
            next.run(request.map(|inner| Body::new(Limited::new(inner, body))))
        }))
        .route_layer(middleware::from_fn(admitted));
    Router::new()
        .route("/guest/v1/challenge", post(challenge))
        .route("/guest/v1/attest", post(attest))
        .merge(xkms)
        .layer(DefaultBodyLimit::disable())
        .layer(Extension(connection))
}

/// Lets a request pass if the connection's proof was accepted and still counts.
async fn admitted(
    Extension(connection): Extension<Connection>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let until = *connection.until.lock().unwrap_or_else(PoisonError::into_inner);
    if SystemClock.unix_ms() < until {
        return Ok(next.run(request).await);
    }
    let title = "the client has to prove its VM and itself first";
    let name = if until == 0 { "guest-not-proven" } else { "guest-proof-over" };
    let front = Arc::clone(&connection.guests.front);
    // Noted like other requests that are refused before they are read.
    let noted = tokio::task::spawn_blocking(move || front.refused("xkms-unread", name, None)).await;
    noted.map_err(|_| Problem::internal())?;
    Err(Problem::refusal(name, title).status(StatusCode::FORBIDDEN))
}

async fn body<T: DeserializeOwned>(
    connection: &Connection,
    request: Request,
) -> Result<T, Problem> {
    let read = axum::body::Bytes::from_request(request, &());
    let invalid = |title| Problem::error(StatusCode::BAD_REQUEST, "request-invalid", title);
    let bytes = tokio::time::timeout(connection.guests.patience, read)
        .await
        .map_err(|_elapsed| invalid("the body did not arrive in time"))?
        .map_err(|_| invalid("the body is too long or ended early"))?;
    serde_json::from_slice(&bytes).map_err(|_| invalid("the body is not what is expected"))
}

/// The client learns which rule said no; details are in the service's audit log.
fn problem(answer: GuestAnswer) -> Problem {
    let GuestAnswer::Refused { name } = answer else { return Problem::internal() };
    Problem::refusal(name, "the client is not served").status(StatusCode::FORBIDDEN)
}

async fn challenge(
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Json<GuestChallenge>, Problem> {
    let ask: ChallengeAsk = body(&connection, request).await?;
    let (vm, channel) = (connection.vm.clone(), connection.channel);
    let answer = connection.guests.ask(GuestRequest::Challenge { vm, channel, ask }).await;
    if let GuestAnswer::Challenge(challenge) = answer {
        return Ok(Json(challenge));
    }
    Err(problem(answer))
}

async fn attest(
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Response, Problem> {
    let evidence: ChannelEvidence = body(&connection, request).await?;
    let (vm, channel) = (connection.vm.clone(), connection.channel);
    let request = GuestRequest::Attest { vm, channel, evidence: Box::new(evidence) };
    let answer = connection.guests.ask(request).await;
    let until = if let GuestAnswer::Admitted { until } = &answer { *until } else { 0 };
    // A proof that fails ends what an earlier one allowed.
    *connection.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    if until == 0 {
        return Err(problem(answer));
    }
    let guests = &connection.guests;
    let (service, message_key) = (guests.service.clone(), guests.message_key.clone());
    let vm = connection.vm.clone();
    Ok(Json(Admitted { vm, until, service, message_key }).into_response())
}
