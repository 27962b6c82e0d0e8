//! Passports of services: issued to what was measured on a host that is good now, and to nobody
//! else; worth nothing where a host's session is asked for.

use std::{thread, time::Duration};

use model::api::{
    enrol::HostView,
    service::{Certified, CertifyRequest, HostStanding, Service},
};
use pki::{Anchors, Purpose, Wanted, check_passport};
use serve::{
    client::Identity,
    clock::{Clock as _, SystemClock},
    keys::SigningKey,
};

use crate::{
    host_client::{HostClient, InSession},
    support::{Centre, Refused},
};

fn refused<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "nothing was refused".to_owned())
}

/// A host whose event log has a trust service, endorsed.
fn with_trust(centre: &Centre, name: &str) -> HostClient {
    let mut host = centre.host(name);
    host.measure(14, "vouchsafe:trust", true);
    thread::sleep(Duration::from_millis(20));
    centre.endorse(&host.log);
    host
}

fn certify(host: &InSession, service: Service, key: &SigningKey) -> Result<Certified, Refused> {
    let spki = key.spki().to_vec().into();
    host.caller.post("/v1/services/certify", &CertifyRequest { service, spki })
}

#[test]
fn a_measured_service_of_a_good_host_gets_a_passport_until_the_verdict_ends() {
    let centre = Centre::start();
    let host = with_trust(&centre, "a");
    let session = host.session().unwrap();
    let key = SigningKey::generate().unwrap();
    let passport = certify(&session, Service::Trust, &key).unwrap();
    assert_eq!(passport.expires_at, session.session.expires_at);
    let ca = passport.anchors[0].0.clone();
    assert_eq!(ca, centre.anchors()[0]);
    let anchors = Anchors::new(&[&ca]).unwrap();
    for purpose in [Purpose::TlsClient, Purpose::TlsServer] {
        let none: [&[u8]; 0] = [];
        let at = (SystemClock.now(), purpose);
        let wanted = Wanted::of(Service::Trust, host.name.clone());
        let checked =
            check_passport(&passport.certificate.0, &none, &anchors, at, &wanted).unwrap();
        assert_eq!(checked.spki(), key.spki());
    }
    // It opens no door of the authority: it is no host's session and no operator's certificate.
    let chain = vec![passport.certificate.0];
    let bearer = centre.caller(Some(&Identity { chain, key: key.to_pkcs8().unwrap() }));
    assert_eq!(refused(bearer.get::<serde_json::Value>("/v1/orders")), "session-missing");
    assert_eq!(refused(bearer.get::<serde_json::Value>("/v1/hosts")), "operator-required");
    let another: Result<Certified, _> = bearer.post(
        "/v1/services/certify",
        &CertifyRequest { service: Service::Trust, spki: key.spki().to_vec().into() },
    );
    assert_eq!(refused(another), "session-missing");
}

#[test]
fn a_service_that_was_not_measured_gets_no_passport() {
    let centre = Centre::start();
    let host = with_trust(&centre, "a");
    let session = host.session().unwrap();
    let key = SigningKey::generate().unwrap();
    assert_eq!(refused(certify(&session, Service::Centre, &key)), "service-unmeasured");
    let junk = CertifyRequest { service: Service::Trust, spki: vec![0x30, 0].into() };
    let junk: Result<Certified, _> = session.caller.post("/v1/services/certify", &junk);
    assert_eq!(refused(junk), "request-invalid");
    let operator: Result<Certified, _> = centre.operator().post(
        "/v1/services/certify",
        &CertifyRequest { service: Service::Trust, spki: key.spki().to_vec().into() },
    );
    assert_eq!(refused(operator), "session-missing");
    assert!(centre.audited_refusals().iter().any(|name| name == "service-unmeasured"));
}

#[test]
fn a_host_that_turned_bad_gets_no_passport_with_the_session_it_still_has() {
    let centre = Centre::start();
    let mut host = with_trust(&centre, "a");
    let session = host.session().unwrap();
    let key = SigningKey::generate().unwrap();
    let asked = |name: &str| -> HostStanding {
        session.caller.get(&format!("/v1/hosts/{name}/standing")).unwrap()
    };
    let good = asked("a");
    assert!(good.trusted && good.verdict.is_some());
    assert_eq!(good.services, [Service::Trust, Service::TrustGuests]);
    certify(&session, Service::Trust, &key).unwrap();
    host.measure(14, "vouchsafe:rootkit", true);
    assert_eq!(refused(host.session()), "event-unknown");
    assert_eq!(refused(certify(&session, Service::Trust, &key)), "host-not-trusted");
    let bad = asked("a");
    assert!(!bad.trusted && bad.verdict.is_none() && bad.services.is_empty());
    let unknown: Result<HostStanding, _> = session.caller.get("/v1/hosts/nobody/standing");
    assert_eq!(refused(unknown), "ak-not-enrolled");
}

#[test]
fn an_audit_only_host_gets_no_passport() {
    let centre = Centre::start();
    let host = with_trust(&centre, "a");
    let audit_only = serde_json::json!({ "audit_only": true });
    let _: HostView = centre.operator().post("/v1/hosts/a/approve", &audit_only).unwrap();
    let session = host.session().unwrap();
    let key = SigningKey::generate().unwrap();
    assert_eq!(refused(certify(&session, Service::Trust, &key)), "host-audit-only");
}
