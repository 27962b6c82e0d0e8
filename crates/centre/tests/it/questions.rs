//! Questions: about keys of the same PKI, and of another one over a bridge.

use std::{path::Path, time::Duration};

use model::{
    api::Bytes,
    centre::CentreQuestion,
    keys::{Anchor, Found, KeyExample, KeyFinding, Knowledge, Query, StatusValue},
};
use pki::{Ca, CaSpec, Revocation, RevocationReason, Validity};
use serve::{
    client::Client,
    clock::{Clock as _, SystemClock},
    pem,
};

use crate::{
    pkis::{DAY, Elsewhere, root},
    support::{
        Authority, NOWHERE, OWN, OWN_PKI, World, carried_out, certificate, enrol, refusal, revoke,
    },
};

fn by_name(domain: &str, name: &str) -> CentreQuestion {
    let binding = KeyExample { name: Some(name.to_owned()), ..KeyExample::default() };
    ask(domain, binding)
}

fn by_certificate(domain: &str, certificate: &[u8]) -> CentreQuestion {
    let certificates = vec![Bytes(certificate.to_vec())];
    ask(domain, KeyExample { certificates, ..KeyExample::default() })
}

fn ask(domain: &str, binding: KeyExample) -> CentreQuestion {
    CentreQuestion {
        tenant: "acme".parse().unwrap(),
        domain: domain.parse().unwrap(),
        query: Query { binding, instant: None, limit: 4 },
        validate: true,
    }
}

async fn answer(client: &Client, question: &CentreQuestion) -> Found {
    client.post("/v1/questions", question).await.unwrap()
}

/// What an answer rests on.
fn basis(answer: &Found) -> &Knowledge {
    answer.knowledge.as_ref().unwrap()
}

fn verdict(answer: &Found) -> StatusValue {
    answer.bindings[0].status.as_ref().unwrap().value
}

#[tokio::test(flavor = "multi_thread")]
async fn another_trust_service_learns_of_a_key_of_the_same_pki_from_the_pki() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(OWN, dir.path()).await;
    let (a, b) = (world.trust("a").await, world.trust("b").await);
    let alice = certificate(&carried_out(&a, &enrol("acme", "alice")).await);
    let found = answer(&b, &by_name("own", "alice")).await;
    assert_eq!(basis(&found).anchor, Anchor::Ca("Own CA".to_owned()));
    assert_eq!(basis(&found).pki_calls, 1);
    assert_eq!(verdict(&found), StatusValue::Valid, "{:?}", found);
    assert_eq!(found.bindings[0].name.as_deref(), Some("alice"));
    assert_eq!(found.bindings[0].certificates[0].0, alice);
    // By certificate and by key too; nobody else is like it.
    assert_eq!(verdict(&answer(&b, &by_certificate("own", &alice)).await), StatusValue::Valid);
    let key = KeyExample { key: Some(found.bindings[0].key.clone()), ..KeyExample::default() };
    assert_eq!(answer(&b, &ask("own", key)).await.bindings.len(), 1);
    let nobody = answer(&b, &by_name("own", "bob")).await;
    assert!(nobody.bindings.is_empty() && basis(&nobody).pki_calls == 1);
    let empty = ask("own", KeyExample::default());
    let empty = b.post::<_, Found>("/v1/questions", &empty).await;
    assert_eq!(refusal(empty), "example-empty");
    // Revoked is known at once, CRL or not.
    carried_out(&a, &revoke("acme", &alice)).await;
    let revoked = answer(&b, &by_name("own", "alice")).await;
    assert_eq!(verdict(&revoked), StatusValue::Invalid);
    let status = revoked.bindings[0].status.as_ref().unwrap();
    assert_eq!(status.aspects.revocation_status, KeyFinding::Bad);
    world.end().await;
}

/// Another PKI, and a bridge between it and the centre's own.
struct Bridge {
    root: Ca,
    bridge: Ca,
    /// The bridge under the root, and our own CA under the bridge, DER.
    crosses: [Vec<u8>; 2],
}

impl Bridge {
    fn to(own: &[u8]) -> Self {
        let root = root("CA A");
        let validity = Validity::backdated(SystemClock.now(), DAY, 5 * DAY);
        let named = |name: &str, path_length| CaSpec {
            common_name: name.to_owned(),
            path_length,
            validity,
        };
        let (bridge, _) = root.create_sub(&named("Bridge", 1)).unwrap();
        let key = Elsewhere(pki::CertFacts::read(own).unwrap().spki);
        let crossed = bridge.create_sub_for(&named("Own CA", 0), Box::new(key)).unwrap();
        let crosses = [bridge.certificate().to_vec(), crossed.certificate().to_vec()];
        Self { root, bridge, crosses }
    }

