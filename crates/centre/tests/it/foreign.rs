//! Foreign PKIs behind the centre: `openssl cmp` and pebble.

use std::{path::Path, time::Duration};

use model::{
    api::Bytes,
    centre::{CentreOrder, CentreProgress, CentreWork, Welcome},
    keys::{KeyUse, UseWith, order::Prototype},
};
use pki::{CertFacts, KeyUses, Profile, UserCert};

use crate::{
    pkis::{Acme, root, serve_cmp, today, web_request},
    support::{World, carried_out, certificate, order, p256, refusal, subject},
};

fn there_is(program: &str, test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !there {
        println!("SKIPPED: {test}: there is no {program} (scripts/install-packages.sh test)");
    }
    there
}

fn cmp_config(url: &str) -> String {
    format!(
        "
        [[domain]]
        name = 'cmp'
        anchors = ['foreign.pem']
        back_off_ms = 200
        [domain.provider.cmp]
        url = '{url}'
        reference = 'vouchsafe'
        secret = {{ path = 'secret' }}
        [[tenant]]
        name = 'acme'
        domains = ['cmp']
        "
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_carried_out_by_a_ca_that_speaks_cmp_after_it_was_away_and_we_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, spki) = (root("Foreign CA"), p256());
    let uses = KeyUses { signature: true, ..KeyUses::default() };
    let cert = UserCert { name: "alice".to_owned(), uses, ..UserCert::default() };
    let issued = ca.issue(&Profile::User(cert), &spki, today()).unwrap().der;
    let alice = Prototype { uses: vec![KeyUse::Signature], ..subject("alice", spki) };
    let order = order("acme", "cmp", CentreWork::Enrol { subject: alice, request: None });
    // Nobody is there yet: the order is taken, and waits.
    let (server, url) = serve_cmp(dir.path(), &ca, &issued);
    drop(server);
    let world = World::new(&cmp_config(&url), dir.path()).await;
    let a = world.trust("a").await;
    let taken: CentreProgress = a.post("/v1/orders", &order).await.unwrap();
    assert!(!taken.is_final(), "{taken:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let still: CentreProgress = a.get(&format!("/v1/orders/{}", order.id)).await.unwrap();
    assert!(!still.is_final(), "{still:?}");
    let authority = world.end().await;
    // Both come back; nobody sends the order again.
    let (_server, url) = serve_cmp(dir.path(), &ca, &issued);
    let world = World::of(authority, &cmp_config(&url), dir.path()).await;
    let a = world.trust("a").await;
    let done = crate::support::ended(&a, &order).await;
    assert_eq!(certificate(&done), issued);
    assert_eq!(carried_out(&a, &order).await, done);
    world.end().await;
}

fn acme_config(acme: &Acme) -> String {
    format!(
        "
        [[domain]]
        name = 'web'
        anchors = ['web-root.pem']
        back_off_ms = 100
        [domain.provider.acme]
        directory = '{}'
        terms_agreed = true
        tls_anchors = ['web.pem']
        challenge_listen = '127.0.0.1:{}'
        [[tenant]]
        name = 'acme'
        domains = ['web']
        ",
        acme.directory, acme.challenges
    )
}

/// An order for a web server's name, with its own request.
fn web_order(dir: &Path, name: &str) -> CentreOrder {
    let (request, spki) = web_request(dir, name);
    let use_with =
        vec![UseWith { application: "urn:ietf:rfc:2818".to_owned(), identifier: name.to_owned() }];
    let subject = Prototype { uses: vec![KeyUse::Signature], use_with, ..subject(name, spki) };
    let request = Some(Bytes(request));
    order("acme", "web", CentreWork::Enrol { subject, request })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_carried_out_by_a_ca_that_speaks_acme_which_finds_the_proof_here() {
    let test = "an order to ACME";
    if !there_is("pebble", test) || !there_is("pebble-challtestsrv", test) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let acme = Acme::start(dir.path());
    let world = World::new(&acme_config(&acme), dir.path()).await;
    let a = world.trust("a").await;
    let asked = web_order(dir.path(), "www.example.org");
    let done = certificate(&carried_out(&a, &asked).await);
    let facts = CertFacts::read(&done).unwrap();
    assert_eq!(facts.names, [pki::UserName::Dns("www.example.org".to_owned())]);
    let CentreWork::Enrol { subject, .. } = &asked.work else { panic!() };
    assert_eq!(facts.spki, subject.key.as_ref().unwrap().0);
    // Without the subject's own request it is no order for this PKI, and it says so beforehand.
    let bare = CentreWork::Enrol { subject: subject.clone(), request: None };
    let outcome = a.post::<_, CentreProgress>("/v1/orders", &order("acme", "web", bare)).await;
    assert_eq!(refusal(outcome), "request-missing");
    let hello = model::centre::Hello { peer_url: "https://127.0.0.1:1".to_owned() };
    let welcome: Welcome = a.post("/v1/services/hello", &hello).await.unwrap();
    assert!(welcome.domains[0].wants_request);
    world.end().await;
}
