//! Each side demands the other's passport; each way of not having it has its name, on either side.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use model::{
    Digest, HostId,
    api::{
        Bytes,
        service::{Certified, HostStanding, Service},
    },
};
use passport::{Certifier, Certifying, Passport, problem, rejection};
use pki::{Ca, CaSpec, Profile, Validity, Wanted};
use serve::{
    client::{CallError, ClientLimits, Identity},
    clock::{Clock, SystemClock},
    https::{Limits, Peer, Server},
    keys::SigningKey,
    problem::{Json, Problem},
    shutdown::Shutdown,
};

/// The host and its authority, as one.
#[derive(Debug)]
struct Host {
    ca: Arc<Ca>,
    name: HostId,
    life: Duration,
}

impl Certifier for Host {
    fn certify<'a>(&'a self, service: Service, spki: &'a [u8]) -> Certifying<'a, Certified> {
        let (host, verdict) = (self.name.clone(), Digest::sha256([1; 32]));
        let profile = Profile::Service { service, host, verdict };
        let back = Duration::from_secs(1);
        let validity = Validity::backdated(SystemClock.now(), back, self.life);
        let certificate = Bytes(self.ca.issue(&profile, spki, validity).unwrap().der);
        let life = u64::try_from(self.life.as_millis()).unwrap();
        let expires_at = SystemClock.unix_ms() + life;
        let anchors = vec![Bytes(self.ca.certificate().to_vec())];
        Box::pin(async move { Ok(Certified { certificate, expires_at, anchors }) })
    }

    fn standing<'a>(&'a self, host: &'a HostId) -> Certifying<'a, HostStanding> {
        let (host, services) = (host.clone(), vec![Service::Trust]);
        let verdict = Some(Digest::sha256([1; 32]));
        Box::pin(async move { Ok(HostStanding { host, trusted: true, verdict, services }) })
    }
}

fn ca() -> Arc<Ca> {
    let spec = CaSpec {
        common_name: "authority".to_owned(),
        path_length: 0,
        validity: Validity::backdated(SystemClock.now(), 2 * LONG, 6 * LONG),
    };
    Arc::new(Ca::create_root(&spec).unwrap().0)
}

fn passport(ca: &Arc<Ca>, service: Service, host: &str, life: Duration) -> Passport {
    let host = Host { ca: Arc::clone(ca), name: host.parse().unwrap(), life };
    Passport::new(Arc::new(host), service, SystemClock::shared())
}

const LONG: Duration = Duration::from_secs(600);

async fn hello(State(passport): State<Passport>, peer: Peer) -> Result<Json<String>, Problem> {
    let caller = passport.caller(&peer, &Wanted::any(Service::Trust)).map_err(problem)?;
    Ok(Json(caller.name().to_string()))
}

/// A centre on host `c` that talks to trust services; its URL.
async fn centre(passport: &Passport) -> String {
    let current = passport.renew().await.unwrap();
    let tls = passport.server_tls(&current).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(any, tls, Limits::default()).await.unwrap();
    let url = format!("https://{}", server.local_addr());
    let router = Router::new().route("/hello", get(hello)).with_state(passport.clone());
    tokio::spawn(server.run(router, Shutdown::new()));
    url
}

async fn ask(passport: &Passport, url: &str, wanted: Wanted) -> Result<String, CallError> {
    let current = passport.renew().await.unwrap();
    let limits = ClientLimits { attempts: 1, ..ClientLimits::default() };
    passport.client(&current, url, wanted, limits).unwrap().get("/hello").await
}

fn name_of(outcome: Result<String, CallError>) -> String {
    let error = outcome.unwrap_err();
    let of_server = rejection(&error).map(|rejection| rejection.code().to_owned());
    of_server.or_else(|| error.refusal().map(str::to_owned)).unwrap_or_else(|| error.to_string())
}

#[tokio::test]
async fn the_authority_of_the_first_passport_stands_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passport-anchors.pem");
    let (right, other) = (ca(), ca());
    let pinned = |ca: &Arc<Ca>| {
        let host = Host { ca: Arc::clone(ca), name: "a".parse().unwrap(), life: LONG };
        Passport::pinned(Arc::new(host), Service::Trust, SystemClock::shared(), dir.path())
    };
    let first = pinned(&right);
    first.renew().await.unwrap();
    first.renew().await.unwrap();
    pinned(&right).renew().await.unwrap();
    let refused = pinned(&other).renew().await.unwrap_err();
    assert_eq!(refused.refusal(), Some("passport-anchors-changed"));
    // Who removes the file believes whoever comes next.
    std::fs::remove_file(&file).unwrap();
    pinned(&other).renew().await.unwrap();
}

