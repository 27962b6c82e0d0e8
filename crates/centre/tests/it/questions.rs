//! Questions: about keys of the same PKI, and of another one over a bridge.

use std::{path::Path, time::Duration};

use model::{
    api::Bytes,
    centre::{CentreAnswer, CentreQuestion},
    keys::{Anchor, KeyExample, KeyFinding, Query, StatusValue},
};
use pki::{Ca, CaSigner, CaSpec, Revocation, RevocationReason, Validity};
use serve::{
    client::Client,
    clock::{Clock as _, SystemClock},
    pem,
};

use crate::support::{DAY, OWN, World, carried_out, certificate, enrol, refusal, revoke, root};

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

async fn answer(client: &Client, question: &CentreQuestion) -> CentreAnswer {
    client.post("/v1/questions", question).await.unwrap()
}

fn verdict(answer: &CentreAnswer) -> StatusValue {
    answer.found.bindings[0].status.as_ref().unwrap().value
}

#[tokio::test(flavor = "multi_thread")]
async fn another_trust_service_learns_of_a_key_of_the_same_pki_from_the_pki() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(OWN, dir.path()).await;
    let (a, b) = (world.trust("a").await, world.trust("b").await);
    let alice = certificate(&carried_out(&a, &enrol("acme", "alice")).await);
    let found = answer(&b, &by_name("own", "alice")).await;
    assert_eq!(found.knowledge.anchor, Anchor::Ca("Own CA".to_owned()));
    assert_eq!(found.knowledge.pki_calls, 1);
    assert_eq!(found.found.knowledge.as_ref(), Some(&found.knowledge));
    assert_eq!(verdict(&found), StatusValue::Valid, "{:?}", found.found);
    assert_eq!(found.found.bindings[0].name.as_deref(), Some("alice"));
    assert_eq!(found.found.bindings[0].certificates[0].0, alice);
    // By certificate and by key too; nobody else is like it.
    assert_eq!(verdict(&answer(&b, &by_certificate("own", &alice)).await), StatusValue::Valid);
    let key =
        KeyExample { key: Some(found.found.bindings[0].key.clone()), ..KeyExample::default() };
    assert_eq!(answer(&b, &ask("own", key)).await.found.bindings.len(), 1);
    let nobody = answer(&b, &by_name("own", "bob")).await;
    assert!(nobody.found.bindings.is_empty() && nobody.knowledge.pki_calls == 1);
    let empty = ask("own", KeyExample::default());
    let empty = b.post::<_, CentreAnswer>("/v1/questions", &empty).await;
    assert_eq!(refusal(empty), "example-empty");
    // Revoked is known at once, CRL or not.
    carried_out(&a, &revoke("acme", &alice)).await;
    let revoked = answer(&b, &by_name("own", "alice")).await;
    assert_eq!(verdict(&revoked), StatusValue::Invalid);
    let status = revoked.found.bindings[0].status.as_ref().unwrap();
    assert_eq!(status.aspects.revocation_status, KeyFinding::Bad);
    world.end().await;
}

/// The key of a CA that is elsewhere: it certifies nothing here.
#[derive(Debug)]
struct Elsewhere(Vec<u8>);

impl CaSigner for Elsewhere {
    fn spki(&self) -> &[u8] {
        &self.0
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        Err("the key is elsewhere".into())
    }
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
    [domain.provider.cmp]
    url = 'http://127.0.0.1:1/'
    reference = 'r'
    secret = { path = 'secret' }
    [[domain]]
    name = 'own'
    [domain.provider.own]
    ca_name = 'Own CA'
    [[tenant]]
    name = 'acme'
    domains = ['own', 'a']
";

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
    let world = World::of(authority, BRIDGED, dir.path()).await;
    let b = world.trust("b").await;
    let over = answer(&b, &by_name("a", "alice")).await;
    let path = ["Own CA", "Bridge", "CA A"].map(str::to_owned).to_vec();
    assert_eq!(over.knowledge.anchor, Anchor::Bridge { path });
    assert_eq!(over.knowledge.pki_calls, 2);
    assert_eq!(verdict(&over), StatusValue::Valid, "{:?}", over.found.bindings[0].status);
    assert_eq!(over.found.bindings[0].certificates.len(), 4);
    // The list of the foreign PKI says how old the answer is.
    let now = SystemClock.unix_ms();
    assert!(over.knowledge.as_of <= now && over.knowledge.as_of + 60_000 > now);
    // The bridge takes its certificate back.
    let serial = pki::CertFacts::read(&bridge.crosses[1]).unwrap().serial;
    let revoked = Revocation {
        serial: serial.as_slice().try_into().unwrap(),
        at: SystemClock.now() - Duration::from_secs(30),
        reason: RevocationReason::Superseded,
    };
    bridge.write(dir.path(), 2, &[revoked]);
    let mut last = verdict(&over);
    for _ in 0..100 {
        last = verdict(&answer(&b, &by_name("a", "alice")).await);
        if last == StatusValue::Invalid {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last, StatusValue::Invalid);
    let authority = world.end().await;
    // Without the cross-certificate there is no path, and nothing is said to be good.
    bridge.write(dir.path(), 1, &[]);
    let world = World::of(authority, BRIDGED, dir.path()).await;
    let b = world.trust("b").await;
    let without = answer(&b, &by_certificate("a", &alice)).await;
    assert_eq!(verdict(&without), StatusValue::Indeterminate);
    assert_eq!(without.knowledge.anchor, Anchor::Ca("CA A".to_owned()));
    // For a tenant of its own PKI it is as good as ever.
    let home = answer(&b, &by_name("own", "alice")).await;
    assert_eq!(verdict(&home), StatusValue::Valid);
    world.end().await;
}
