//! What a client and a trust service prove to each other, and how each way of failing is called.

use std::{sync::Arc, time::Duration};

use model::{
    api::{Bytes, service::Service},
    guest::{Admitted, ChannelEvidence, GuestChallenge},
};
use rustls::client::danger::ServerCertVerifier as _;
use vouchsafe_guest::{
    exchange::{Ask, Question, Reply, socket},
    proof::{Begun, Prover, passport::PassportVerifier},
    service::{Connection, ServiceError},
};

use crate::world::World;

pub(crate) fn name_of<T: std::fmt::Debug>(outcome: Result<T, ServiceError>) -> String {
    let error = outcome.unwrap_err();
    error.refusal().map_or_else(|| error.to_string(), str::to_owned)
}

/// A challenge, and what the VM answers on that connection.
pub(crate) fn answered(prover: &Prover, connection: &mut Connection) -> (Begun, ChannelEvidence) {
    let exporter = connection.exporter().unwrap().unwrap();
    let begun = prover.begin().unwrap();
    let challenge: GuestChallenge =
        connection.post_json("/guest/v1/challenge", &begun.ask).unwrap();
    let evidence = prover.answer(&begun, &challenge, &exporter).unwrap();
    (begun, evidence)
}

pub(crate) fn located(reply: &Reply) -> bool {
    matches!(reply, Reply::Answer(read) if read.success && read.bindings.is_empty())
}

pub(crate) fn locate() -> Ask {
    Ask::Locate(Question::named("nobody"))
}

#[test]
fn a_client_is_admitted_as_its_vm_and_lives_on_when_either_side_begins_again() {
    let Some(world) = World::up() else { return };
    let mut client = world.client();
    let reply = client.ask(&Ask::Attest {});
    assert!(
        matches!(&reply, Reply::Admitted { vm, .. } if vm.as_str() == "v1"),
        "{reply:?}\n{}",
        world.log()
    );
    let reply = client.ask(&locate());
    assert!(located(&reply), "{reply:?}\n{}", world.log());
    world.kill_reader();
    let reply = client.ask(&locate());
    assert!(located(&reply), "after the reader's death: {reply:?}\n{}", world.log());
    // The client ends in the middle of a session, and says nothing.
    std::mem::forget(client);
    let mut next = world.client();
    assert!(located(&next.ask(&locate())), "{}", world.log());
    // Applications on the local socket.
    let path = world.dir.path().join("local");
    let there = path.clone();
    std::thread::spawn(move || socket::serve(&mut next, &there));
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(located(&socket::ask(&path, &locate()).unwrap()));
}

#[test]
fn a_client_that_was_changed_is_refused() {
    let Some(world) = World::up() else { return };
    world.vtpm.measures("/bin/vouchsafe-guest", [9; 32]);
    assert_eq!(world.refusal(), "client-tampered");
    let mut client = world.client();
    let reply = client.ask(&locate());
    assert!(matches!(&reply, Reply::Refused { refused, .. } if refused == "client-tampered"));
}

#[test]
fn what_is_not_approved_may_not_run_in_the_guest() {
    let Some(world) = World::up() else { return };
    world.vtpm.measures("/data/miner", [9; 32]);
    assert_eq!(world.refusal(), "guest-software-unknown");
}

#[test]
fn a_quote_counts_once_and_on_its_own_connection() {
    let Some(world) = World::up() else { return };
    let prover = world.prover();
    let mut connection = world.connection();
    let (begun, evidence) = answered(&prover, &mut connection);
    let good: Admitted = connection.post_json("/guest/v1/attest", &evidence).unwrap();
    assert_eq!(good.vm.as_str(), "v1");
    let again = connection.post_json::<_, Admitted>("/guest/v1/attest", &evidence);
    assert_eq!(name_of(again), "quote-replayed");
    // A failed proof ends what the good one allowed.
    let answer = connection.post("/xkms", "text/xml", b"<x/>").unwrap();
    assert_eq!(answer.status, 403);
    drop(connection);
    let mut connection = world.connection();
    let challenge: GuestChallenge =
        connection.post_json("/guest/v1/challenge", &begun.ask).unwrap();
    let old = connection.post_json::<_, Admitted>("/guest/v1/attest", &evidence);
    // Its credential is another one too: whichever is noticed first.
    assert!(["vtpm-foreign", "quote-replayed"].contains(&name_of(old).as_str()));
    let _ = challenge;
    // The true VM answers a challenge that somebody passed on from his own connection.
    let challenge: GuestChallenge =
        connection.post_json("/guest/v1/challenge", &begun.ask).unwrap();
    let elsewhere = prover.answer(&begun, &challenge, &[7; 32]).unwrap();
    let relayed = connection.post_json::<_, Admitted>("/guest/v1/attest", &elsewhere);
    assert_eq!(name_of(relayed), "quote-relayed");
}

#[test]
fn without_a_proof_nothing_is_answered() {
    let Some(world) = World::up() else { return };
    let mut connection = world.connection();
    let answer = connection.post("/xkms", "text/xml", b"<x/>").unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &problem["name"]), (403, &"guest-not-proven".into()));
    let answer = connection.post("/v1/locate", "application/json", b"{}").unwrap();
    assert_eq!(answer.status, 404);
}