#[tokio::test]
async fn each_side_demands_the_right_service_of_the_right_host() {
    let (ca, other) = (ca(), ca());
    let server = passport(&ca, Service::Centre, "c", LONG);
    let url = centre(&server).await;
    let a = passport(&ca, Service::Trust, "a", LONG);
    let there = || Wanted::of(Service::Centre, "c".parse().unwrap());
    assert_eq!(ask(&a, &url, there()).await.unwrap(), "trust:a");
    // What the client says of the server.
    let elsewhere = Wanted::of(Service::Centre, "d".parse().unwrap());
    assert_eq!(name_of(ask(&a, &url, elsewhere).await), "passport-wrong-host");
    let peer = Wanted::any(Service::Trust);
    assert_eq!(name_of(ask(&a, &url, peer).await), "passport-wrong-service");
    // What the server says of the client.
    let rival = passport(&ca, Service::Centre, "a", LONG);
    assert_eq!(name_of(ask(&rival, &url, there()).await), "passport-wrong-service");
    // Both belong to other authorities: the client sees it first.
    let stranger = passport(&other, Service::Trust, "a", LONG);
    assert_eq!(name_of(ask(&stranger, &url, there()).await), "passport-foreign");
    let current = server.renew().await.unwrap();
    assert!(current.generation > 1);
    assert_eq!(ask(&a, &url, there()).await.unwrap(), "trust:a");
}

#[tokio::test]
async fn a_certificate_that_is_no_passport_or_has_expired_gets_a_name_and_nothing_else() {
    let ca = ca();
    let server = passport(&ca, Service::Centre, "c", LONG);
    let url = centre(&server).await;
    let limits = || ClientLimits { attempts: 1, ..ClientLimits::default() };
    let mut met = None;
    // Longer if it ended before the first request: the machine may stall.
    for life in [2, 8, 32].map(Duration::from_secs) {
        let brief = passport(&ca, Service::Trust, "a", life);
        let current = brief.renew().await.unwrap();
        let client = brief.client(&current, &url, Wanted::any(Service::Centre), limits()).unwrap();
        if client.get::<String>("/hello").await.is_ok_and(|said| said == "trust:a") {
            tokio::time::sleep(life + Duration::from_millis(1200)).await;
            met = Some((brief, client));
            break;
        }
    }
    let (brief, client) = met.expect("it is served while its passport is in force");
    // On the connection that it still has, and on a new one.
    for _ in 0..2 {
        let late = client.get::<String>("/hello").await.unwrap_err();
        assert_eq!(late.refusal(), Some("passport-expired"));
    }
    assert!(brief.current().is_none());
    let key = SigningKey::generate().unwrap();
    let (host, verdict) = ("a".parse().unwrap(), Digest::sha256([1; 32]));
    let session = Profile::HostSession { host, verdict };
    let validity = Validity::new(SystemClock.now(), LONG);
    let chain = vec![ca.issue(&session, key.spki(), validity).unwrap().der];
    let session = Identity { chain, key: key.to_pkcs8().unwrap() };
    for identity in [None, Some(&session)] {
        let check = Arc::new(Anyone);
        let clock = SystemClock::shared();
        let bare = serve::client::Client::checked(&url, check, identity, clock, limits()).unwrap();
        let error = bare.get::<String>("/hello").await.unwrap_err();
        assert_eq!(error.refusal(), Some("passport-missing"));
    }
}

#[tokio::test]
async fn a_passport_is_renewed_at_half_its_life_with_another_key() {
    let ca = ca();
    // The machine may stall for all the rest of a short life: then a longer one tells.
    for life in [2, 8, 32].map(Duration::from_secs) {
        let kept = passport(&ca, Service::Trust, "a", life);
        let (running, shutdown) = (kept.clone(), Shutdown::new());
        let task = tokio::spawn(async move { running.run(shutdown).await });
        let first = kept.ready().await;
        tokio::time::sleep(life * 3 / 4).await;
        let second = kept.current();
        task.abort();
        let Some(second) = second.filter(|second| second.generation > first.generation) else {
            continue;
        };
        assert_ne!(second.key.spki(), first.key.spki());
        return;
    }
    panic!("it is not renewed before its end");
}

/// Trusts any server: only to reach one without a passport.
#[derive(Debug)]
struct Anyone;

impl serve::client::ServerCheck for Anyone {
    fn check(
        &self,
        _leaf: &[u8],
        _intermediates: &[&[u8]],
        _now: time::OffsetDateTime,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
}

/// A clock that is so many seconds off.
#[derive(Debug)]
struct Off(i64);

impl Clock for Off {
    fn now(&self) -> time::OffsetDateTime {
        SystemClock.now() + time::Duration::seconds(self.0)
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

#[tokio::test]
async fn a_service_whose_clock_is_off_refuses_its_own_passport_by_name_and_says_so_once() {
    for (off, name) in [(600, "passport-expired"), (-600, "passport-not-yet-valid")] {
        let host = Host { ca: ca(), name: "a".parse().unwrap(), life: LONG / 2 };
        let passport = Passport::new(Arc::new(host), Service::Trust, Arc::new(Off(off)));
        assert_eq!(passport.renew().await.unwrap_err().refusal(), Some(name));
        assert!(passport.current().is_none());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn({
            let passport = passport.clone();
            async move { passport.noted(move |why| drop(tell.send(why))).await }
        });
        assert_eq!(told.recv().await.unwrap().0, name);
        passport.renew().await.unwrap_err();
        let again = tokio::time::timeout(Duration::from_millis(300), told.recv()).await;
        assert!(again.is_err(), "{again:?}");
    }
    // A clock that is ahead by less than the passport lasts is not refused.
    let host = Host { ca: ca(), name: "a".parse().unwrap(), life: 2 * LONG };
    let passport = Passport::new(Arc::new(host), Service::Trust, Arc::new(Off(600)));
    assert!(passport.renew().await.is_ok());
}
