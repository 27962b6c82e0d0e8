//! What vault volumes count: reported by the host that has them, told by grants, handed over.

use std::{thread, time::Duration};

use model::{
    Digest, Epoch, KeyOrigin, OperationId,
    api::{
        anchor::{AnchorReport, AnchorStart},
        enrol::TokenAnswer,
        grant::GrantPurpose,
        operate::{Operation, Outcome},
        vm::{VmState, VmView},
    },
};
use serde_json::{Value, json};

use crate::{
    host_client::{HostClient, InSession},
    launch::{ask, open, report, request, settle, spec},
    support::Centre,
};

fn refused<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "nothing was refused".to_owned())
}

fn vault(centre: &Centre, name: &str) -> OperationId {
    let mut wanted = spec(name, KeyOrigin::Console);
    wanted["format"] = "vault".into();
    let _: VmView = centre.operator().post("/v1/vms", &wanted).unwrap();
    start(centre, name)
}

fn start(centre: &Centre, name: &str) -> OperationId {
    let path = format!("/v1/vms/{name}/start");
    let started: Operation = centre.operator().post(&path, &json!({ "host": "a" })).unwrap();
    started.id
}

fn tells(host: &InSession, vm: &str, count: u64, n: u8, rest: bool) -> Result<Value, String> {
    let (head, volume) = (Digest::sha256([n; 32]), GrantPurpose::Boot);
    let body = AnchorReport { epoch: Epoch(1), volume, count, head, rest };
    host.caller.post(&format!("/v1/vms/{vm}/anchor"), &body)
}

/// What a grant of the boot keys says of the volume.
fn told(
    centre: &Centre,
    host: &InSession,
    vm: &str,
    id: OperationId,
) -> Result<Option<AnchorStart>, String> {
    let answer = ask(host, vm, &request(id, GrantPurpose::Boot, 1))?;
    Ok(open(centre, host, &answer).0.info.anchor)
}

/// The VM is stopped, and its home says so.
fn stops(centre: &Centre, host: &InSession, vm: &str) {
    let path = format!("/v1/vms/{vm}/stop");
    let stop: Operation = centre.operator().post(&path, &json!({})).unwrap();
    settle(host, stop.id, Outcome::Done);
    report(host, vm, VmState::Stopped).unwrap();
}

/// Another machine under the name of `a`, approved.
fn replaced(centre: &Centre) -> HostClient {
    let mut other = centre.machine("replacement");
    other.name = "a".parse().unwrap();
    let why = json!({ "reason": "new board" });
    let answer: TokenAnswer = centre.operator().post("/v1/hosts/a/replace", &why).unwrap();
    other.enrol(&other.enrol_request(&answer.token)).unwrap();
    thread::sleep(Duration::from_millis(1100));
    centre.approve("a", false);
    other
}

#[test]
fn a_lower_or_forked_count_is_refused_by_name_and_the_next_grant_says_the_highest() {
    let centre = Centre::start();
    let (a, b) = (centre.host("a"), centre.host("b"));
    let (on_a, on_b) = (a.session().unwrap(), b.session().unwrap());
    let first = vault(&centre, "v1");
    assert_eq!(told(&centre, &on_a, "v1", first).unwrap(), None);
    tells(&on_a, "v1", 4, 4, false).unwrap();
    tells(&on_a, "v1", 4, 4, false).unwrap();
    assert_eq!(refused(tells(&on_a, "v1", 3, 3, false)), "rolled-back");
    assert_eq!(refused(tells(&on_a, "v1", 4, 5, false)), "volume-forked");
    assert_eq!(refused(tells(&on_b, "v1", 9, 9, false)), "vm-homed-elsewhere");
    settle(&on_a, first, Outcome::Done);
    report(&on_a, "v1", VmState::Running).unwrap();
    tells(&on_a, "v1", 6, 6, true).unwrap();
    let in_use = || {
        let shown: VmView = centre.operator().get("/v1/vms/v1").unwrap();
        let boot = shown.anchors.first().expect("its boot volume counts").clone();
        (boot.count, boot.in_use.is_some())
    };
    // It may be the end of an earlier run, until the host has said that nothing runs.
    assert_eq!(in_use(), (6, true));
    stops(&centre, &on_a, "v1");
    tells(&on_a, "v1", 6, 6, true).unwrap();
    assert_eq!(in_use(), (6, false));
    let said = told(&centre, &on_a, "v1", start(&centre, "v1")).unwrap();
    assert_eq!(said, Some(AnchorStart { count: 6, handed_over: false }));
    let names = centre.audited_refusals();
    assert!(["rolled-back", "volume-forked"].iter().all(|name| names.contains(&(*name).into())));
}

