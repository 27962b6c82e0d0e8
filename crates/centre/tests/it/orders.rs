//! Orders: carried out once, refused by name, taken up after a restart.

use model::{
    api::Bytes,
    centre::{
        CentreCommand, CentreOutcome, CentreProgress, CentreReply, CentreWork, Feed, FeedItem,
        FeedNews, Hello, Welcome,
    },
    keys::order::Prototype,
};
use pki::CertFacts;

use crate::support::{
    OWN, World, carried_out, certificate, ended, enrol, new_id, order, p256, refusal, revoke,
    subject,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_certified_renewed_and_revoked_and_everybody_learns_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(OWN, dir.path()).await;
    let (a, b) = (world.trust("a").await, world.trust("b").await);
    let first = enrol("acme", "alice");
    let done = certificate(&carried_out(&a, &first).await);
    let facts = CertFacts::read(&done).unwrap();
    let CentreWork::Enrol { subject: asked, .. } = &first.work else { panic!() };
    assert_eq!(facts.spki, asked.key.as_ref().unwrap().0);
    assert_eq!(facts.common_name.as_deref(), Some("alice"));
    // The same order again, from elsewhere too, is the same order.
    assert_eq!(certificate(&carried_out(&b, &first).await), done);
    // Another one under its id is not taken.
    let mut other = enrol("acme", "mallory");
    other.id = first.id;
    assert_eq!(refusal(a.post::<_, CentreProgress>("/v1/orders", &other).await), "order-reused");
    let renewal = CentreWork::Renew {
        certificate: Bytes(done.clone()),
        subject: Prototype::default(),
        request: None,
    };
    let renewed = certificate(&carried_out(&a, &order("acme", "own", renewal)).await);
    let again = CertFacts::read(&renewed).unwrap();
    assert_eq!(again.spki, facts.spki);
    assert_ne!(again.serial, facts.serial);
    let ended = carried_out(&a, &revoke("acme", &done)).await;
    let CentreProgress::Done(CentreOutcome::Revoked { at }) = ended else { panic!("{ended:?}") };
    // Twice revoked is revoked once, since the first time.
    let twice = carried_out(&b, &revoke("acme", &done)).await;
    assert_eq!(twice, CentreProgress::Done(CentreOutcome::Revoked { at }));
    // What the other trust service reads from the beginning.
    let feed = wait_for_crl(&b, &world, &facts.serial).await;
    assert!(!feed.resync);
    let bound: Vec<&[u8]> = feed
        .items
        .iter()
        .filter_map(|item| match &item.news {
            FeedNews::Bound(bound) => Some(bound.certificate.0.as_slice()),
            _ => None,
        })
        .collect();
    assert_eq!(bound, [done.as_slice(), renewed.as_slice()]);
    let numbers: Vec<u64> = feed.items.iter().map(|item| item.seq).collect();
    assert!(numbers.is_sorted() && feed.next == *numbers.last().unwrap());
    let rest: Feed = b.get(&format!("/v1/feed?after={}", feed.next)).await.unwrap();
    // No news comes twice; a CRL may have been published meanwhile.
    let newer = |item: &FeedItem| item.seq > feed.next && matches!(item.news, FeedNews::Crl { .. });
    assert!(rest.items.iter().all(newer), "{rest:?}");
    world.end().await;
}

