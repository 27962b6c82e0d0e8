//! The same proof over a network, where the VM is claimed and nobody's word but its vTPM's counts.

use model::guest::{Admitted, ChallengeAsk, ChannelEvidence, GuestChallenge};
use vouchsafe_guest::{
    exchange::{Ask, Client, Reply},
    service::Connection,
};

use crate::{
    proofs::{answered, locate, located, name_of},
    world::World,
};

const HEARD: &str = "listen = '127.0.0.1:0'\naddress_file = 'guests'\n";

fn refusal(reply: Reply) -> String {
    let words = format!("{reply:?}");
    if let Reply::Refused { refused, .. } = reply { refused } else { words }
}

/// What a client in the VM asks a challenge with, as the VM of this name.
fn claiming(world: &World, vm: &str) -> ChallengeAsk {
    ChallengeAsk { vm: Some(vm.parse().unwrap()), ..world.prover().begin().unwrap().ask }
}

fn challenged(connection: &mut Connection, ask: &ChallengeAsk) -> String {
    name_of(connection.post_json::<_, GuestChallenge>("/guest/v1/challenge", ask))
}

#[test]
fn a_vm_is_proven_over_a_network_as_on_its_port() {
    let Some(world) = World::with(HEARD) else { return };
    let mut client = Client::new(world.networked("v1")).unwrap();
    let reply = client.ask(&Ask::Attest {});
    assert!(
        matches!(&reply, Reply::Admitted { vm, .. } if vm.as_str() == "v1"),
        "{reply:?}\n{}",
        world.log()
    );
    assert!(located(&client.ask(&locate())), "{}", world.log());
    // On the port, at the same time.
    let mut other = world.client();
    assert!(located(&other.ask(&locate())), "{}", world.log());
    assert!(located(&client.ask(&locate())), "{}", world.log());
    world.kill_reader();
    assert!(located(&client.ask(&locate())), "after the reader's death: {}", world.log());
    world.vtpm.measures("/bin/vouchsafe-guest", [9; 32]);
    assert_eq!(refusal(client.ask(&Ask::Attest {})), "client-tampered");
    let mut no_tls = world.networked("v1");
    no_tls.url = no_tls.url.map(|url| url.replace("https", "http"));
    let reply = Client::new(no_tls).unwrap().ask(&locate());
    assert!(
        matches!(&reply, Reply::Failed { detail } if detail.contains("cannot carry a proof")),
        "{reply:?}"
    );
}

#[test]
fn a_claim_opens_nothing() {
    let Some(world) = World::with(HEARD) else { return };
    let mut connection = world.network();
    let xkms = |connection: &mut Connection| {
        let answer = connection.post("/xkms", "text/xml", b"<x/>").unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        problem["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(xkms(&mut connection), "guest-not-proven");
    let nameless = ChallengeAsk { vm: None, ..claiming(&world, "v1") };
    assert_eq!(challenged(&mut connection, &nameless), "request-invalid");
    assert_eq!(challenged(&mut connection, &claiming(&world, "v2")), "guest-unknown");
    // Another VM's certificate, or one of nobody's.
    let mut foreign = claiming(&world, "v1");
    foreign.ek_certificate.0.push(0);
    assert_eq!(challenged(&mut connection, &foreign), "vtpm-foreign");
    assert_eq!(xkms(&mut connection), "guest-not-proven");
    // What was proven of one VM does not hold when another is claimed.
    let mut prover = world.prover();
    prover.vm = Some("v1".parse().unwrap());
    let (_, evidence) = answered(&prover, &mut connection);
    connection.post_json::<_, Admitted>("/guest/v1/attest", &evidence).unwrap();
    assert_eq!(challenged(&mut connection, &claiming(&world, "v2")), "guest-unknown");
    assert_eq!(xkms(&mut connection), "guest-not-proven");
}

#[test]
fn who_only_claims_to_be_a_vm_disturbs_none_of_its_proofs() {
    let Some(world) = World::with(HEARD) else { return };
    let mut prover = world.prover();
    prover.vm = Some("v1".parse().unwrap());
    let (mut port, mut true_one) = (world.client(), Client::new(world.networked("v1")).unwrap());
    assert!(located(&port.ask(&locate())) && located(&true_one.ask(&locate())), "{}", world.log());
    // A proof of the VM's own that is under way on the port, and one over the network.
    let (mut mine, mut stranger) = (world.network(), world.network());
    let (_, waiting) = answered(&prover, &mut mine);
    // The stranger has the VM's certificate; he has not its TPM. What the VM proves elsewhere is of
    // no use to him.
    let begun = prover.begin().unwrap();
    let challenge: GuestChallenge = stranger.post_json("/guest/v1/challenge", &begun.ask).unwrap();
    let elsewhere = prover.answer(&begun, &challenge, &[7; 32]).unwrap();
    let attest = |connection: &mut Connection, evidence: &ChannelEvidence| {
        connection.post_json::<_, Admitted>("/guest/v1/attest", evidence)
    };
    assert_eq!(name_of(attest(&mut stranger, &elsewhere)), "quote-relayed");
    assert_eq!(name_of(attest(&mut stranger, &waiting)), "quote-replayed");
    assert_eq!(attest(&mut mine, &waiting).unwrap().vm.as_str(), "v1");
    assert!(located(&port.ask(&locate())) && located(&true_one.ask(&locate())), "{}", world.log());
}

#[test]
fn a_flood_over_the_network_stops_no_port() {
    let Some(world) = World::with(&format!("{HEARD}proofs_per_minute = 2\n")) else { return };
    let (ask, mut stranger) = (claiming(&world, "v1"), world.network());
    let busy = (0..8).any(|_| {
        let asked = stranger.post_json::<_, GuestChallenge>("/guest/v1/challenge", &ask);
        asked.is_err_and(|error| error.refusal() == Some("guest-busy"))
    });
    assert!(busy, "{}", world.log());
    assert!(located(&world.client().ask(&locate())), "{}", world.log());
}
