//! A VM from its definition to its data volume, and everything that may not happen on the way.

use std::{thread, time::Duration};

use attest::envelope::{Envelope, Kind, TrustedKeys};
use model::{
    Epoch, GrantId, KeyOrigin, OperationId,
    api::{
        enrol::{Challenge, ChallengePurpose, ChallengeRequest},
        grant::{Grant, GrantAnswer, GrantPurpose, GrantRequest},
        operate::{Action, Operation, OperationUpdate, Orders, Outcome},
        vm::{
            EvidenceExport, GuestEvidence, GuestVerdict, VmReport, VmState, VmView,
            VtpmCertificates,
        },
    },
};
use serde_json::{Value, json};
use serve::{
    clock::{Clock as _, SystemClock},
    hpke::{self, Sealed},
    random,
};

use crate::{
    host_client::InSession,
    support::Centre,
    vtpm::{Vtpm, sha256},
};

pub(crate) fn refused<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "nothing was refused".to_owned())
}

const KERNEL: &[u8] = b"the kernel of the image";

pub(crate) fn spec(name: &str, origin: KeyOrigin) -> Value {
    json!({
        "name": name,
        "image": {"path": "/images/guest.img", "sha256": sha256(b"image"), "size": 4096},
        "memory_mib": 256, "cpus": 1, "data_mib": 16, "guard": "tpm", "origin": origin,
        "format": "luks2", "on_lease_end": "pause",
        "reference": {
            "version": 1, "unpredicted": [], "boot-aggregate": false,
            "entries": [
                {"pcr": 4, "digests": [sha256(KERNEL)], "name": "kernel", "presence": "always"},
            ],
        },
    })
}

pub(crate) fn define(centre: &Centre, name: &str, origin: KeyOrigin) -> VmView {
    centre.operator().post("/v1/vms", &spec(name, origin)).unwrap()
}

pub(crate) fn start(centre: &Centre, name: &str, host: &str) -> Result<Operation, String> {
    centre.operator().post(&format!("/v1/vms/{name}/start"), &json!({ "host": host }))
}

pub(crate) fn request(operation: OperationId, purpose: GrantPurpose, epoch: u64) -> GrantRequest {
    GrantRequest { operation, request: random::grant_id().unwrap(), purpose, epoch: Epoch(epoch) }
}

pub(crate) fn ask(
    host: &InSession,
    vm: &str,
    request: &GrantRequest,
) -> Result<GrantAnswer, String> {
    host.caller.post(&format!("/v1/vms/{vm}/grant"), request)
}

/// Verifies a grant as an agent does and opens it.
pub(crate) fn open(centre: &Centre, host: &InSession, answer: &GrantAnswer) -> (Grant, Vec<u8>) {
    let pem = std::fs::read(centre.state("signing.pub")).unwrap();
    let keys = TrustedKeys::new([serve::pem::parse_public_key(&pem).unwrap()]).unwrap();
    let envelope = Envelope::from_value(&answer.grant).unwrap();
    let grant = envelope.verify::<Grant>(&keys, Kind::Grant, 1).unwrap().into_inner();
    let sealed = Sealed { enc: grant.enc.0.clone(), ciphertext: grant.sealed.0.clone() };
    let info = serde_json::to_vec(&grant.info).unwrap();
    let aad: &[u8] = match grant.info.purpose {
        GrantPurpose::Boot => b"boot",
        GrantPurpose::Data => b"data",
    };
    let keys = hpke::open(&host.keys.grant_private, &sealed, &info, aad).unwrap();
    (grant, keys.expose().clone())
}

fn guest_challenge(host: &InSession, name: &str) -> Challenge {
    let request = ChallengeRequest {
        host: name.parse().unwrap(),
        purpose: ChallengePurpose::GuestAttest,
        now: SystemClock.unix_ms(),
    };
    host.caller.post("/v1/challenges", &request).unwrap()
}

pub(crate) fn report(host: &InSession, vm: &str, state: VmState) -> Result<VmView, String> {
    let report = VmReport { state, epoch: Epoch(1), detail: "test".to_owned() };
    host.caller.post(&format!("/v1/vms/{vm}/report"), &report)
}

pub(crate) fn settle(host: &InSession, id: OperationId, outcome: Outcome) -> Operation {
    let update = OperationUpdate {
        phase: "end".to_owned(),
        percent: None,
        timings: vec![("boot".to_owned(), 7)],
        outcome: Some(outcome),
    };
    host.caller.post(&format!("/v1/operations/{id}"), &update).unwrap()
}

/// The start came to nothing: its home says that the VM is stopped.
pub(crate) fn fails(host: &InSession, id: OperationId) {
    settle(host, id, Outcome::Failed { detail: "no disk".to_owned(), hint: String::new() });
}

