//! A centre with trust services around it, whose passports come from a test authority.

use std::{path::Path, sync::Arc, time::Duration};

use centre::{
    centre::{Centre, Settings},
    routes::{self, App},
};
use model::{
    Digest, HostId, OrderId,
    api::{
        Bytes,
        service::{Certified, HostStanding, Service},
    },
    centre::{CentreOrder, CentreOutcome, CentreProgress, CentreWork, EndReason},
    keys::order::Prototype,
};
use passport::{Certifier, Certifying, Passport};
use pki::{Ca, Profile, Validity, Wanted};
use serve::{
    client::{Call, CallError, Client, ClientLimits},
    clock::{Clock as _, SystemClock},
    https::{Limits, Server},
    keys::SigningKey,
    random,
    shutdown::Shutdown,
};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::pkis::{DAY, root};

/// The authority and every agent, as one.
#[derive(Debug)]
struct Agents {
    ca: Arc<Ca>,
    host: HostId,
    life: Duration,
}

impl Certifier for Agents {
    fn certify<'a>(&'a self, service: Service, spki: &'a [u8]) -> Certifying<'a, Certified> {
        let certified = certify(&self.ca, service, &self.host, (spki, self.life));
        Box::pin(async move { Ok(certified) })
    }

    fn standing<'a>(&'a self, host: &'a HostId) -> Certifying<'a, HostStanding> {
        let host = host.clone();
        let verdict = Some(Digest::sha256([1; 32]));
        let services = vec![Service::Trust, Service::Centre];
        Box::pin(async move { Ok(HostStanding { host, trusted: true, verdict, services }) })
    }
}

/// What an agent answers.
pub(crate) fn certify(
    ca: &Ca,
    service: Service,
    host: &HostId,
    (spki, life): (&[u8], Duration),
) -> Certified {
    let profile =
        Profile::Service { service, host: host.clone(), verdict: Digest::sha256([1; 32]) };
    let validity = Validity::backdated(SystemClock.now(), Duration::from_secs(1), life);
    Certified {
        certificate: Bytes(ca.issue(&profile, spki, validity).unwrap().der),
        expires_at: SystemClock.unix_ms() + u64::try_from(life.as_millis()).unwrap(),
        anchors: vec![Bytes(ca.certificate().to_vec())],
    }
}

/// The authority of a test.
#[derive(Clone, Debug)]
pub(crate) struct Authority(pub(crate) Arc<Ca>);

impl Authority {
    pub(crate) fn new() -> Self {
        Self(Arc::new(root("authority")))
    }

    pub(crate) fn passport(&self, service: Service, host: &str) -> Passport {
        self.passport_for(service, host, DAY)
    }

    pub(crate) fn passport_for(&self, service: Service, host: &str, life: Duration) -> Passport {
        let host = host.parse().unwrap();
        let agents = Agents { ca: Arc::clone(&self.0), host, life };
        Passport::new(Arc::new(agents), service, SystemClock::shared())
    }

    /// A client of the centre with this passport.
    pub(crate) async fn client(&self, url: &str, passport: &Passport) -> Client {
        let current = passport.renew().await.unwrap();
        let limits = ClientLimits { attempts: 1, ..ClientLimits::default() };
        passport.client(&current, url, Wanted::any(Service::Centre), limits).unwrap()
    }

    /// The trust service of a host.
    pub(crate) async fn trust(&self, url: &str, host: &str) -> Client {
        self.client(url, &self.passport(Service::Trust, host)).await
    }
}

/// A centre in this process.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) centre: Arc<Centre>,
    pub(crate) url: String,
    stop: Shutdown,
    server: JoinHandle<()>,
}

pub(crate) fn settings(text: &str, dir: &Path) -> Settings {
    let settings: Settings = toml::from_str(text).unwrap();
    let settings = settings.resolved(dir);
    assert_eq!(settings.problem(), None);
    settings
}

/// A PKI of the centre's own.
pub(crate) const OWN_PKI: &str = "
    [[domain]]
    name = 'own'
    [domain.provider.own]
    ca_name = 'Own CA'
";

/// A provider that nobody answers for, for the domain before it.
pub(crate) const NOWHERE: &str = "
    [domain.provider.cmp]
    url = 'http://127.0.0.1:1/'
    reference = 'r'
    secret = { path = 'secret' }
