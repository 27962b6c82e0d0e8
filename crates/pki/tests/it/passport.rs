//! Passports: each way of not being the service that is wanted has its name.

use std::time::Duration;

use model::api::service::Service;
use pki::{PassportRejection, Profile, Purpose, Validity, Wanted, check_passport};

use crate::support::{NOW, Pki, day, p256, passport};

#[test]
fn only_the_wanted_service_of_the_wanted_host_in_its_time_is_let_in() {
    let (pki, other) = (Pki::new(), Pki::new());
    let issue =
        |profile: &Profile, validity| pki.sub.issue(profile, &p256(), validity).unwrap().der;
    let check = |der: &[u8], anchors: &pki::Anchors, wanted: &Wanted| {
        let offered = [pki.sub.certificate()];
        [Purpose::TlsClient, Purpose::TlsServer]
            .map(|purpose| check_passport(der, &offered, anchors, (NOW, purpose), wanted))
    };
    let (a, b) = ("host-a".parse().unwrap(), "host-b".parse().unwrap());
    let trust = issue(&passport(Service::Trust, "host-a"), day());
    let here = Wanted::of(Service::Trust, a);
    for outcome in check(&trust, &pki.anchors(), &here) {
        let checked = outcome.unwrap();
        assert_eq!(checked.host().as_str(), "host-a");
        assert_eq!(checked.name().to_string(), "trust:host-a");
    }
    assert!(check(&trust, &pki.anchors(), &Wanted::any(Service::Trust))[0].is_ok());
    let later = Validity::new(NOW + Duration::from_secs(60), Duration::from_secs(60));
    let before = Validity::new(NOW - Duration::from_secs(60), Duration::from_secs(30));
    let host = "host-a".parse().unwrap();
    let session = Profile::HostSession { host, verdict: model::Digest::sha256([7; 32]) };
    let cases = [
        (trust.clone(), Wanted::any(Service::Centre), "passport-wrong-service"),
        (trust.clone(), Wanted::of(Service::Trust, b), "passport-wrong-host"),
        (issue(&passport(Service::Trust, "host-a"), before), here.clone(), "passport-expired"),
        (issue(&passport(Service::Trust, "host-a"), later), here.clone(), "passport-not-yet-valid"),
    ];
    for (der, wanted, name) in cases {
        for outcome in check(&der, &pki.anchors(), &wanted) {
            assert_eq!(outcome.unwrap_err().code(), name);
        }
    }
    let foreign = check(&trust, &other.anchors(), &here)[0].clone().unwrap_err();
    assert_eq!(foreign.code(), "passport-foreign");
    // A host's session is no passport, and a passport names no host that could have a session.
    let session = check(&issue(&session, day()), &pki.anchors(), &here)[0].clone();
    assert_eq!(session, Err(PassportRejection::Missing));
    let verified = pki::verify_chain(
        &trust,
        &[pki.sub.certificate()],
        &pki.anchors(),
        NOW,
        Purpose::TlsClient,
    );
    assert_eq!(verified.unwrap().host(), None);
}