fn certify(host: &InSession, vtpm: &Vtpm) -> Result<VtpmCertificates, String> {
    host.caller.post("/v1/vms/v1/vtpm", &vtpm.publics(1))
}

#[test]
fn boot_keys_go_to_the_home_in_its_epoch_once_for_each_request() {
    let centre = Centre::start();
    let (a, b) = (centre.host("a"), centre.host("b"));
    let (on_a, on_b) = (a.session().unwrap(), b.session().unwrap());
    assert_eq!(define(&centre, "v1", KeyOrigin::Console).state, VmState::Defined);
    let operation = start(&centre, "v1", "a").unwrap();
    assert_eq!(start(&centre, "v1", "a").unwrap().id, operation.id);
    assert_eq!(refused(start(&centre, "v1", "b")), "vm-homed-elsewhere");
    let orders: Orders = on_a.caller.get("/v1/orders").unwrap();
    assert_eq!(orders.orders.len(), 1);
    assert_eq!(orders.orders[0].operation.action, Action::Start);
    assert!(!orders.orders[0].deposit);
    let boot = request(operation.id, GrantPurpose::Boot, 1);
    assert_eq!(refused(ask(&on_b, "v1", &boot)), "vm-homed-elsewhere");
    assert_eq!(refused(ask(&on_a, "v2", &boot)), "vm-unknown");
    let other = request(operation.id, GrantPurpose::Boot, 2);
    assert_eq!(refused(ask(&on_a, "v1", &other)), "vm-epoch-ahead");
    let other = request(OperationId([9; 16]), GrantPurpose::Boot, 1);
    assert_eq!(refused(ask(&on_a, "v1", &other)), "operation-unknown");
    let (grant, keys) = open(&centre, &on_a, &ask(&on_a, "v1", &boot).unwrap());
    assert_eq!((grant.info.id, keys.len()), (boot.request, 4 * 32));
    assert_eq!(refused(ask(&on_a, "v1", &boot)), "grant-used");
    let again = request(operation.id, GrantPurpose::Boot, 1);
    assert_eq!(open(&centre, &on_a, &ask(&on_a, "v1", &again).unwrap()).1, keys);
    // Its home was heard of a moment ago: the VM may run there, whatever an operator says.
    let operator = centre.operator();
    let fence = |off: bool, reason: &str| {
        let request = json!({ "reason": reason, "powered_off": off });
        operator.post::<VmView>("/v1/vms/v1/fence", &request)
    };
    assert_eq!(refused(fence(false, "in a hurry")), "vm-home-alive");
    assert_eq!(refused(fence(true, "in a hurry")), "vm-home-alive");
    assert_eq!(refused(fence(true, " ")), "request-invalid");
    // It says that the VM is stopped. A fence moves the epoch: what it still asks for is refused.
    fails(&on_a, operation.id);
    let view = fence(false, "its disk is gone").unwrap();
    assert_eq!((view.epoch, view.home), (Epoch(2), None));
    let late = request(operation.id, GrantPurpose::Boot, 1);
    assert_eq!(refused(ask(&on_a, "v1", &late)), "grant-epoch-moved");
    assert_eq!(refused(report(&on_a, "v1", VmState::Running)), "grant-epoch-moved");
    let moved = start(&centre, "v1", "b").unwrap();
    let fresh = request(moved.id, GrantPurpose::Boot, 2);
    let (_, fresh) = open(&centre, &on_b, &ask(&on_b, "v1", &fresh).unwrap());
    assert_ne!(fresh[..32], keys[..32]);
}

