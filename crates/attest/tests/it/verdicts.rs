//! Verdicts travel: signed, verified by others, and turned into a proof again while they count.

use attest::{
    Appraised, Host,
    envelope::{Envelope, Kind, TrustedKeys},
    host::appraise_host,
    result::AttestationResult,
};

use crate::support::{NOW, TestHost, signing_key};

#[test]
fn a_good_verdict_is_read_by_others_and_reopened_until_it_expires() {
    let host = TestHost::new();
    let key = signing_key();
    let keys = TrustedKeys::new([key.spki()]).unwrap();
    let appraised = appraise_host(&host.evidence(), &host.policy, &host.challenge, NOW).unwrap();
    let json = appraised.sign(&key).unwrap().to_json();
    let open = || {
        let envelope = Envelope::parse(&json).unwrap();
        envelope.verify::<AttestationResult>(&keys, Kind::Verdict, 1).unwrap()
    };
    assert_eq!(open().digest(), appraised.verdict_digest());
    assert_eq!(*open(), *appraised.result());
    let again = Appraised::<Host>::reopen(open(), NOW + 59_999).unwrap();
    // A verdict names no components.
    let facts = Host { components: Vec::new(), ..appraised.facts().clone() };
    assert_eq!(*again.facts(), facts);
    assert_eq!(again.verdict_digest(), appraised.verdict_digest());
    let late = Appraised::<Host>::reopen(open(), NOW + 60_000).unwrap_err();
    assert_eq!(late.code(), "host-not-trusted");
    let guest = Appraised::<attest::Guest>::reopen(open(), NOW).unwrap_err();
    assert_eq!(guest.code(), "guest-not-trusted");
}

#[test]
fn a_bad_verdict_never_becomes_a_proof() {
    let host = TestHost::new();
    let key = signing_key();
    let keys = TrustedKeys::new([key.spki()]).unwrap();
    let mut evidence = host.evidence();
    evidence.event_log.0.pop();
    let rejected = appraise_host(&evidence, &host.policy, &host.challenge, NOW).unwrap_err();
    let envelope = rejected.sign(&key).unwrap();
    let verdict = envelope.verify::<AttestationResult>(&keys, Kind::Verdict, 1).unwrap();
    assert_eq!(*verdict, *rejected.result());
    assert!(!verdict.is_good_at(NOW));
    let refused = Appraised::<Host>::reopen(verdict, NOW).unwrap_err();
    assert_eq!(refused.code(), "host-not-trusted");
    assert!(!rejected.hint().is_empty());
}
