//! The centre as a process, killed at any point: an order leads to one certificate, and what was
//! answered once is answered again. `CENTRE_KILLS` says how often; a few by default.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::State, routing::post};
use model::{
    OrderId,
    api::service::{Certified, Service, ServiceKey},
    centre::{CentreOrder, CentreProgress, Feed, FeedNews},
};
use pki::Ca;
use serve::{
    client::{Call, Client},
    https::{Limits, UnixServer},
    problem::Json,
    shutdown::Shutdown,
};

use crate::{
    hsm,
    pkis::DAY,
    support::{Authority, certificate, certify, enrol},
};

/// The agent of the centre's server.
pub(crate) async fn agent(ca: Arc<Ca>, socket: &Path) -> Shutdown {
    async fn answer(State(ca): State<Arc<Ca>>, Json(key): Json<ServiceKey>) -> Json<Certified> {
        Json(certify(&ca, Service::Centre, &"c".parse().unwrap(), (&key.spki.0, DAY)))
    }
    let router = Router::new().route("/v1/services/centre/certify", post(answer)).with_state(ca);
    let (server, stop) =
        (UnixServer::bind(socket, Limits::default()).await.unwrap(), Shutdown::new());
    tokio::spawn(server.run(router, stop.clone()));
    stop
}

/// The process; dead when dropped.
pub(crate) struct Process {
    child: Child,
    address: PathBuf,
}

impl Process {
    pub(crate) async fn start(dir: &Path) -> (Self, String) {
        let address = dir.join("address");
        let _ = std::fs::remove_file(&address);
        let child = Command::new(env!("CARGO_BIN_EXE_vouchsafe-centre"))
            .arg("--config")
            .arg(dir.join("centre.toml"))
            .env(hsm::CONFIG, dir.join("softhsm2.conf"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Self { child, address };
        for _ in 0..7200 {
            if let Ok(text) = std::fs::read_to_string(&process.address)
                && text.ends_with('\n')
            {
                return (process, format!("https://{}", text.trim()));
            }
            assert!(process.child.try_wait().unwrap().is_none(), "the centre ended early");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the centre does not start");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const CONFIG: &str = "
listen = '127.0.0.1:0'
address_file = 'address'
state_dir = 'state'
agent_socket = 'agent.sock'
anchor = { by = 'none' }
[log]
filter = 'warn'
[[centre.domain]]
name = 'own'
[centre.domain.provider.own]
ca_name = 'Own CA'
[[centre.tenant]]
name = 'acme'
domains = ['own']
[centre.limits]
workers = 2
batch = 4
";

/// Sends every order again and notes which certificates come back.
pub(crate) async fn push(
    client: &Client,
    orders: &[CentreOrder],
    seen: &mut BTreeMap<OrderId, BTreeSet<Vec<u8>>>,
) {
    for order in orders {
        let Ok(sent) = client.post::<_, CentreProgress>("/v1/orders", order).await else { return };
        if sent.is_final() {
            seen.entry(order.id).or_default().insert(certificate(&sent));
        }
    }
    for order in orders {
        let path = format!("/v1/orders/{}?wait_s=10", order.id);
        let call = Call::get(path).answer_within(Duration::from_secs(120));
        match client.call::<CentreProgress>(call).await {
            Ok(progress) if progress.is_final() => {
                seen.entry(order.id).or_default().insert(certificate(&progress));
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_an_order_leads_to_one_certificate() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("centre.toml"), CONFIG).unwrap();
    let authority = Authority::new();
    let stop = agent(Arc::clone(&authority.0), &dir.path().join("agent.sock")).await;
    let kills: u64 = std::env::var("CENTRE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let count = usize::try_from(kills * 6).unwrap();
    let orders: Vec<CentreOrder> = (0..count).map(|n| enrol("acme", &format!("n{n}"))).collect();
    let mut seen: BTreeMap<OrderId, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for n in 0..kills {
        let (process, url) = Process::start(dir.path()).await;
        let client = authority.trust(&url, "a").await;
        // Other points each time: from before the first order is taken to after the last.
        let after = Duration::from_millis(20 + n * 37 % 400);
        let some = &orders[..usize::try_from((n + 1) * 6).unwrap()];
        let pushed = tokio::time::timeout(after, push(&client, some, &mut seen)).await;
        println!("killed after {after:?}, {} orders known to be done ({pushed:?})", seen.len());
        drop(process);
    }
    let (process, url) = Process::start(dir.path()).await;
    let client = authority.trust(&url, "a").await;
    // Each time it waits for those that are not done; how long they take is for the disk to say.
    for _ in 0..20 {
        push(&client, &orders, &mut seen).await;
        if seen.len() == orders.len() {
            break;
        }
    }
    assert_eq!(seen.len(), orders.len(), "every order is carried out");
    for (id, certificates) in &seen {
        assert_eq!(certificates.len(), 1, "order {id} has one certificate");
    }
    // And the feed tells of each once.
    let mut told: BTreeMap<OrderId, usize> = BTreeMap::new();
    let mut after = 0;
    loop {
        let feed: Feed = client.get(&format!("/v1/feed?after={after}")).await.unwrap();
        if feed.items.is_empty() {
            break;
        }
        after = feed.next;
        for item in feed.items {
            if let FeedNews::Bound(bound) = item.news {
                *told.entry(bound.order).or_default() += 1;
                assert!(seen[&bound.order].contains(&bound.certificate.0));
            }
        }
    }
    assert_eq!(told.len(), orders.len());
    assert!(told.values().all(|times| *times == 1));
    let status = verb(dir.path(), &["status"]);
    assert_eq!(status["status"]["domains"][0]["provider"], "own");
    let exported = verb(dir.path(), &["export-audit"]);
    assert!(exported["audit-exported"]["entries"].as_u64().unwrap() > kills);
    drop(process);
    stop.trigger();
}

/// What the running centre answers an administrator.
fn verb(dir: &Path, verb: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vouchsafe-centre"));
    let output = command.arg("--config").arg(dir.join("centre.toml")).args(verb).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