";

/// One PKI of the centre's own, two tenants.
pub(crate) const OWN: &str = "
    [[domain]]
    name = 'own'
    [domain.provider.own]
    ca_name = 'Own CA'
    [[tenant]]
    name = 'acme'
    domains = ['own']
    [[tenant]]
    name = 'globex'
    domains = ['own']
    hosts = ['b']
";

impl World {
    pub(crate) async fn new(text: &str, dir: &Path) -> Self {
        Self::of(Authority::new(), text, dir).await
    }

    pub(crate) async fn of(authority: Authority, text: &str, dir: &Path) -> Self {
        let (settings, state, stop) = (settings(text, dir), dir.join("state"), Shutdown::new());
        let reach = (Handle::current(), stop.clone());
        let opened = tokio::task::spawn_blocking(move || {
            Centre::open(settings, &state, SystemClock::shared(), reach, anchor::Anchoring::none())
        });
        let centre = opened.await.unwrap().unwrap();
        centre.start().unwrap();
        let passport = authority.passport(Service::Centre, "c");
        let current = passport.renew().await.unwrap();
        let tls = passport.server_tls(&current).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(any, tls, Limits::default()).await.unwrap();
        let url = format!("https://{}", server.local_addr());
        let app = App { centre: Arc::clone(&centre), passport };
        let server = tokio::spawn(server.run(routes::router(app), stop.clone()));
        Self { authority, centre, url, stop, server }
    }

    pub(crate) async fn trust(&self, host: &str) -> Client {
        self.authority.trust(&self.url, host).await
    }

    /// Ends it in order.
    pub(crate) async fn end(self) -> Authority {
        self.stop.trigger();
        self.server.await.unwrap();
        let centre = self.centre;
        tokio::task::spawn_blocking(move || centre.close()).await.unwrap().unwrap();
        self.authority
    }
}

pub(crate) fn p256() -> Vec<u8> {
    SigningKey::generate().unwrap().spki().to_vec()
}

pub(crate) fn new_id() -> OrderId {
    OrderId(random::bytes().unwrap())
}

pub(crate) fn subject(name: &str, key: Vec<u8>) -> Prototype {
    Prototype { key: Some(Bytes(key)), name: Some(name.to_owned()), ..Prototype::default() }
}

pub(crate) fn order(tenant: &str, domain: &str, work: CentreWork) -> CentreOrder {
    CentreOrder {
        id: new_id(),
        tenant: tenant.parse().unwrap(),
        domain: domain.parse().unwrap(),
        work,
    }
}

pub(crate) fn enrol(tenant: &str, name: &str) -> CentreOrder {
    order(tenant, "own", CentreWork::Enrol { subject: subject(name, p256()), request: None })
}

pub(crate) fn revoke(tenant: &str, certificate: &[u8]) -> CentreOrder {
    let certificate = Bytes(certificate.to_vec());
    order(tenant, "own", CentreWork::Revoke { certificate, reason: EndReason::KeyCompromise })
}

/// Sends an order and waits for its end.
pub(crate) async fn carried_out(client: &Client, order: &CentreOrder) -> CentreProgress {
    let sent: CentreProgress = client.post("/v1/orders", order).await.unwrap();
    if sent.is_final() { sent } else { ended(client, order).await }
}

/// Waits for the end of an order.
pub(crate) async fn ended(client: &Client, order: &CentreOrder) -> CentreProgress {
    for _ in 0..40 {
        let path = format!("/v1/orders/{}?wait_s=5", order.id);
        let call = Call::get(path).answer_within(Duration::from_secs(120));
        let progress: CentreProgress = client.call(call).await.unwrap();
        if progress.is_final() {
            return progress;
        }
    }
    panic!("the order {} does not end", order.id);
}

pub(crate) fn certificate(progress: &CentreProgress) -> Vec<u8> {
    match progress {
        CentreProgress::Done(CentreOutcome::Certified { certificate, .. }) => certificate.0.clone(),
        other => panic!("{other:?}"),
    }
}

/// The name of the refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> String {
    let error = outcome.unwrap_err();
    error.refusal().unwrap_or_else(|| panic!("{error}")).to_owned()
}
