//! One connection of a guest's client: TLS, then what is served on it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest as _, Request},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http::StatusCode;
use http_body_util::Limited;
use model::{
    Digest, HashAlg, VmId,
    guest::{
        Admitted, ChallengeAsk, ChannelEvidence, EXPORTER, GuestAnswer, GuestChallenge, GuestLine,
        GuestRequest, MAX_BODY,
    },
};
use serde::de::DeserializeOwned;
use serve::{
    clock::{Clock as _, SystemClock},
    https::{self, Limits, ServerTls},
    problem::Problem,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Guests;
use crate::reader::{DRAIN, caller::Caller, front::Front, routes, turn::Turn};

/// How long a connection over a network may be there without a proof.
const PROVING: Duration = Duration::from_secs(30);

/// Whose client speaks.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    /// The VM's whose port it is.
    Of(VmId),
    /// Over a network, from there: its challenge claims it.
    Claimed(SocketAddr),
}

/// One TLS connection of the client of one VM.
#[derive(Clone, Debug)]
struct Connection {
    guests: Guests,
    whose: Whose,
    /// The VM that was claimed last.
    claim: Arc<Mutex<Option<VmId>>>,
    /// Digest of its exporter.
    channel: Digest,
    /// Until when requests are taken, Unix milliseconds.
    until: Arc<Mutex<u64>>,
}

/// Serves a connection to its end.
pub(super) async fn serve<S>(
    tls: ServerTls,
    guests: &Guests,
    whose: Whose,
    stream: S,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = tokio::time::timeout(guests.patience, tls.accept(stream)).await;
    let stream = shaken.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
    let exporter = stream.get_ref().1.export_keying_material([0_u8; 32], EXPORTER, None);
    let exporter = exporter.map_err(io::Error::other)?;
    let connection = Connection {
        guests: guests.clone(),
        whose,
        claim: Arc::default(),
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
    let routes = router(connection.clone());
    tokio::select! {
        () = https::serve_stream(stream, routes, limits, guests.shutdown.clone()) => Ok(()),
        () = connection.unproven() => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Digest::new(HashAlg::Sha256, digest.as_ref()).unwrap_or(Digest::zero(HashAlg::Sha256))
}

fn router(connection: Connection) -> Router {
    Router::new()
        .route("/guest/v1/challenge", post(challenge))
        .route("/guest/v1/attest", post(attest))
        .route("/xkms", post(xkms))
        .layer(DefaultBodyLimit::disable())
        .layer(Extension(connection))
}

impl Connection {
    /// What the keeper knows the connection by; none before a VM was claimed.
    fn line(&self) -> Option<GuestLine> {
        let (vm, claimed_from) = match &self.whose {
            Whose::Of(vm) => (Some(vm.clone()), None),
            Whose::Claimed(from) => {
                let claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
                (claim.clone(), Some(from.ip()))
            }
        };
        vm.map(|vm| GuestLine { vm, channel: self.channel, claimed_from })
    }

    /// Who was there before a proof: over a network, somebody.
    fn unproven_caller(&self) -> Caller {
        match &self.whose {
            Whose::Claimed(from) => Caller::Anyone(Some(*from)),
            Whose::Of(_) => self.line().map_or(Caller::Anyone(None), Caller::Guest),
        }
    }

    /// Ends over a network when there was no proof for so long that none is to come: who says nothing
    /// keeps no connection.
    async fn unproven(&self) {
        tokio::time::sleep(PROVING).await;
        if matches!(self.whose, Whose::Of(_)) || self.closed() != Some("guest-not-proven") {
            std::future::pending::<()>().await;
        }
    }

    /// What was admitted is over.
    fn close(&self) {
        self.admit(0);
    }

    fn admit(&self, until: u64) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Why no request is taken on this connection now. The keeper looks again, by its own records.
    fn closed(&self) -> Option<&'static str> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            0 => Some("guest-not-proven"),
            until if SystemClock.unix_ms() >= until => Some("guest-proof-over"),
            _ => None,
        }
    }

    /// Runs what blocks where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        caller: Caller,
        work: impl FnOnce(&Front, &Caller) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let front = Arc::clone(&self.guests.front);
        let done = tokio::task::spawn_blocking(move || work(&front, &caller)).await;
        done.map_err(|_| Problem::internal())
    }
}

async fn xkms(
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Response, Problem> {
    let line = match (connection.closed(), connection.line()) {
        (None, Some(line)) => line,
        (name, _) => {
            let name = name.unwrap_or("guest-not-proven");
            // Noted like other requests that are refused before they are read.
            let caller = connection.unproven_caller();
            let noted =
                move |front: &Front, from: &Caller| front.refused("xkms-unread", name, from);
            connection.blocking(caller, noted).await?;
            let title = "the client has to prove its VM and itself first";
            return Err(Problem::refusal(name, title).status(StatusCode::FORBIDDEN));
        }
    };
    let body = read(&connection, request, connection.guests.body).await?;
    let answer = move |front: &Front, from: &Caller| front.answer(&body, from, &Turn::aside());
    let reply = connection.blocking(Caller::Guest(line), answer).await?;
    Ok(routes::typed(reply.status, reply.content_type, reply.body))
}

async fn read(connection: &Connection, request: Request, most: usize) -> Result<Bytes, Problem> {
    let request = request.map(|inner| Body::new(Limited::new(inner, most)));
    let read = Bytes::from_request(request, &());
    let invalid = |title| Problem::error(StatusCode::BAD_REQUEST, "request-invalid", title);
    tokio::time::timeout(connection.guests.patience, read)
        .await
        .map_err(|_elapsed| invalid("the body did not arrive in time"))?
        .map_err(|_| invalid("the body is too long or ended early"))
}

async fn body<T: DeserializeOwned>(
    connection: &Connection,
    request: Request,
) -> Result<T, Problem> {
    let bytes = read(connection, request, MAX_BODY).await?;
    serde_json::from_slice(&bytes).map_err(|_| {
        let title = "the body is not what is expected";
        Problem::error(StatusCode::BAD_REQUEST, "request-invalid", title)
    })
}

/// The client learns which rule said no; details are in the service's audit log.
fn problem(answer: GuestAnswer) -> Problem {
    let GuestAnswer::Refused { name } = answer else { return Problem::internal() };
    Problem::refusal(name, "the client is not served").status(StatusCode::FORBIDDEN)
}

fn unclaimed() -> Problem {
    let title = "over a network the client says first which VM it is in";
    Problem::error(StatusCode::BAD_REQUEST, "request-invalid", title)
}

async fn challenge(
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Json<GuestChallenge>, Problem> {
    let ask: ChallengeAsk = body(&connection, request).await?;
    if let Whose::Claimed(_) = connection.whose {
        // What was proven of another claim does not go on under this one.
        connection.close();
        connection.claim.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&ask.vm);
    }
    let line = connection.line().ok_or_else(unclaimed)?;
    let answer = connection.guests.ask(GuestRequest::Challenge { line, ask }).await;
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
    let line = connection.line().ok_or_else(unclaimed)?;
    let vm = line.vm.clone();
    let request = GuestRequest::Attest { line, evidence: Box::new(evidence) };
    let answer = connection.guests.ask(request).await;
    let until = if let GuestAnswer::Admitted { until } = &answer { *until } else { 0 };
    // A proof that fails ends what an earlier one allowed.
    connection.admit(until);
    if until == 0 {
        return Err(problem(answer));
    }
    let guests = &connection.guests;
    let (service, message_key) = (guests.service.clone(), guests.message_key.clone());
    Ok(Json(Admitted { vm, until, service, message_key }).into_response())
}
