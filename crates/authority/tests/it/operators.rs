//! What operators read and set.

use attest::envelope::{Envelope, Kind, TrustedKeys};
use model::{
    KeyOrigin,
    api::{
        audit::{AuditExport, AuditPage},
        operate::{AuthorityStatus, HostEvent, HostEvents, Operation, OperationUpdate, Outcome},
        policy::PolicyView,
        vm::{VmState, VmView},
    },
};
use serde_json::{Value, json};
use serve::{client::Identity, pem};
use store::audit::{TreeHead, verify_dir, verify_files};

use crate::{
    launch::spec,
    support::{Centre, Settings},
};

fn refused<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "nothing was refused".to_owned())
}

#[test]
fn the_policy_is_changed_by_who_has_read_it() {
    let centre = Centre::start();
    let operator = centre.operator();
    let mut view: PolicyView = operator.get("/v1/policy").unwrap();
    assert_eq!(view.generation, 1);
    view.policy.lease_s = 77;
    let call = |view: &PolicyView| {
        let call = serve::client::Call::new(http::Method::PUT, "/v1/policy").json(view).unwrap();
        operator.call::<PolicyView>(call)
    };
    let changed = call(&view).unwrap();
    assert_eq!((changed.generation, changed.policy.lease_s), (2, 77));
    assert_eq!(call(&view).unwrap_err().refusal(), Some("policy-moved"));
    let mut absurd = changed.clone();
    absurd.policy.lease_s = 0;
    assert_eq!(call(&absurd).unwrap_err().refusal(), Some("request-invalid"));
    assert_eq!(call(&changed).unwrap(), changed, "the same policy is no new generation");
    let kept: PolicyView = operator.get("/v1/policy").unwrap();
    assert_eq!(kept, changed);
}

#[test]
fn the_policy_survives_a_restart() {
    let mut centre = Centre::start();
    let mut view: PolicyView = centre.operator().get("/v1/policy").unwrap();
    view.policy.grant_life_s = 9;
    let call = serve::client::Call::new(http::Method::PUT, "/v1/policy").json(&view).unwrap();
    centre.operator().call::<PolicyView>(call).unwrap();
    assert_eq!(centre.stop(), 0);
    centre.run();
    let kept: PolicyView = centre.operator().get("/v1/policy").unwrap();
    assert_eq!((kept.generation, kept.policy.grant_life_s), (2, 9));
}

#[test]
fn an_exported_log_verifies_offline_until_it_is_altered() {
    let centre = Centre::start();
    centre.host("a").session().unwrap();
    let export: AuditExport = centre.operator().get("/v1/audit/export").unwrap();
    let (entries, checkpoint) = (centre.path("entries"), centre.path("checkpoint"));
    std::fs::write(&entries, &export.entries).unwrap();
    std::fs::write(&checkpoint, &export.checkpoint).unwrap();
    let keys = TrustedKeys::new([&export.signing_key.0]).unwrap();
    let open = |envelope: &str| -> Result<TreeHead, String> {
        let envelope = Envelope::parse(envelope.as_bytes());
        let envelope = envelope.map_err(|error| error.to_string())?;
        let payload = envelope.verify_bytes(&keys, Kind::Checkpoint, 1);
        let payload = payload.map_err(|error| error.to_string())?;
        TreeHead::from_payload(&payload).map_err(|error| error.to_string())
    };
    verify_files(&entries, &checkpoint, &open).unwrap();
    std::fs::write(&entries, export.entries.replacen("host:a", "host:b", 1)).unwrap();
    assert!(verify_files(&entries, &checkpoint, &open).is_err());
}

#[test]
fn the_log_of_a_running_authority_has_a_checkpoint() {
    let limits = "checkpoint_s = 1".to_owned();
    let centre = Centre::with(&Settings { limits, ..Settings::default() });
    centre.token("a");
    let pem = std::fs::read(centre.state("signing.pub")).unwrap();
    let keys = TrustedKeys::new([pem::parse_public_key(&pem).unwrap()]).unwrap();
    let open = |envelope: &str| -> Result<TreeHead, String> {
        let envelope = Envelope::parse(envelope.as_bytes()).map_err(|error| error.to_string())?;
        let payload = envelope.verify_bytes(&keys, Kind::Checkpoint, 1);
        let payload = payload.map_err(|error| error.to_string())?;
        TreeHead::from_payload(&payload).map_err(|error| error.to_string())
    };
    let verified = (0..1200).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        verify_dir(&centre.state("audit"), &open).ok()
    });
    assert!(verified.is_some(), "{:?}", verify_dir(&centre.state("audit"), &open));
}

