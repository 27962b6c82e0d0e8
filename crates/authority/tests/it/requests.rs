//! Requests that are not what an operation takes, and who is told what.

use model::api::enrol::TokenAnswer;
use serde_json::{Value, json};
use serve::client::Call;

use crate::support::{Centre, Settings};

fn refused<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "nothing was refused".to_owned())
}

#[test]
fn unknown_fields_wrong_types_and_bad_names_are_refused() {
    let centre = Centre::start();
    let operator = centre.operator();
    let unknown = json!({ "host": "a", "surprise": 1 });
    assert_eq!(refused(operator.post::<Value>("/v1/tokens", &unknown)), "request-invalid");
    assert_eq!(
        refused(operator.post::<Value>("/v1/tokens", &json!({"host": 1}))),
        "request-invalid"
    );
    let name = json!({ "host": "../a" });
    assert_eq!(refused(operator.post::<Value>("/v1/tokens", &name)), "request-invalid");
    assert_eq!(refused(operator.get::<Value>("/v1/hosts/A_b")), "request-invalid");
    assert_eq!(refused(operator.get::<Value>("/v1/hosts/nobody")), "host-unknown");
    assert_eq!(refused(operator.get::<Value>("/v1/audit?form=3")), "request-invalid");
    let audited = centre.audited_refusals();
    assert!(audited.iter().filter(|name| *name == "request-invalid").count() >= 5, "{audited:?}");
}

#[test]
fn a_request_that_is_too_large_is_refused_and_audited() {
    let centre = Centre::start();
    let host = centre.host("a");
    let large = json!({ "host": "a", "token": "x".repeat(300_000) });
    assert_eq!(
        refused(host.anyone().post::<Value>("/v1/hosts/enrol", &large)),
        "request-too-large"
    );
    // Evidence may be longer, but not without end.
    let longer = json!({ "nonce": "x".repeat(9 << 20) });
    let path = "/v1/hosts/a/attest";
    assert_eq!(refused(host.anyone().post::<Value>(path, &longer)), "request-too-large");
    let audited = centre.audited_refusals();
    assert_eq!(audited.iter().filter(|name| *name == "request-too-large").count(), 2);
}

#[test]
fn strangers_learn_the_name_of_a_refusal_and_operators_the_rest() {
    let centre = Centre::start();
    let host = centre.machine("a");
    let call =
        |detail: &str| Call::post("/v1/hosts/enrol").json(&host.enrol_request(detail)).unwrap();
    let stranger = host.anyone().call::<Value>(call("0")).unwrap_err();
    let problem = stranger.problem().unwrap();
    assert_eq!(
        (problem.name.as_str(), &problem.detail, &problem.hint),
        ("token-unknown", &None, &None)
    );
    let operator = centre.operator().call::<Value>(call("0")).unwrap_err();
    assert!(operator.problem().unwrap().hint.is_some());
    let page: Value = centre.operator().get("/v1/audit").unwrap();
    let entries = page["entries"].as_array().unwrap();
    let entry = entries.iter().find(|e| e["outcome"]["refused"] == "token-unknown").unwrap();
    assert_eq!((&entry["actor"], &entry["subject"]), (&json!("anyone"), &json!("host:a")));
}

#[test]
fn a_flood_without_certificates_is_bounded_and_does_not_fill_the_log() {
    let limits = "anonymous_per_minute = 5".to_owned();
    let centre = Centre::with(&Settings { limits, ..Settings::default() });
    let host = centre.machine("a");
    let anyone = host.anyone();
    let mut last = String::new();
    for _ in 0..40 {
        last = refused(anyone.post::<Value>("/v1/hosts/enrol", &host.enrol_request("0")));
    }
    assert_eq!(last, "rate-limited");
    let audited = centre.audited_refusals();
    let noted = audited.iter().filter(|name| *name == "rate-limited").count();
    assert!((1..10).contains(&noted), "{noted} entries about the flood");
    // Operators are not held up by it.
    let token: TokenAnswer = centre.operator().post("/v1/tokens", &json!({"host": "b"})).unwrap();
    assert_eq!(token.token.len(), 64);
}

#[test]
fn the_document_that_describes_the_operations_is_served() {
    let centre = Centre::start();
    let document: Value = centre.caller(None).get("/v1/openapi.json").unwrap();
    assert!(document["paths"]["/v1/vms/{vm}/grant"]["post"].is_object());
    assert!(document["components"]["schemas"]["GrantRequest"].is_object());
}
