//! Server and client on real sockets: identities, refusals, limits, drain.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    routing::{get, post},
};
use http::StatusCode;
use model::Secret;
use serde::{Deserialize, Serialize};
use serve::{
    client::{Call, CallError, Client, ClientLimits, Identity},
    clock::{Clock as _, SharedClock, SystemClock},
    https::{Limits, ListenError, Peer, Server, ServerTls, UnixServer},
    keys::SigningKey,
    problem::{Json, Problem},
    shutdown::Shutdown,
};
use time::OffsetDateTime;
use tokio::{io::AsyncReadExt as _, task::JoinHandle};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Echo {
    text: String,
}

/// A CA made for one test.
struct TestCa {
    certificate: Vec<u8>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl TestCa {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn issue(&self, from: i64, to: i64) -> Identity {
        let key = SigningKey::generate().unwrap().to_pkcs8().unwrap();
        let pair = rcgen::KeyPair::try_from(key.expose().as_slice()).unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let now = OffsetDateTime::now_utc();
        params.not_before = now + time::Duration::seconds(from);
        params.not_after = now + time::Duration::seconds(to);
        let leaf = params.signed_by(&pair, &self.issuer).unwrap().der().to_vec();
        Identity { chain: vec![leaf], key }
    }
}

fn clock() -> SharedClock {
    SystemClock::shared()
}

/// `polls` counts the long polls that have come.
fn router(shutdown: Shutdown, polls: Arc<AtomicU32>) -> Router {
    let flaky = Arc::new(AtomicU32::new(0));
    Router::new()
        .route(
            "/who",
            get(|peer: Peer| async move {
                let certificate = peer.certificate(SystemClock.now()).map_err(Problem::from)?;
                Ok::<_, Problem>(Json(certificate.der.len()))
            }),
        )
        .route(
            "/from",
            get(|peer: Peer| async move { Json(peer.address().map(|a| a.ip().to_string())) }),
        )
        .route("/uid", get(|peer: Peer| async move { Json(peer.local_uid()) }))
        .route("/echo", post(|Json(echo): Json<Echo>| async move { Json(echo) }))
        .route("/nothing", post(|| async { StatusCode::NO_CONTENT }))
        .route(
            "/flaky",
            get(move || async move {
                if flaky.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Err(Problem::error(StatusCode::SERVICE_UNAVAILABLE, "busy", "busy"));
                }
                Ok(Json(true))
            }),
        )
        .route(
            "/poll",
            get(move || async move {
                polls.fetch_add(1, Ordering::SeqCst);
                tokio::select! {
                    () = shutdown.requested() => Json("ending"),
                    () = tokio::time::sleep(Duration::from_secs(60)) => Json("waited"),
                }
            }),
        )
}

struct Running {
    ca: TestCa,
    url: String,
    shutdown: Shutdown,
    polls: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        let ca = TestCa::new();
        let own = ca.issue(-10, 1000);
        let anchors = std::slice::from_ref(&ca.certificate);
        let tls = ServerTls::new(&own.chain, &own.key, anchors, clock()).unwrap();
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), tls, limits).await.unwrap();
        let url = format!("https://{}", server.local_addr());
        let (shutdown, polls) = (Shutdown::new(), Arc::default());
        let router = router(shutdown.clone(), Arc::clone(&polls));
        let task = tokio::spawn(server.run(router, shutdown.clone()));
        Self { ca, url, shutdown, polls, task }
    }

    fn client(&self, identity: Option<&Identity>) -> Client {
        let anchors = std::slice::from_ref(&self.ca.certificate);
        let limits = ClientLimits { back_off: Duration::from_millis(5), ..Default::default() };
        Client::https(&self.url, anchors, identity, clock(), limits).unwrap()
    }
}