#[test]
fn what_a_proof_allows_ends_with_its_time_and_the_client_proves_itself_anew() {
    let Some(world) = World::with("admitted_s = 3\n") else { return };
    let mut connection = world.connection();
    let (_, evidence) = answered(&world.prover(), &mut connection);
    let admitted: Admitted = connection.post_json("/guest/v1/attest", &evidence).unwrap();
    let over = (0..500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        // Until then the service reads what comes, and says that it is no request.
        let answer = connection.post("/xkms", "text/xml", b"<x/>").unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        (answer.status == 403).then(|| problem["name"].clone())
    });
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    assert!(now >= i128::from(admitted.until), "it ended before its time");
    assert_eq!(over, Some("guest-proof-over".into()), "{}", world.log());
    // A client sees nothing of that: its next request comes with a new proof.
    let mut client = world.client();
    assert!(located(&client.ask(&locate())), "{}", world.log());
    std::thread::sleep(Duration::from_millis(3100));
    assert!(located(&client.ask(&locate())), "{}", world.log());
}

#[test]
fn a_vm_gets_so_many_challenges_in_a_minute() {
    let Some(world) = World::with("proofs_per_minute = 2\n") else { return };
    let begun = world.prover().begin().unwrap();
    let mut connection = world.connection();
    // The minute may end while it is counted.
    let asked = (1..=6).find_map(|count| {
        let ask = connection.post_json::<_, GuestChallenge>("/guest/v1/challenge", &begun.ask);
        ask.is_err().then(|| (count, name_of(ask)))
    });
    let (count, name) = asked.unwrap();
    assert_eq!(name, "guest-busy");
    assert!((3..=5).contains(&count), "after {count}");
}

#[test]
fn another_vtpm_and_a_guest_that_is_not_affirmed_are_refused() {
    let Some(world) = World::up() else { return };
    let change = |edit: &dyn Fn(&mut model::guest::Measured)| {
        edit(&mut world.agent.measured.lock().unwrap());
    };
    let certificate = world.vtpm.ek_certificate.clone();
    change(&|measured| measured.ek_certificate = Some(Bytes(vec![0x30, 0])));
    assert_eq!(world.refusal(), "vtpm-foreign");
    change(&|measured| measured.ek_certificate = Some(Bytes(certificate.clone())));
    change(&|measured| measured.trusted = Some(false));
    assert_eq!(world.refusal(), "guest-not-affirmed");
    change(&|measured| measured.trusted = Some(true));
    change(&|measured| measured.pcrs.retain(|seen| seen.pcr != 4));
    assert_eq!(world.refusal(), "measurements-differ");
}

#[test]
fn a_service_without_a_trust_services_passport_hears_nothing() {
    let Some(world) = World::up() else { return };
    let mut other = world.config();
    other.ca = world.dir.path().join("other.pem");
    let spec = pki::CaSpec {
        common_name: "another authority".to_owned(),
        path_length: 0,
        validity: pki::Validity::new(time::OffsetDateTime::now_utc(), Duration::from_secs(60)),
    };
    let ca = pki::Ca::create_root(&spec).unwrap().0;
    std::fs::write(&other.ca, crate::agent::pem(ca.certificate())).unwrap();
    let mut client = vouchsafe_guest::exchange::Client::new(other).unwrap();
    let Reply::Refused { refused, detail } = client.ask(&Ask::Attest {}) else { panic!("taken") };
    assert_eq!(refused, "service-tampered", "{detail}");
}

#[test]
fn only_the_guests_end_of_a_trust_service_is_taken() {
    let now = time::OffsetDateTime::now_utc();
    let life = Duration::from_secs(60);
    let validity = pki::Validity::new(now, life);
    let spec = pki::CaSpec { common_name: "authority".to_owned(), path_length: 0, validity };
    let ca = pki::Ca::create_root(&spec).unwrap().0;
    let anchors = pki::Anchors::new(&[ca.certificate()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let checked = |service| {
        let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = aws_lc_rs::signature::EcdsaKeyPair::generate(algorithm).unwrap();
        let point = aws_lc_rs::signature::KeyPair::public_key(&key).as_ref().to_vec();
        let (x, y) = (point[1..33].try_into().unwrap(), point[33..].try_into().unwrap());
        let spki = tpm::VerifyingKey::P256 { x, y }.spki_der();
        let verdict = model::Digest::sha256([1; 32]);
        let profile = pki::Profile::Service { service, host: "a".parse().unwrap(), verdict };
        let issued = ca.issue(&profile, &spki, pki::Validity::new(now, life / 2)).unwrap();
        let verifier = PassportVerifier::new(anchors.clone(), &provider);
        let name = "trust.vouchsafe.internal".try_into().unwrap();
        let at = rustls_pki_types::UnixTime::now();
        let taken = verifier.verify_server_cert(&issued.der.into(), &[], &name, &[], at);
        (taken.is_ok(), verifier.rejection().map(pki::PassportRejection::code))
    };
    assert_eq!(checked(Service::TrustGuests), (true, None));
    // What services show to each other proves nothing to guests.
    assert_eq!(checked(Service::Trust), (false, Some("passport-wrong-service")));
    assert_eq!(checked(Service::Centre), (false, Some("passport-wrong-service")));
}
