//! Hosts prove themselves; each way of not doing so has a name.

use std::{thread, time::Duration};

use model::{
    Nonce,
    api::enrol::{ChallengePurpose, ChallengeRequest, HostMode, HostView, RevocationList},
};
use serve::clock::{Clock as _, SystemClock};
use tpm::Purpose;

use crate::{
    host_client::{HostClient, SessionKeys},
    support::{Centre, Settings},
};

fn refused<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "nothing was refused".to_owned())
}

#[test]
fn an_approved_host_that_booted_as_endorsed_gets_a_session() {
    let centre = Centre::start();
    let host = centre.host("a");
    let session = host.session().unwrap();
    assert_eq!(session.session.mode, HostMode::Enforcing);
    let view: HostView = centre.operator().get("/v1/hosts/a").unwrap();
    assert!(view.trusted && view.verdict.is_some());
    let orders: serde_json::Value = session.caller.get("/v1/orders").unwrap();
    assert_eq!(orders["orders"].as_array().unwrap().len(), 0);
    // A session is no operator, an operator no host, and a stranger neither.
    assert_eq!(refused(session.caller.get::<serde_json::Value>("/v1/hosts")), "operator-required");
    let operator = centre.operator();
    assert_eq!(refused(operator.get::<serde_json::Value>("/v1/orders")), "session-missing");
    let anyone = host.anyone();
    assert_eq!(refused(anyone.get::<serde_json::Value>("/v1/orders")), "session-missing");
    assert_eq!(refused(anyone.get::<serde_json::Value>("/v1/hosts")), "operator-required");
}

#[test]
fn replayed_relayed_and_repurposed_quotes_are_refused() {
    let centre = Centre::start();
    let host = centre.host("a");
    let keys = SessionKeys::new();
    let evidence = host.evidence(&host.challenge().unwrap(), &keys);
    host.attest(&evidence).unwrap();
    assert_eq!(refused(host.attest(&evidence)), "nonce-used");
    let mut invented = evidence.clone();
    invented.nonce = Nonce([1; 32]);
    assert_eq!(refused(host.attest(&invented)), "nonce-unknown");
    // Another session's keys in place of those that were quoted.
    let mut relayed = host.evidence(&host.challenge().unwrap(), &keys);
    relayed.session_key = SessionKeys::new().tls.spki().to_vec().into();
    assert_eq!(refused(host.attest(&relayed)), "quote-not-bound");
    // An old quote under a new nonce.
    let mut replayed = evidence;
    replayed.nonce = host.challenge().unwrap().nonce;
    assert_eq!(refused(host.attest(&replayed)), "quote-not-bound");
    let challenge = host.challenge().unwrap();
    let enrol = host.evidence_for(Purpose::Enrol, challenge.nonce, &challenge.pcrs, &keys);
    assert_eq!(refused(host.attest(&enrol)), "quote-wrong-purpose");
    let mut altered = host.evidence(&host.challenge().unwrap(), &keys);
    let last = altered.signature.0.len() - 1;
    altered.signature.0[last] ^= 1;
    assert_eq!(refused(host.attest(&altered)), "quote-signature-invalid");
    // None of this, which anyone could have sent, has harmed the host.
    let view: HostView = centre.operator().get("/v1/hosts/a").unwrap();
    assert!(view.trusted);
    // A genuine quote that leaves something out has: only the host can have made it.
    let challenge = host.challenge().unwrap();
    let few = host.evidence_for(Purpose::HostAttest, challenge.nonce, &[0], &keys);
    assert_eq!(refused(host.attest(&few)), "pcr-missing");
    let view: HostView = centre.operator().get("/v1/hosts/a").unwrap();
    assert!(!view.trusted);
}

#[test]
fn another_hosts_ak_is_not_this_hosts() {
    let centre = Centre::start();
    let (a, b) = (centre.host("a"), centre.host("b"));
    let keys = SessionKeys::new();
    let challenge = a.challenge().unwrap();
    let evidence = b.evidence(&challenge, &keys);
    assert_eq!(refused(a.attest(&evidence)), "ak-not-enrolled");
    // Claiming the enrolled AK does not help: it did not sign.
    let mut claimed = b.evidence(&a.challenge().unwrap(), &keys);
    claimed.ak_public = a.ak.as_bytes().to_vec().into();
    assert_eq!(refused(a.attest(&claimed)), "quote-signature-invalid");
    // A nonce of one host does not serve another.
    let stolen = b.evidence(&a.challenge().unwrap(), &keys);
    assert_eq!(refused(b.attest(&stolen)), "nonce-unknown");
}

