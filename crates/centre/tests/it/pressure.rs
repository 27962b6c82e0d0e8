//! Back-pressure, and a PKI that does not answer.

use std::time::Duration;

use centre::centre::Limits;
use model::centre::{CentreCommand, CentreOrder, CentreProgress, CentreReply, CentreWork};
use serve::{
    client::Client,
    clock::{Clock as _, SystemClock},
};

use crate::{
    pkis::root,
    support::{NOWHERE, OWN, OWN_PKI, World, carried_out, enrol, order, p256, refusal, subject},
};

const STUCK: &str = "
    [[domain]]
    name = 'stuck'
    anchors = ['root.pem']
    back_off_ms = 100
";

/// It is not tried for ever.
const BRIEFLY: &str = "
    patience_s = 2
";

/// Longer than any test.
const LONG: &str = "
    patience_s = 3600
";

const FEW: &str = "
    [[tenant]]
    name = 'acme'
    domains = ['own', 'stuck']
    [[tenant]]
    name = 'globex'
    domains = ['own', 'stuck']
    [[tenant]]
    name = 'initech'
    domains = ['own']
    [limits]
    tenant_orders = 3
    domain_orders = 5
    workers = 1
";

#[tokio::test(flavor = "multi_thread")]
async fn who_has_too_many_open_orders_is_told_when_to_come_back_and_others_are_not_held_up() {
    let dir = tempfile::tempdir().unwrap();
    serve::fsfile::write_atomic(&dir.path().join("secret"), b"s", 0o600).unwrap();
    let ca = root("foreign");
    serve::pem::write_certificates(&dir.path().join("root.pem"), &[ca.certificate()]).unwrap();
    let world = World::new(&format!("{STUCK}{LONG}{NOWHERE}{OWN_PKI}{FEW}"), dir.path()).await;
    let a = world.trust("a").await;
    let elsewhere = a.post::<_, CentreProgress>("/v1/orders", &stuck("initech")).await;
    assert_eq!(refusal(elsewhere), "domain-not-allowed");
    let first = stuck("acme");
    for one in [first.clone(), stuck("acme"), stuck("acme")] {
        let progress: CentreProgress = a.post("/v1/orders", &one).await.unwrap();
        assert!(!progress.is_final(), "{progress:?}");
    }
    let full = a.post::<_, CentreProgress>("/v1/orders", &stuck("acme")).await.unwrap_err();
    let problem = full.problem().unwrap();
    assert_eq!((problem.name.as_str(), problem.status), ("queue-full", 429));
    assert!(problem.detail.as_ref().unwrap().starts_with("again after "));
    // The same order again is no new one.
    let again: CentreProgress = a.post("/v1/orders", &first).await.unwrap();
    assert!(!again.is_final());
    // Another tenant has places of its own, until all are taken.
    for _ in 0..2 {
        a.post::<_, CentreProgress>("/v1/orders", &stuck("globex")).await.unwrap();
    }
    let full = a.post::<_, CentreProgress>("/v1/orders", &stuck("globex")).await;
    assert_eq!(refusal(full), "queue-full");
    // A PKI that does not answer holds up nobody else's.
    let done = carried_out(&a, &enrol("acme", "alice")).await;
    assert!(matches!(done, CentreProgress::Done(_)), "{done:?}");
    let CentreReply::Status(status) = world.centre.administer(CentreCommand::Status) else {
        panic!("no status")
    };
    let of = |name: &str| status.domains.iter().find(|one| one.domain.as_str() == name).unwrap();
    assert_eq!((of("stuck").queued + of("stuck").working, of("own").ended), (5, 1));
    assert_eq!(status.tenants.iter().map(|one| one.turned_away).sum::<u64>(), 2);
    let CentreReply::Queue { orders, total } =
        world.centre.administer(CentreCommand::Queue { limit: 2 })
    else {
        panic!("no queue")
    };
    assert_eq!((orders.len(), total, orders[0].id), (2, 5, first.id));
    world.end().await;
}