#[test]
fn a_vm_launches_and_its_data_volume_follows_the_guests_verdict() {
    let centre = Centre::start();
    let (a, b) = (centre.host("a"), centre.host("b"));
    let (on_a, on_b) = (a.session().unwrap(), b.session().unwrap());
    define(&centre, "v1", KeyOrigin::Console);
    let operation = start(&centre, "v1", "a").unwrap();
    // The vTPM: repeatable until a guest has booted with it.
    let mut vtpm = Vtpm::make(&centre, "v1");
    assert_eq!(refused(certify(&on_b, &vtpm)), "vm-homed-elsewhere");
    let earlier = Vtpm::make(&centre, "v1-earlier");
    certify(&on_a, &earlier).unwrap();
    let certificates = certify(&on_a, &vtpm).unwrap();
    assert_eq!(certify(&on_a, &vtpm).unwrap(), certificates);
    let data = request(operation.id, GrantPurpose::Data, 1);
    assert_eq!(refused(ask(&on_a, "v1", &data)), "guest-not-trusted");
    vtpm.boots(KERNEL);
    let evidence = vtpm.evidence(guest_challenge(&on_a, "a").nonce, "v1", &certificates);
    let verdict: GuestVerdict = on_a.caller.post("/v1/vms/v1/evidence", &evidence).unwrap();
    assert!(verdict.trusted, "{:?}", verdict.refusal);
    let roles: Vec<&str> = verdict.chain.iter().map(|link| link.role.as_str()).collect();
    assert_eq!(roles, ["host-tpm-ek", "host-ak", "vtpm-ek", "vtpm-ak", "kernel"]);
    let again = on_a.caller.post::<GuestVerdict>("/v1/vms/v1/evidence", &evidence);
    assert_eq!(refused(again), "nonce-used");
    let (_, keys) = open(&centre, &on_a, &ask(&on_a, "v1", &data).unwrap());
    assert_eq!(keys.len(), 32);
    // Running; another vTPM or another start is refused now.
    report(&on_a, "v1", VmState::Running).unwrap();
    settle(&on_a, operation.id, Outcome::Done);
    assert_eq!(refused(certify(&on_a, &earlier)), "vtpm-already-certified");
    assert_eq!(refused(start(&centre, "v1", "a")), "vm-running");
    assert_eq!(refused(start(&centre, "v1", "b")), "vm-homed-elsewhere");
    let view: VmView = centre.operator().get("/v1/vms/v1").unwrap();
    assert_eq!((view.state, view.trusted), (VmState::Running, Some(true)));
    let orders: Orders = on_a.caller.get("/v1/orders").unwrap();
    assert!(orders.orders.is_empty());
    let export: EvidenceExport = centre.operator().get("/v1/vms/v1/evidence").unwrap();
    assert!(export.verdict.trusted && export.evidence.quote == evidence.quote);
}

#[test]
fn a_guest_that_is_not_what_its_image_says_gets_no_data_volume() {
    let centre = Centre::start();
    let host = centre.host("a").session().unwrap();
    for name in ["v1", "v2"] {
        define(&centre, name, KeyOrigin::Console);
    }
    let other = start(&centre, "v2", "a").unwrap();
    let operation = start(&centre, "v1", "a").unwrap();
    let (mut vtpm, foreign) = (Vtpm::make(&centre, "v1"), Vtpm::make(&centre, "v2"));
    let post = |evidence: &GuestEvidence| -> (bool, String) {
        let verdict: GuestVerdict = host.caller.post("/v1/vms/v1/evidence", evidence).unwrap();
        (verdict.trusted, verdict.refusal.map(|refusal| refusal.name).unwrap_or_default())
    };
    let certificates: VtpmCertificates =
        host.caller.post("/v1/vms/v1/vtpm", &vtpm.publics(1)).unwrap();
    let foreign: VtpmCertificates =
        host.caller.post("/v1/vms/v2/vtpm", &foreign.publics(1)).unwrap();
    vtpm.boots(b"another kernel");
    let evidence = || vtpm.evidence(guest_challenge(&host, "a").nonce, "v1", &certificates);
    let bad = |name: &str| (false, name.to_owned());
    assert_eq!(post(&evidence()), bad("guest-event-unknown"));
    let data = request(operation.id, GrantPurpose::Data, 1);
    assert_eq!(refused(ask(&host, "v1", &data)), "guest-not-trusted");
    let overflowed = GuestEvidence { overflowed: true, ..evidence() };
    assert_eq!(post(&overflowed), bad("log-overflow"));
    let unobservable = GuestEvidence { unobservable: Some("a session".to_owned()), ..evidence() };
    assert_eq!(post(&unobservable), bad("log-unobservable"));
    let other_vm = GuestEvidence { ek_certificate: foreign.ek_certificate.clone(), ..evidence() };
    assert_eq!(post(&other_vm), bad("vtpm-ek-other-vm"));
    let other_ak = GuestEvidence { ak_certificate: foreign.ak_certificate, ..evidence() };
    assert_eq!(post(&other_ak), bad("vtpm-binding-invalid"));
    let shortened = GuestEvidence { observed: Vec::new(), ..evidence() };
    assert_eq!(post(&shortened), bad("observed-list-mismatch"));
    let other_epoch = GuestEvidence { epoch: Epoch(2), ..evidence() };
    let refusal = host.caller.post::<GuestVerdict>("/v1/vms/v1/evidence", &other_epoch);
    assert_eq!(refused(refusal), "vm-epoch-ahead");
    let audited = centre.audited_refusals();
    assert!(audited.iter().any(|name| name == "guest-event-unknown"), "{audited:?}");
    let name = "guest-event-unknown".to_owned();
    let outcome = Outcome::Refused { name, detail: String::new(), hint: String::new() };
    let ended = settle(&host, operation.id, outcome.clone());
    assert_eq!(ended.outcome, Some(outcome));
    settle(&host, other.id, Outcome::Done);
}