    /// Writes what the centre's configuration names: `crosses` of the two, and both CAs' lists.
    fn write(&self, dir: &Path, crosses: usize, revoked: &[Revocation]) {
        pem::write_certificates(&dir.join("root.pem"), &[self.root.certificate()]).unwrap();
        let all: Vec<&[u8]> = self.crosses.iter().take(crosses).map(Vec::as_slice).collect();
        pem::write_certificates(&dir.join("cross.pem"), &all).unwrap();
        let validity = Validity::backdated(SystemClock.now(), Duration::from_secs(60), DAY);
        let number = u64::try_from(revoked.len()).unwrap() + 1;
        let list = |ca: &Ca, revoked| ca.issue_crl(number, validity, revoked).unwrap();
        std::fs::write(dir.join("root.crl"), list(&self.root, &[])).unwrap();
        std::fs::write(dir.join("bridge.crl"), list(&self.bridge, revoked)).unwrap();
    }
}

/// A PKI beside our own that nothing is ordered from in these tests.
const BRIDGED: &str = "
    [[domain]]
    name = 'a'
    anchors = ['root.pem']
    cross = ['cross.pem']
    crls = ['root.crl', 'bridge.crl']
    crl_every_s = 1
";

const BOTH: &str = "
    [[tenant]]
    name = 'acme'
    domains = ['own', 'a']
";

/// A centre with a bridge, over the state of one without.
async fn bridged(authority: Authority, dir: &Path) -> World {
    World::of(authority, &format!("{BRIDGED}{NOWHERE}{OWN_PKI}{BOTH}"), dir).await
}

/// Asks until the answer is no longer `before`.
async fn changed(client: &Client, question: &CentreQuestion, before: StatusValue) -> Found {
    for _ in 0..1200 {
        let found = answer(client, question).await;
        if verdict(&found) != before {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it stays {before:?}");
}

fn why(answer: &Found) -> Option<&str> {
    answer.bindings[0].status.as_ref().unwrap().refusal.as_deref()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_pki_is_judged_over_the_bridge_and_without_it_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    serve::fsfile::write_atomic(&dir.path().join("secret"), b"s", 0o600).unwrap();
    let world = World::new(OWN, dir.path()).await;
    let a = world.trust("a").await;
    let alice = certificate(&carried_out(&a, &enrol("acme", "alice")).await);
    let own = world.centre.ca_certificate(&"own".parse().unwrap()).unwrap().to_vec();
    let authority = world.end().await;
    let bridge = Bridge::to(&own);
    bridge.write(dir.path(), 2, &[]);
    let world = bridged(authority, dir.path()).await;
    let b = world.trust("b").await;
    let over = answer(&b, &by_name("a", "alice")).await;
    let path = ["Own CA", "Bridge", "CA A"].map(str::to_owned).to_vec();
    assert_eq!(basis(&over).anchor, Anchor::Bridge { path });
    assert_eq!(basis(&over).pki_calls, 2);
    assert_eq!(verdict(&over), StatusValue::Valid, "{:?}", over.bindings[0].status);
    assert_eq!(over.bindings[0].certificates.len(), 4);
    // The list of the foreign PKI says how old the answer is.
    let now = SystemClock.unix_ms();
    assert!(basis(&over).as_of <= now && basis(&over).as_of + 60_000 > now);
    // The bridge takes its certificate back.
    let serial = pki::CertFacts::read(&bridge.crosses[1]).unwrap().serial;
    let revoked = Revocation {
        serial: serial.as_slice().try_into().unwrap(),
        at: SystemClock.now() - Duration::from_secs(30),
        reason: RevocationReason::Superseded,
    };
    bridge.write(dir.path(), 2, &[revoked]);
    let asked = by_name("a", "alice");
    assert_eq!(verdict(&changed(&b, &asked, StatusValue::Valid).await), StatusValue::Invalid);
    // The list before it is not believed any more, wherever it comes from, nor after a restart.
    bridge.write(dir.path(), 2, &[]);
    let old = changed(&b, &asked, StatusValue::Invalid).await;
    assert_eq!((verdict(&old), why(&old)), (StatusValue::Indeterminate, Some("crl-rolled-back")));
    let mut brings = asked.clone();
    brings.query.binding.crls = vec![Bytes(std::fs::read(dir.path().join("bridge.crl")).unwrap())];
    let old = answer(&b, &brings).await;
    assert_eq!((verdict(&old), why(&old)), (StatusValue::Indeterminate, Some("crl-rolled-back")));
    let world = bridged(world.end().await, dir.path()).await;
    let b = world.trust("b").await;
    let old = answer(&b, &asked).await;
    assert_eq!((verdict(&old), why(&old)), (StatusValue::Indeterminate, Some("crl-rolled-back")));
    let authority = world.end().await;
    // Without the cross-certificate there is no path, and nothing is said to be good.
    bridge.write(dir.path(), 1, &[]);
    let world = bridged(authority, dir.path()).await;
    let b = world.trust("b").await;
    let without = answer(&b, &by_certificate("a", &alice)).await;
    assert_eq!(verdict(&without), StatusValue::Indeterminate);
    assert_eq!(basis(&without).anchor, Anchor::Ca("CA A".to_owned()));
    // For a tenant of its own PKI it is as good as ever.
    let home = answer(&b, &by_name("own", "alice")).await;
    assert_eq!(verdict(&home), StatusValue::Valid);
    world.end().await;
}