/// The feed, once a CRL in it names this certificate.
async fn wait_for_crl(client: &serve::client::Client, world: &World, serial: &[u8]) -> Feed {
    let own = "own".parse().unwrap();
    let ca = world.centre.ca_certificate(&own).unwrap().to_vec();
    for _ in 0..2400 {
        let feed: Feed = client.get("/v1/feed").await.unwrap();
        let listed = feed.items.iter().any(|item| match &item.news {
            FeedNews::Crl { crl, .. } => {
                let now = time::OffsetDateTime::now_utc();
                pki::Crl::verify(&crl.0, &ca, now).unwrap().is_revoked(serial)
            }
            _ => false,
        });
        if listed {
            return feed;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no CRL names what was revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_says_no_to_has_a_name_and_an_audit_entry() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(OWN, dir.path()).await;
    let a = world.trust("a").await;
    let said = |order| {
        let a = a.clone();
        async move { refusal(a.post::<_, CentreProgress>("/v1/orders", &order).await) }
    };
    assert_eq!(said(enrol("nobody", "x")).await, "tenant-unknown");
    assert_eq!(said(enrol("globex", "x")).await, "host-not-allowed");
    let work = |subject| CentreWork::Enrol { subject, request: None };
    let other = order("acme", "elsewhere", work(subject("x", p256())));
    assert_eq!(said(other).await, "domain-unknown");
    let bare = order("acme", "own", work(Prototype::default()));
    assert_eq!(said(bare).await, "key-missing");
    let nameless = Prototype { name: None, ..subject("x", p256()) };
    assert_eq!(said(order("acme", "own", work(nameless))).await, "name-invalid");
    let code = Some(Bytes(vec![0; 60_000]));
    let large = Prototype { revocation_code_identifier: code, ..subject("x", p256()) };
    assert_eq!(said(order("acme", "own", work(large))).await, "order-too-large");
    let over = Prototype { not_on_or_after: Some(1), ..subject("x", p256()) };
    assert_eq!(said(order("acme", "own", work(over))).await, "interval-empty");
    assert_eq!(said(revoke("acme", b"no certificate")).await, "certificate-unreadable");
    let unknown = a.get::<CentreProgress>(&format!("/v1/orders/{}", new_id())).await;
    assert_eq!(refusal(unknown), "order-unknown");
    // A key that no CA certifies ends the order.
    let weak = order("acme", "own", work(subject("x", b"no key".to_vec())));
    let CentreProgress::Refused { name, hint } = carried_out(&a, &weak).await else { panic!() };
    assert_eq!(name, "provider-issue");
    assert!(hint.is_some());
    let hello = |url: &str| Hello { peer_url: url.to_owned() };
    let bad = a.post::<_, Welcome>("/v1/services/hello", &hello("http://x:1")).await;
    assert_eq!(refusal(bad), "peer-url-invalid");
    let exported = world.centre.administer(CentreCommand::ExportAudit);
    let CentreReply::AuditExported { directory, .. } = exported else { panic!("{exported:?}") };
    let log = std::fs::read_to_string(format!("{directory}/audit.jsonl")).unwrap();
    for name in ["tenant-unknown", "host-not-allowed", "domain-unknown", "provider-issue"] {
        assert!(log.contains(&format!("\"refused\":\"{name}\"")), "{name} is not in the log");
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(OWN, dir.path()).await;
    let a = world.trust("a").await;
    let welcome: Welcome = a
        .post("/v1/services/hello", &Hello { peer_url: "https://127.0.0.1:1".to_owned() })
        .await
        .unwrap();
    let first = enrol("acme", "alice");
    let done = carried_out(&a, &first).await;
    let feed: Feed = a.get("/v1/feed").await.unwrap();
    let authority = world.end().await;
    let world = World::of(authority, OWN, dir.path()).await;
    let a = world.trust("a").await;
    assert_eq!(ended(&a, &first).await, done);
    assert_eq!(carried_out(&a, &first).await, done);
    let again: Feed = a.get("/v1/feed").await.unwrap();
    assert_eq!(again.items[..feed.items.len()], feed.items);
    let hello = Hello { peer_url: "https://127.0.0.1:1".to_owned() };
    let other: Welcome = a.post("/v1/services/hello", &hello).await.unwrap();
    assert_eq!(other.domains, welcome.domains);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_and_ends_nothing_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(OWN, dir.path()).await;
    let (a, b) = (world.trust("a").await, world.trust("b").await);
    // `globex` is on server b alone.
    let theirs = enrol("globex", "carol");
    let carol = certificate(&carried_out(&b, &theirs).await);
    let said = |order| {
        let a = a.clone();
        async move { refusal(a.post::<_, CentreProgress>("/v1/orders", &order).await) }
    };
    assert_eq!(said(revoke("acme", &carol)).await, "certificate-foreign");
    let renewal = CentreWork::Renew {
        certificate: Bytes(carol.clone()),
        subject: Prototype::default(),
        request: None,
    };
    assert_eq!(said(order("acme", "own", renewal)).await, "certificate-foreign");
    // One that nobody ordered here is nobody's, though our own CA made it: its own, for example.
    let own = world.centre.ca_certificate(&"own".parse().unwrap()).unwrap().to_vec();
    assert_eq!(said(revoke("acme", &own)).await, "certificate-foreign");
    let seen = a.get::<CentreProgress>(&format!("/v1/orders/{}", theirs.id)).await;
    assert_eq!(refusal(seen), "order-unknown");
    carried_out(&b, &revoke("globex", &carol)).await;
    let about = |feed: &Feed| {
        let is = |news: &FeedNews| matches!(news, FeedNews::Bound(_) | FeedNews::Revoked { .. });
        feed.items.iter().filter(|item| is(&item.news)).count()
    };
    let (ours, theirs): (Feed, Feed) =
        (a.get("/v1/feed").await.unwrap(), b.get("/v1/feed").await.unwrap());
    assert_eq!((about(&ours), about(&theirs)), (0, 2));
    assert!(ours.next >= theirs.items.last().unwrap().seq - 1, "it is passed over, not withheld");
    let exported = world.centre.administer(CentreCommand::ExportAudit);
    let CentreReply::AuditExported { directory, .. } = exported else { panic!("{exported:?}") };
    let log = std::fs::read_to_string(format!("{directory}/audit.jsonl")).unwrap();
    for name in ["certificate-foreign", "order-unknown"] {
        assert!(log.contains(&format!("\"refused\":\"{name}\"")), "{name} is not in the log");
    }
    world.end().await;
}