async fn refusal_of(client: &Client) -> String {
    let error = client.get::<usize>("/who").await.unwrap_err();
    error.refusal().map_or_else(|| error.to_string(), str::to_owned)
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate_and_refused_by_name_without_a_valid_one() {
    let server = Running::start(Limits::default()).await;
    let good = server.ca.issue(-10, 100);
    let length = server.client(Some(&good)).get::<usize>("/who").await.unwrap();
    assert_eq!(length, good.chain[0].len());
    assert_eq!(refusal_of(&server.client(None)).await, "certificate-missing");
    let from = server.client(None).get::<Option<String>>("/from").await.unwrap();
    assert_eq!(from.as_deref(), Some("127.0.0.1"));
    let expired = server.ca.issue(-100, -10);
    assert_eq!(refusal_of(&server.client(Some(&expired))).await, "session-expired");
    let early = server.ca.issue(100, 1000);
    assert_eq!(refusal_of(&server.client(Some(&early))).await, "clock-skew");
}

#[tokio::test]
async fn a_connection_that_outlives_its_certificate_is_refused() {
    let server = Running::start(Limits::default()).await;
    // Longer if it ended before the first request: the machine may stall.
    for life in [2, 8, 32] {
        let client = server.client(Some(&server.ca.issue(-10, life)));
        if client.get::<usize>("/who").await.is_ok() {
            let over = u64::try_from(life * 1000 + 1100).unwrap();
            tokio::time::sleep(Duration::from_millis(over)).await;
            return assert_eq!(refusal_of(&client).await, "session-expired");
        }
    }
    panic!("it is never served");
}

#[tokio::test]
async fn a_certificate_of_another_authority_fails_the_handshake_even_when_expired() {
    let server = Running::start(Limits::default()).await;
    let stranger = TestCa::new();
    for (from, to) in [(-10, 100), (-100, -10)] {
        let client = server.client(Some(&stranger.issue(from, to)));
        assert!(client.post::<_, ()>("/nothing", &()).await.unwrap_err().is_away());
    }
    let other = Client::https(
        &server.url,
        &[stranger.certificate],
        None,
        clock(),
        ClientLimits { attempts: 1, ..Default::default() },
    );
    let error = other.unwrap().get::<bool>("/flaky").await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn requests_that_do_not_fit_are_refused_by_name() {
    let limits = Limits { body: 1000, ..Limits::default() };
    let server = Running::start(limits).await;
    let client = server.client(None);
    let echo = Echo { text: "x".to_owned() };
    assert_eq!(client.post::<_, Echo>("/echo", &echo).await.unwrap(), echo);
    let unknown = serde_json::json!({"text": "x", "more": 1});
    let error = client.post::<_, Echo>("/echo", &unknown).await.unwrap_err();
    assert_eq!(error.refusal(), Some("request-invalid"));
    for length in [1000, 100_000, 8 << 20] {
        let large = Echo { text: "x".repeat(length) };
        let error = client.post::<_, Echo>("/echo", &large).await.unwrap_err();
        assert_eq!(error.refusal(), Some("request-too-large"), "{length}: {error}");
    }
    let error = client.call::<()>(Call::post("/echo")).await.unwrap_err();
    assert_eq!(error.problem().unwrap().status, 415);
    let error = client.get::<()>("/none").await.unwrap_err();
    assert_eq!(error.problem().unwrap().name, "no-such-operation");
    let error = client.get::<()>("/echo").await.unwrap_err();
    assert_eq!(error.problem().unwrap().name, "method-not-allowed");
    client.post::<_, ()>("/nothing", &echo).await.unwrap();
}

#[tokio::test]
async fn an_idempotent_call_is_tried_again_and_an_absent_service_is_said_to_be_away() {
    let server = Running::start(Limits::default()).await;
    let client = server.client(None);
    assert!(client.get::<bool>("/flaky").await.unwrap());
    let short = Call::get("/poll").answer_within(Duration::from_millis(20));
    assert!(matches!(client.call::<String>(short).await, Err(CallError::TimedOut { .. })));
    server.shutdown.trigger();
    server.task.await.unwrap();
    assert!(matches!(client.get::<bool>("/flaky").await, Err(CallError::Unreachable { .. })));
}

#[tokio::test]
async fn at_the_end_a_long_poll_is_answered_and_the_port_is_free_soon() {
    let server = Running::start(Limits::default()).await;
    let client = server.client(None);
    let poll = tokio::spawn(async move { client.get::<String>("/poll").await });
    while server.polls.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.shutdown.trigger();
    tokio::time::timeout(Duration::from_secs(50), server.task).await.unwrap().unwrap();
    assert_eq!(poll.await.unwrap().unwrap(), "ending");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut_off() {
    let quick = Duration::from_millis(100);
    let limits = Limits { handshake: quick, head: quick, ..Limits::default() };
    let server = Running::start(limits).await;
    let address = server.url.trim_start_matches("https://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut byte = [0];
    let ended = tokio::time::timeout(Duration::from_secs(120), stream.read(&mut byte)).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let server = Running::start(Limits { connections: 1, ..Limits::default() }).await;
    let (first, second) = (server.client(None), server.client(None));
    let held = tokio::spawn(async move {
        let call = Call::get("/poll").answer_within(Duration::from_millis(300));
        let _ = first.call::<String>(call).await;
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    second.post::<_, ()>("/nothing", &()).await.unwrap();
    held.await.unwrap();
}

#[tokio::test]
async fn a_key_that_does_not_fit_its_certificate_is_refused() {
    let ca = TestCa::new();
    let (one, other) = (ca.issue(-1, 100), ca.issue(-1, 100));
    assert!(ServerTls::new(&one.chain, &other.key, &[], clock()).is_err());
    let junk = Secret::new(vec![1, 2, 3]);
    assert!(ServerTls::new(&one.chain, &junk, &[], clock()).is_err());
    for url in ["http://127.0.0.1:1", "https://", "https://a@b:1", "https://h:1/path", "x"] {
        let anchors = std::slice::from_ref(&ca.certificate);
        let made = Client::https(url, anchors, None, clock(), ClientLimits::default());
        assert!(made.is_err(), "{url}");
    }
}

async fn unix(path: &Path, shutdown: &Shutdown) -> Result<JoinHandle<()>, ListenError> {
    let server = UnixServer::bind(path, Limits::default()).await?;
    Ok(tokio::spawn(server.run(router(shutdown.clone(), Arc::default()), shutdown.clone())))
}

#[tokio::test]
async fn a_local_caller_is_known_by_its_user_and_a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let shutdown = Shutdown::new();
    let task = unix(&path, &shutdown).await.unwrap();
    let client = Client::unix(&path, ClientLimits::default());
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(client.get::<Option<u32>>("/uid").await.unwrap(), Some(own));
    assert_eq!(client.get::<Option<String>>("/from").await.unwrap(), None);
    assert_eq!(refusal_of(&client).await, "certificate-missing");
    assert!(matches!(unix(&path, &shutdown).await, Err(ListenError::Taken(_))));
    shutdown.trigger();
    task.await.unwrap();
    assert!(!path.exists());
}
