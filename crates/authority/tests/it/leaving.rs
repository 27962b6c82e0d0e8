//! Hosts that turn bad, that go, or that get another TPM; and why any of them gets keys or not.

use model::{
    KeyOrigin, OperationId,
    api::{
        enrol::{DrainAnswer, HostMode, HostView, RevocationList, TokenAnswer},
        grant::{GrantAnswer, GrantPurpose, GrantRequest},
        operate::{Operation, Outcome},
        policy::Trace,
        vm::VmView,
    },
};
use serde_json::{Value, json};
use serve::random;

use crate::{
    host_client::{InSession, SessionKeys},
    launch::{fails, settle, spec},
    support::Centre,
};

/// A VM that `host` is the home of and has boot keys of.
fn homed(centre: &Centre, name: &str, host: &InSession, home: &str) -> OperationId {
    let operator = centre.operator();
    let _: VmView = operator.post("/v1/vms", &spec(name, KeyOrigin::Console)).unwrap();
    let path = format!("/v1/vms/{name}/start");
    let start: Operation = operator.post(&path, &json!({ "host": home })).unwrap();
    let request = GrantRequest {
        operation: start.id,
        request: random::grant_id().unwrap(),
        purpose: GrantPurpose::Boot,
        epoch: model::Epoch(1),
    };
    let _: GrantAnswer = host.caller.post(&format!("/v1/vms/{name}/grant"), &request).unwrap();
    start.id
}

fn refused<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "nothing was refused".to_owned())
}

#[test]
fn a_host_that_turns_bad_exposes_the_vms_whose_keys_it_has_and_a_trace_says_why() {
    let centre = Centre::start();
    let (mut a, operator) = (centre.host("a"), centre.operator());
    let session = a.session().unwrap();
    let start = homed(&centre, "v1", &session, "a");
    let _: VmView = operator.post("/v1/vms", &spec("v2", KeyOrigin::Console)).unwrap();
    let trace: Trace = operator.get("/v1/hosts/a/trace").unwrap();
    assert!(trace.allowed, "{trace:?}");
    assert!(trace.rules.iter().any(|rule| rule.rests_on == "session_life_s = 600"));
    a.measure(14, "implant", true);
    assert_eq!(refused(a.session()), "event-unknown");
    let v1: VmView = operator.get("/v1/vms/v1").unwrap();
    let exposed = v1.exposed.expect("v1 is marked");
    assert_eq!((exposed.host.as_str(), exposed.reason.as_str()), ("a", "event-unknown"));
    assert!(0 < exposed.since && exposed.since <= exposed.at);
    let v2: VmView = operator.get("/v1/vms/v2").unwrap();
    assert!(v2.exposed.is_none());
    assert!(centre.audited_events().contains(&"vm-exposed".to_owned()));
    // The mark of the first time stays.
    assert_eq!(refused(a.session()), "event-unknown");
    let again: VmView = operator.get("/v1/vms/v1").unwrap();
    assert_eq!(again.exposed, Some(exposed));
    let trace: Trace = operator.get("/v1/hosts/a/trace").unwrap();
    assert_eq!(trace.decided_by.as_deref(), Some("event-unknown"));
    let rule = trace.rules.iter().find(|rule| !rule.passed).unwrap();
    assert!(rule.reason.contains("14"), "{rule:?}");
    let trace: Trace = operator.get("/v1/vms/v1/trace").unwrap();
    assert_eq!(trace.decided_by.as_deref(), Some("host-not-trusted"));
    // The mark goes with the keys. Its session of before lasts: it can say that nothing runs.
    fails(&session, start);
    let fence = json!({ "reason": "exposed" });
    let v1: VmView = operator.post("/v1/vms/v1/fence", &fence).unwrap();
    assert!(v1.exposed.is_none());
}

#[test]
fn a_revoked_host_exposes_its_vms_too() {
    let centre = Centre::start();
    let (a, operator) = (centre.host("a"), centre.operator());
    homed(&centre, "v1", &a.session().unwrap(), "a");
    let _: HostView = operator.post("/v1/hosts/a/revoke", &json!({ "reason": "stolen" })).unwrap();
    let v1: VmView = operator.get("/v1/vms/v1").unwrap();
    assert_eq!(v1.exposed.unwrap().reason, "host-revoked");
}

#[test]
fn a_host_is_drained_before_it_is_retired() {
    let centre = Centre::start();
    let (a, operator) = (centre.host("a"), centre.operator());
    let session = a.session().unwrap();
    homed(&centre, "v1", &session, "a");
    let retire = || operator.post::<HostView>("/v1/hosts/a/retire", &json!({ "reason": "old" }));
    assert_eq!(refused(retire()), "host-not-drained");
    let drain: DrainAnswer = operator.post("/v1/hosts/a/drain", &json!({ "stop": true })).unwrap();
    assert!(drain.host.draining);
    assert_eq!((drain.stops.len(), drain.running.len()), (1, 1));
    let _: VmView = operator.post("/v1/vms", &spec("v2", KeyOrigin::Console)).unwrap();
    let start = operator.post::<Value>("/v1/vms/v2/start", &json!({ "host": "a" }));
    assert_eq!(refused(start), "host-draining");
    assert_eq!(refused(retire()), "host-not-drained");
    settle(&session, drain.stops[0].id, Outcome::Done);
    let _: VmView = operator.post("/v1/vms/v1/fence", &json!({ "reason": "moved" })).unwrap();
    assert_eq!(retire().unwrap().mode, HostMode::Revoked);
    assert_eq!(refused(a.session()), "host-revoked");
    let names = centre.audited_refusals();
    assert!(names.contains(&"host-draining".to_owned()), "{names:?}");
    assert!(centre.audited_events().contains(&"host-retired".to_owned()));
}

#[test]
fn another_tpm_takes_a_hosts_place_with_approval_and_its_vms_keep_their_home() {
    let centre = Centre::start();
    let (a, operator) = (centre.host("a"), centre.operator());
    let session = a.session().unwrap();
    homed(&centre, "v1", &session, "a");
    let mut other = centre.machine("replacement");
    other.name = "a".parse().unwrap();
    // An ordinary token does not admit it under a taken name.
    let request = other.enrol_request(&centre.token("a"));
    assert_eq!(refused(other.enrol(&request)), "host-exists");
    let answer: TokenAnswer =
        operator.post("/v1/hosts/a/replace", &json!({ "reason": "new board" })).unwrap();
    other.enrol(&other.enrol_request(&answer.token)).unwrap();
    // The first TPM is over, the second one waits.
    assert_eq!(refused(a.session()), "host-not-approved");
    assert_eq!(refused(other.session()), "host-not-approved");
    // Certificates count whole seconds, and one of the second of the replacement does not count.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    centre.approve("a", false);
    other.session().unwrap();
    let evidence = a.evidence(&a.challenge().unwrap(), &SessionKeys::new());
    assert_eq!(refused(a.attest(&evidence)), "ak-not-enrolled");
    let view: HostView = operator.get("/v1/hosts/a").unwrap();
    assert!(view.trusted);
    assert_eq!(view.vms.len(), 1);
    assert_eq!(refused(session.caller.get::<Value>("/v1/orders")), "host-replaced");
    let crl: RevocationList = operator.get("/v1/crl").unwrap();
    assert!(crl.crl.0.len() > 200);
}