/// An order for the PKI that does not answer.
fn stuck(tenant: &str) -> CentreOrder {
    let work = CentreWork::Enrol { subject: subject("x", p256()), request: None };
    order(tenant, "stuck", work)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pki_that_does_not_answer_is_not_tried_for_ever_and_then_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    serve::fsfile::write_atomic(&dir.path().join("secret"), b"s", 0o600).unwrap();
    let ca = root("foreign");
    serve::pem::write_certificates(&dir.path().join("root.pem"), &[ca.certificate()]).unwrap();
    let world = World::new(&format!("{STUCK}{BRIEFLY}{NOWHERE}{OWN_PKI}{FEW}"), dir.path()).await;
    let a = world.trust("a").await;
    let all = [stuck("acme"), stuck("acme"), stuck("acme")];
    for one in &all {
        a.post::<_, CentreProgress>("/v1/orders", one).await.unwrap();
    }
    for one in &all {
        let ended = crate::support::ended(&a, one).await;
        let CentreProgress::Refused { name, .. } = ended else { panic!("{ended:?}") };
        assert_eq!(name, "provider-timed-out");
    }
    a.post::<_, CentreProgress>("/v1/orders", &stuck("acme")).await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_wait_for_a_foreign_pki_do_not_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    serve::fsfile::write_atomic(&dir.path().join("secret"), b"s", 0o600).unwrap();
    let ca = root("foreign");
    serve::pem::write_certificates(&dir.path().join("root.pem"), &[ca.certificate()]).unwrap();
    // It takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = NOWHERE.replace("127.0.0.1:1", &silent.local_addr().unwrap().to_string());
    let world =
        World::new(&format!("{STUCK}{LONG}exchange_s = 600\n{provider}{ONLY_STUCK}"), dir.path())
            .await;
    let a = world.trust("a").await;
    let mut held = Vec::new();
    for n in 0..2 * Limits::default().workers {
        let work = CentreWork::Enrol { subject: subject(&format!("n{n}"), p256()), request: None };
        a.post::<_, CentreProgress>("/v1/orders", &order("acme", "stuck", work)).await.unwrap();
        let taken = tokio::time::timeout(Duration::from_secs(120), silent.accept()).await;
        held.push(taken.unwrap_or_else(|_| panic!("order {n} waits for the others")).unwrap());
    }
    drop((held, silent));
    world.end().await;
}

const ONLY_STUCK: &str = "
    [[tenant]]
    name = 'acme'
    domains = ['stuck']
";

const ONE_BY_ONE: &str = "
    [limits]
    workers = 1
    batch = 1
";

/// How long orders of one tenant take, one after the other: the mean, in milliseconds.
async fn paced(client: &Client, count: u32) -> f64 {
    let begun = SystemClock.monotonic();
    for n in 0..count {
        let done = carried_out(client, &enrol("acme", &format!("n{n}"))).await;
        assert!(matches!(done, CentreProgress::Done(_)), "{done:?}");
    }
    (SystemClock.monotonic() - begun).as_secs_f64() * 1000.0 / f64::from(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_another_tenant_does_not_keep_orders_waiting_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(&format!("{OWN}{ONE_BY_ONE}"), dir.path()).await;
    let (a, b) = (world.trust("a").await, world.trust("b").await);
    let calm = paced(&a, 20).await;
    // Several hundred orders of another tenant wait.
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..40 {
        let b = b.clone();
        flood.spawn(async move {
            for m in 0..15 {
                let order = enrol("globex", &format!("f{n}-{m}"));
                b.post::<_, CentreProgress>("/v1/orders", &order).await.unwrap();
            }
        });
    }
    flood.join_all().await;
    let waiting = || world.centre.status().unwrap().domains[0].queued;
    let before = waiting();
    let flooded = paced(&a, 20).await;
    let after = waiting();
    println!(
        "an order took {calm:.1} ms, and {flooded:.1} ms with {before}..{after} of another waiting"
    );
    // Through one lane the first of the twenty would have waited for all. How many had their turn
    // meanwhile is for the machine to say; the bound, in turns, is `queue`'s.
    assert!(before >= 100, "only {before} wait");
    assert!(after > 0, "all of the flood had their turn first");
    world.end().await;
}