#[test]
fn another_tpm_begins_at_the_last_word_of_the_first_and_not_without_it() {
    let centre = Centre::start();
    let a = centre.host("a");
    let on_a = a.session().unwrap();
    for vm in ["v1", "v2"] {
        let id = vault(&centre, vm);
        told(&centre, &on_a, vm, id).unwrap();
        tells(&on_a, vm, 4, 4, false).unwrap();
        settle(&on_a, id, Outcome::Done);
        report(&on_a, vm, VmState::Running).unwrap();
        stops(&centre, &on_a, vm);
    }
    // Of v2 nobody knows how its volume was left.
    tells(&on_a, "v1", 5, 5, true).unwrap();
    let other = replaced(&centre);
    let on_other = other.session().unwrap();
    let (first, second) = (start(&centre, "v1"), start(&centre, "v2"));
    let said = told(&centre, &on_other, "v1", first).unwrap();
    assert_eq!(said, Some(AnchorStart { count: 5, handed_over: true }));
    tells(&on_other, "v1", 7, 7, false).unwrap();
    assert!(centre.audited_events().contains(&"volume-handed-over".to_owned()));
    assert_eq!(refused(told(&centre, &on_other, "v2", second)), "volume-not-handed-over");
    assert_eq!(refused(tells(&on_other, "v2", 9, 9, false)), "volume-not-handed-over");
    // Two operators may have it opened as it is.
    let failed = Outcome::Failed { detail: String::new(), hint: String::new() };
    settle(&on_other, second, failed);
    let why = json!({ "reason": "the first board is gone" });
    let proposed: VmView = centre.operator().post("/v1/vms/v2/reanchor", &why).unwrap();
    assert!(proposed.reanchor.is_some());
    let _: VmView = centre.second_operator().post("/v1/vms/v2/reanchor", &why).unwrap();
    let said = told(&centre, &on_other, "v2", start(&centre, "v2")).unwrap();
    assert_eq!(said, Some(AnchorStart { count: 4, handed_over: true }));
    tells(&on_other, "v2", 9, 9, false).unwrap();
    assert!(centre.audited_events().contains(&"volume-reanchored".to_owned()));
}

#[test]
fn a_running_vms_data_keys_are_exchanged_by_its_home_which_tells_how_far_it_is() {
    let centre = Centre::start();
    let (a, b) = (centre.host("a"), centre.host("b"));
    let (on_a, on_b) = (a.session().unwrap(), b.session().unwrap());
    let operator = centre.operator();
    let id = vault(&centre, "v1");
    let rekey = || operator.post::<Operation>("/v1/vms/v1/rekey", &json!({}));
    assert_eq!(refused(rekey()), "vm-busy");
    report(&on_a, "v1", VmState::Running).unwrap();
    settle(&on_a, id, Outcome::Done);
    let ordered = rekey().unwrap();
    assert_eq!(rekey().unwrap().id, ordered.id, "the same wish is one operation");
    let orders: Value = on_a.caller.get("/v1/orders").unwrap();
    assert_eq!(orders["orders"][0]["operation"]["action"], "rekey");
    // No key of the VM leaves the authority for it.
    let asked = request(ordered.id, GrantPurpose::Boot, 1);
    assert_eq!(refused(ask(&on_a, "v1", &asked)), "operation-unknown");
    let path = format!("/v1/operations/{}", ordered.id);
    let far = json!({"phase": "rekey", "percent": 40, "timings": [], "outcome": null});
    assert_eq!(refused(on_b.caller.post::<Value>(&path, &far)), "operation-unknown");
    let _: Operation = on_a.caller.post(&path, &far).unwrap();
    let view: VmView = operator.get("/v1/vms/v1").unwrap();
    assert_eq!((view.state, view.operation), (VmState::Busy, Some(ordered.id)));
    let shown: Operation = operator.get(&path).unwrap();
    assert_eq!((shown.phase.as_str(), shown.percent), ("rekey", Some(40)));
    settle(&on_a, ordered.id, Outcome::Done);
    let view: VmView = operator.get("/v1/vms/v1").unwrap();
    assert_eq!((view.state, view.operation), (VmState::Running, None));
    let events = centre.audited_events();
    for event in ["vm-rekey-ordered", "vm-rekeyed"] {
        assert!(events.iter().any(|seen| seen == event), "{event} in {events:?}");
    }
}