#[test]
fn a_host_with_an_unknown_measurement_is_refused_and_loses_its_standing() {
    let centre = Centre::start();
    let mut host = centre.host("a");
    let before = host.session().unwrap();
    host.measure(14, "vouchsafe:rootkit", true);
    assert_eq!(refused(host.session()), "event-unknown");
    let view: HostView = centre.operator().get("/v1/hosts/a").unwrap();
    assert!(!view.trusted);
    assert!(view.refusal.unwrap().detail.contains("vouchsafe:rootkit"));
    // The session that it still has is good for reports, not for keys.
    assert!(before.caller.get::<serde_json::Value>("/v1/orders").is_ok());
    let audited = centre.audited_refusals();
    assert!(audited.iter().any(|name| name == "event-unknown"), "{audited:?}");
    // Once the new state is endorsed, the host is trusted again.
    thread::sleep(Duration::from_millis(20));
    centre.endorse(&host.log);
    host.session().unwrap();
}

#[test]
fn an_edited_log_is_refused() {
    let centre = Centre::start();
    let mut host = centre.host("a");
    let honest = host.log.clone();
    host.measure(14, "vouchsafe:rootkit", true);
    host.log = honest;
    assert_eq!(refused(host.session()), "event-log-mismatch");
}

#[test]
fn a_host_with_another_clock_is_told_so() {
    let centre = Centre::start();
    let host = centre.host("a");
    let now = SystemClock.unix_ms();
    assert_eq!(refused(host.challenge_at(now + 40_000)), "clock-skew");
    assert_eq!(refused(host.challenge_at(now - 40_000)), "clock-skew");
    assert!(host.challenge_at(now - 20_000).is_ok());
}

#[test]
fn nonces_and_sessions_expire() {
    let policy = "nonce_life_s = 1\nsession_life_s = 2".to_owned();
    let centre = Centre::with(&Settings { policy, ..Settings::default() });
    let host = centre.host("a");
    let keys = SessionKeys::new();
    let late = host.evidence(&host.challenge().unwrap(), &keys);
    // Between a nonce and its quote the disk may stall for longer than it lives.
    let entered = || (0..100).find_map(|_| host.session().ok()).expect("a session");
    let session = entered();
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(refused(host.attest(&late)), "nonce-expired");
    thread::sleep(Duration::from_millis(2200));
    let orders = session.caller.get::<serde_json::Value>("/v1/orders");
    assert_eq!(refused(orders), "session-expired");
    let view: HostView = centre.operator().get("/v1/hosts/a").unwrap();
    assert!(!view.trusted);
    entered();
}

#[test]
fn a_revoked_host_is_refused_everything_at_once() {
    let centre = Centre::start();
    let host = centre.host("a");
    let session = host.session().unwrap();
    let reason = serde_json::json!({ "reason": "stolen" });
    let operator = centre.operator();
    let view: HostView = operator.post("/v1/hosts/a/revoke", &reason).unwrap();
    assert_eq!(view.mode, HostMode::Revoked);
    assert_eq!(refused(session.caller.get::<serde_json::Value>("/v1/orders")), "host-revoked");
    assert_eq!(refused(host.session()), "host-revoked");
    let list: RevocationList = host.anyone().get("/v1/crl").unwrap();
    let ca = centre.anchors().remove(0);
    let crl = pki::Crl::verify(&list.crl.0, &ca, SystemClock.now()).unwrap();
    let anchors = pki::Anchors::new(&[&ca]).unwrap();
    let ak = &host.ak_certificate.borrow().clone();
    let purpose = pki::Purpose::AttestationKey;
    let ak = pki::verify_chain::<&[u8]>(ak, &[], &anchors, SystemClock.now(), purpose).unwrap();
    assert!(crl.is_revoked(ak.serial()));
    let approve = serde_json::json!({ "audit_only": false });
    let back = operator.post::<serde_json::Value>("/v1/hosts/a/approve", &approve);
    assert_eq!(refused(back), "host-revoked");
}

#[test]
fn a_guests_nonce_needs_its_hosts_session() {
    let centre = Centre::start();
    let host: HostClient = centre.host("a");
    let request = ChallengeRequest {
        host: host.name.clone(),
        purpose: ChallengePurpose::GuestAttest,
        now: SystemClock.unix_ms(),
    };
    let anyone = host.anyone().post::<serde_json::Value>("/v1/challenges", &request);
    assert_eq!(refused(anyone), "session-missing");
    let session = host.session().unwrap();
    let challenge: model::api::enrol::Challenge =
        session.caller.post("/v1/challenges", &request).unwrap();
    // It serves guests only.
    let keys = SessionKeys::new();
    assert_eq!(refused(host.attest(&host.evidence(&challenge, &keys))), "quote-wrong-purpose");
}