#[test]
fn a_vm_is_deleted_or_revoked_with_its_keys() {
    let centre = Centre::start();
    let operator = centre.operator();
    let host = centre.host("a").session().unwrap();
    for name in ["v1", "v2"] {
        let _: VmView = operator.post("/v1/vms", &spec(name, KeyOrigin::Console)).unwrap();
    }
    let twice = operator.post::<VmView>("/v1/vms", &spec("v1", KeyOrigin::Console));
    assert_eq!(refused(twice), "vm-exists");
    for wish in ["stop", "attest"] {
        let idle = operator.send::<Value>(http::Method::POST, &format!("/v1/vms/v1/{wish}"));
        assert_eq!(refused(idle), "vm-not-running");
    }
    let luks = operator.send::<Value>(http::Method::POST, "/v1/vms/v1/rekey");
    assert_eq!(refused(luks), "not-vault");
    // Without a home it is gone at once.
    let none: Option<Operation> = operator.send(http::Method::DELETE, "/v1/vms/v1").unwrap();
    assert!(none.is_none());
    let view: VmView = operator.get("/v1/vms/v1").unwrap();
    assert_eq!(view.state, VmState::Retired);
    let again: VmView = operator.post("/v1/vms", &spec("v1", KeyOrigin::Console)).unwrap();
    assert_eq!(again.epoch.0, 2);
    // With a home, the home destroys its copies first.
    let start: Operation = operator.post("/v1/vms/v2/start", &json!({"host": "a"})).unwrap();
    let busy = operator.send::<Value>(http::Method::DELETE, "/v1/vms/v2");
    assert_eq!(refused(busy), "vm-busy");
    let view: VmView = operator.post("/v1/vms/v2/revoke", &json!({"reason": "leak"})).unwrap();
    assert_eq!(view.state, VmState::Retired);
    let orders: Value = host.caller.get("/v1/orders").unwrap();
    assert_eq!(orders["orders"][0]["operation"]["action"], "delete");
    let ask = json!({
        "operation": start.id, "request": "00".repeat(16), "purpose": "boot", "epoch": 1,
    });
    assert_eq!(refused(host.caller.post::<Value>("/v1/vms/v2/grant", &ask)), "vm-revoked");
    let id = orders["orders"][0]["operation"]["id"].as_str().unwrap();
    let done = OperationUpdate {
        phase: "end".to_owned(),
        percent: None,
        timings: Vec::new(),
        outcome: Some(Outcome::Done),
    };
    let _: Operation = host.caller.post(&format!("/v1/operations/{id}"), &done).unwrap();
    let last = json!({"state": "stopped", "epoch": 1, "detail": ""});
    let _: VmView = host.caller.post("/v1/vms/v2/report", &last).unwrap();
    let fence = operator.post::<Value>("/v1/vms/v2/fence", &json!({"reason": "gone"}));
    assert_eq!(refused(fence), "vm-revoked");
    let status: AuthorityStatus = operator.get("/v1/status").unwrap();
    assert_eq!((status.hosts, status.vms, status.assurance.as_str()), (1, 1, "software"));
}

#[test]
fn what_a_host_did_alone_is_taken_once() {
    let centre = Centre::start();
    let host = centre.host("a").session().unwrap();
    let event = |seq: u64| HostEvent {
        seq,
        at: 5,
        vm: Some("v1".parse().unwrap()),
        event: "grant-refused".to_owned(),
        refused: Some("grant-other-host".to_owned()),
        detail: "made for b".to_owned(),
    };
    let spool = |from: u64, to: u64| HostEvents { events: (from..to).map(event).collect() };
    host.caller.post::<()>("/v1/audit", &spool(0, 3)).unwrap();
    host.caller.post::<()>("/v1/audit", &spool(1, 5)).unwrap();
    let audited = centre.audited_refusals();
    assert_eq!(audited.iter().filter(|name| *name == "grant-other-host").count(), 5);
    let mut shouting = spool(5, 6);
    shouting.events[0].event = "Not Kebab".to_owned();
    assert_eq!(refused(host.caller.post::<()>("/v1/audit", &shouting)), "request-invalid");
    let page: AuditPage = centre.operator().get("/v1/audit?from=2&limit=1").unwrap();
    assert_eq!((page.entries.len(), page.entries[0].seq), (1, 2));
}

#[test]
fn another_operator_gets_a_certificate_of_their_own() {
    let centre = Centre::start();
    let out = centre.path("operators").display().to_string();
    let made = centre.command(&["operator", "--name", "bob", "--out", &out]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let files = (centre.path("operators/bob.pem"), centre.path("operators/bob.key"));
    let bob = centre.caller(Some(&Identity::read(&files.0, &files.1).unwrap()));
    let _: VmView = bob.post("/v1/vms", &spec("v1", KeyOrigin::Console)).unwrap();
    let page: Value = bob.get("/v1/audit").unwrap();
    let entries = page["entries"].as_array().unwrap();
    assert!(entries.iter().any(|entry| entry["actor"] == "operator:bob"));
    assert!(pem::read_certificates(&files.0).is_ok());
}