#[test]
fn hosts_that_may_not_hold_keys_start_nothing() {
    let centre = Centre::start();
    let _pending = centre.enrolled("p");
    let (a, w) = (centre.host("a"), centre.host("w"));
    define(&centre, "v1", KeyOrigin::Console);
    assert_eq!(refused(start(&centre, "v1", "p")), "host-not-approved");
    assert_eq!(refused(start(&centre, "v1", "x")), "host-unknown");
    assert_eq!(refused(start(&centre, "v1", "a")), "host-not-trusted");
    assert_eq!(refused(start(&centre, "v9", "a")), "host-not-trusted");
    let watched = w.session().unwrap();
    centre.approve("w", true);
    assert_eq!(refused(start(&centre, "v1", "w")), "host-audit-only");
    let session = a.session().unwrap();
    assert_eq!(refused(start(&centre, "v9", "a")), "vm-unknown");
    let operation = start(&centre, "v1", "a").unwrap();
    // The host is put under watch after its start was accepted.
    centre.approve("a", true);
    let boot = request(operation.id, GrantPurpose::Boot, 1);
    assert_eq!(refused(ask(&session, "v1", &boot)), "host-audit-only");
    assert_eq!(refused(ask(&watched, "v1", &boot)), "host-audit-only");
    centre.approve("a", false);
    ask(&session, "v1", &boot).unwrap();
}

#[test]
fn a_host_that_turned_bad_gets_no_keys_in_its_old_session() {
    let centre = Centre::start();
    let mut a = centre.host("a");
    let session = a.session().unwrap();
    define(&centre, "v1", KeyOrigin::Console);
    let operation = start(&centre, "v1", "a").unwrap();
    a.measure(14, "vouchsafe:rootkit", true);
    assert_eq!(refused(a.session()), "event-unknown");
    let boot = request(operation.id, GrantPurpose::Boot, 1);
    assert_eq!(refused(ask(&session, "v1", &boot)), "host-not-trusted");
    let reason = json!({});
    let _: Value = centre.operator().post("/v1/hosts/a/revoke", &reason).unwrap();
    assert_eq!(refused(ask(&session, "v1", &boot)), "host-revoked");
}

#[test]
fn orders_arrive_when_they_are_given_and_survive_the_death_of_the_authority() {
    let mut centre = Centre::start();
    let mut a = centre.host("a");
    let session = a.session().unwrap();
    define(&centre, "v1", KeyOrigin::Console);
    let orders: Orders = session.caller.get("/v1/orders").unwrap();
    let after = orders.revision;
    let poll = thread::spawn(move || {
        let clock = SystemClock;
        let since = clock.monotonic();
        let path = format!("/v1/orders?after={after}&wait=25");
        let orders: Orders = session.caller.get(&path).unwrap();
        (orders, clock.monotonic().saturating_sub(since))
    });
    thread::sleep(Duration::from_millis(300));
    let operation = start(&centre, "v1", "a").unwrap();
    let (orders, waited) = poll.join().unwrap();
    assert_eq!(orders.orders[0].operation.id, operation.id);
    assert!(waited < Duration::from_secs(24), "the order came after {waited:?}");
    let first = request(operation.id, GrantPurpose::Boot, 1);
    let session = a.session().unwrap();
    ask(&session, "v1", &first).unwrap();
    centre.kill();
    centre.run();
    a.moved(&centre.url());
    // The verdict from before the restart still counts.
    let session = a.enter(session.keys, session.session);
    let orders: Orders = session.caller.get(&format!("/v1/orders?after={after}&wait=1")).unwrap();
    assert_eq!(orders.orders[0].operation.id, operation.id);
    assert_eq!(refused(ask(&session, "v1", &first)), "grant-used");
    let second = request(operation.id, GrantPurpose::Boot, 1);
    ask(&session, "v1", &second).unwrap();
    let stop: Operation = centre.operator().send(http::Method::POST, "/v1/vms/v1/stop").unwrap();
    let ended: Operation =
        centre.operator().get(&format!("/v1/operations/{}", operation.id)).unwrap();
    assert!(matches!(ended.outcome, Some(Outcome::Failed { .. })));
    assert_eq!(settle(&session, stop.id, Outcome::Done).outcome, Some(Outcome::Done));
    let view: VmView = centre.operator().get("/v1/vms/v1").unwrap();
    assert_eq!(view.state, VmState::Stopped);
    let _unused: GrantId = second.request;
}
