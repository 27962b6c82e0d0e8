//! Hosts: the good one, and each way of not being it.

use attest::{
    Rejected, Rejection,
    eventlog::{EventLog, EventType},
    host::{EnrolledAk, appraise_host, check_ak_attributes},
    reference::{HostReference, ReferenceEvent, ReferenceUnusable, ReferenceValues},
    result::{Status, Subject},
};
use model::{Digest, HashAlg, Nonce, api::enrol::HostEvidence};
use proptest::prelude::*;
use tpm::{Purpose, QualifyingData};

use crate::{
    lab::{PCRS, lab_log},
    support::{AK, NOW, SoftAk, TestHost, endorsed},
};

fn refused(host: &TestHost, evidence: &HostEvidence) -> Box<Rejected> {
    appraise_host(evidence, &host.policy, &host.challenge, NOW).unwrap_err()
}

fn code(host: &TestHost, evidence: &HostEvidence) -> &'static str {
    refused(host, evidence).code()
}

#[test]
fn a_good_host_is_affirmed_with_its_claims_and_chain() {
    let host = TestHost::new();
    let appraised = appraise_host(&host.evidence(), &host.policy, &host.challenge, NOW).unwrap();
    let result = appraised.result();
    assert_eq!(result.status, Status::Affirming);
    assert!(result.claims.iter().all(|claim| claim.passed));
    let names: Vec<_> = result.claims.iter().map(|claim| &*claim.name).collect();
    assert_eq!(
        names,
        ["ak-enrolled", "nonce", "quote-signature", "binding", "event-log", "events"]
    );
    assert_eq!(result.chain.len(), 2);
    assert_eq!(result.expires_at, NOW + 60_000);
    assert_eq!(appraised.facts().grant_key, b"grant key");
    assert!(matches!(&result.subject, Subject::Host { host, .. } if host.as_str() == "a"));
}

#[test]
fn another_tpms_ak_is_not_enrolled() {
    let (host, other) = (TestHost::new(), TestHost::new());
    let mut evidence = host.evidence();
    evidence.ak_public = other.evidence().ak_public;
    assert_eq!(code(&host, &evidence), "ak-not-enrolled");
    evidence.ak_public = vec![1, 2, 3].into();
    assert_eq!(code(&host, &evidence), "ak-not-enrolled");
    // The enrolled AK named, another one signing.
    let mut evidence = other.evidence();
    evidence.ak_public = host.evidence().ak_public;
    assert_eq!(code(&host, &evidence), "quote-signature-invalid");
}

#[test]
fn an_ak_without_its_attributes_is_not_admitted_and_the_missing_ones_are_named() {
    for (bit, name) in [
        (0x0001_0000, "restricted"),
        (0x0004_0000, "sign"),
        (0x0002, "fixedTPM"),
        (0x0010, "fixedParent"),
        (0x0020, "sensitiveDataOrigin"),
    ] {
        let refused = check_ak_attributes(&SoftAk::new(AK & !bit).public).unwrap_err();
        assert_eq!(refused, Rejection::AkWrongAttributes { missing: vec![name] });
        assert_eq!(refused.code(), "ak-wrong-attributes");
    }
    let refused = EnrolledAk::admit(SoftAk::new(AK | 0x0002_0000).public).unwrap_err();
    assert_eq!(refused, Rejection::AkWrongAttributes { missing: vec!["sign-only"] });
    assert_eq!(check_ak_attributes(&SoftAk::new(AK).public), Ok(()));
}

#[test]
fn a_replayed_quote_answers_another_nonce() {
    let mut host = TestHost::new();
    let old = host.evidence();
    host.challenge.nonce = Nonce([8; 32]);
    assert_eq!(code(&host, &old), "nonce-unknown");
    // With the new nonce written over the old one, the quote still binds the old one.
    let relabelled = HostEvidence { nonce: host.challenge.nonce, ..old };
    assert_eq!(code(&host, &relabelled), "quote-not-bound");
}

#[test]
fn a_late_answer_is_refused() {
    let host = TestHost::new();
    let late = host.challenge.expires_at;
    let refused = appraise_host(&host.evidence(), &host.policy, &host.challenge, late).unwrap_err();
    assert_eq!(*refused.first(), Rejection::NonceExpired { expired_at: late, now: late });
    assert_eq!(refused.code(), "nonce-expired");
}

#[test]
fn a_relayed_quote_is_over_another_session_key() {
    let host = TestHost::new();
    let mut evidence = host.evidence();
    evidence.session_key = b"the relay's key".to_vec().into();
    assert_eq!(code(&host, &evidence), "quote-not-bound");
    let mut evidence = host.evidence();
    evidence.grant_key = b"the relay's key".to_vec().into();
    assert_eq!(code(&host, &evidence), "quote-not-bound");
}

#[test]
fn a_quote_for_another_purpose_is_recognised_as_such() {
    let host = TestHost::new();
    let nonce = &host.challenge.nonce;
    let parts: [&[u8]; 2] = [b"session key", b"grant key"];
    for purpose in [Purpose::GuestAttest, Purpose::Enrol, Purpose::VtpmBinding] {
        let data = QualifyingData::bind(purpose, nonce, &parts);
        let refused = refused(&host, &host.evidence_with(data.as_bytes()));
        let wanted = Purpose::HostAttest;
        assert_eq!(*refused.first(), Rejection::QuoteWrongPurpose { made_for: purpose, wanted });
        assert_eq!(refused.code(), "quote-wrong-purpose");
    }
    let bare = QualifyingData::bind(Purpose::Enrol, nonce, &[]);
    assert_eq!(code(&host, &host.evidence_with(bare.as_bytes())), "quote-wrong-purpose");
    assert_eq!(code(&host, &host.evidence_with(b"")), "quote-not-bound");
}

#[test]
fn an_altered_quote_or_signature_is_refused() {
    let host = TestHost::new();
    let mut evidence = host.evidence();
    evidence.quote.0[50] ^= 1;
    assert_eq!(code(&host, &evidence), "quote-signature-invalid");
    let mut evidence = host.evidence();
    evidence.signature = b"nothing".to_vec().into();
    assert_eq!(code(&host, &evidence), "quote-signature-invalid");
}

#[test]
fn what_the_ak_signed_must_be_a_quote_by_a_tpm() {
    let host = TestHost::new();
    let qualifying = host.qualifying();
    let mut bytes = host.evidence().quote.0;
    bytes[0] = 0;
    let signature = host.ak.sign(&bytes);
    let evidence = host.evidence_of((bytes, signature));
    assert_eq!(code(&host, &evidence), "quote-malformed");
    let names = [0, 4, 1, 2, 3, 4, 0, 4, 1, 2, 3, 4];
    let certify = host.ak.attest(0x8017, qualifying.as_bytes(), &names);
    assert_eq!(code(&host, &host.evidence_of(certify)), "quote-type-unexpected");
}

#[test]
fn a_quote_that_leaves_out_a_pcr_is_refused() {
    let host = TestHost::new();
    let qualifying = host.qualifying();
    let digest = [0; 32];
    let quote = host.ak.quote(qualifying.as_bytes(), &[(HashAlg::Sha256, &PCRS[..7])], &digest);
    let refused = refused(&host, &host.evidence_of(quote));
    assert_eq!(*refused.first(), Rejection::PcrMissing { pcrs: vec![7, 14] });
    assert_eq!(refused.code(), "pcr-missing");
    let quote = host.ak.quote(qualifying.as_bytes(), &[(HashAlg::Sha1, &PCRS)], &digest);
    assert_eq!(code(&host, &host.evidence_of(quote)), "pcr-bank-unsupported");
}

#[test]
fn a_measurement_outside_the_log_is_a_mismatch() {
    let host = TestHost::new();
    let mut longer = lab_log();
    longer.measure(14, EventType::IPL, b"rootkit", b"vouchsafe:rootkit").unwrap();
    let digest = host.quote_digest(longer.as_bytes());
    let qualifying = host.qualifying();
    let quote = host.ak.quote(qualifying.as_bytes(), &[(HashAlg::Sha256, &PCRS)], &digest);
    assert_eq!(code(&host, &host.evidence_of(quote)), "event-log-mismatch");
}

#[test]
fn an_edited_log_is_a_mismatch_and_a_broken_one_is_named() {
    let host = TestHost::new();
    let mut evidence = host.evidence();
    let digest = evidence.event_log.0.len() - 4 - "vouchsafe:swtpm".len() - 1;
    evidence.event_log.0[digest] ^= 1;
    assert_eq!(code(&host, &evidence), "event-log-mismatch");
    let mut evidence = host.evidence();
    evidence.event_log.0.pop();
    assert_eq!(code(&host, &evidence), "event-log-malformed");
    evidence.event_log.0.clear();
    assert_eq!(code(&host, &evidence), "event-log-malformed");
}

#[test]
fn a_renamed_event_is_unknown_although_all_digests_are_right() {
    let host = TestHost::new();
    let mut evidence = host.evidence();
    let end = evidence.event_log.0.len();
    evidence.event_log.0[end - 5..].copy_from_slice(b"other");
    let refused = refused(&host, &evidence);
    let codes: Vec<_> = refused.all().map(Rejection::code).collect();
    assert_eq!(codes, ["event-unknown", "event-missing"]);
}

#[test]
fn an_unknown_event_is_named_with_its_digest() {
    let mut host = TestHost::new();
    let mut log = lab_log();
    let digests = log.measure(14, EventType::IPL, b"new qemu", b"vouchsafe:qemu").unwrap();
    host.log = log.finish();
    let refused = refused(&host, &host.evidence());
    assert_eq!(
        *refused.first(),
        Rejection::EventUnknown {
            pcr: 14,
            kind: EventType::IPL,
            name: "vouchsafe:qemu".to_owned(),
            digest: digests[0],
        }
    );
    assert!(refused.to_string().contains("EV_IPL `vouchsafe:qemu` in PCR 14"));
    let result = refused.result();
    assert_eq!(result.status, Status::Contraindicated);
    assert!(result.chain.is_empty());
    assert_eq!(
        result.claims.last().map(|claim| (&*claim.name, claim.passed)),
        Some(("event-unknown", false))
    );
}

#[test]
fn a_required_event_that_is_missing_is_named() {
    let mut host = TestHost::new();
    let mut log = attest::eventlog::Builder::new(&[HashAlg::Sha256]);
    log.measure(0, EventType::S_CRTM_VERSION, b"vouchsafe lab firmware", b"vouchsafe lab firmware")
        .unwrap();
    host.log = log.finish();
    let refused = refused(&host, &host.evidence());
    assert_eq!(refused.code(), "event-missing");
    assert_eq!(refused.all().count(), 8 + 6);
}

#[test]
fn newer_reference_values_add_digests_to_the_older_ones() {
    let old = lab_log().finish();
    let mut builder = lab_log();
    builder.measure(14, EventType::IPL, b"agent 2", b"vouchsafe:agent").unwrap();
    let new = builder.finish();
    let values = |log: &[u8]| {
        endorsed(&ReferenceValues::from_log("v", NOW, &EventLog::parse(log).unwrap(), &PCRS))
    };
    let mut first = lab_log();
    first.measure(14, EventType::IPL, b"agent 1", b"vouchsafe:agent").unwrap();
    let documents = [values(first.as_bytes()), values(&new)];
    for log in [first.finish(), new] {
        let mut host = TestHost::with_log(log, &PCRS);
        host.policy.reference = HostReference::new(&documents, &[]).unwrap().into();
        appraise_host(&host.evidence(), &host.policy, &host.challenge, NOW).unwrap();
    }
    let mut host = TestHost::with_log(old, &PCRS);
    host.policy.reference = HostReference::new(&documents, &[]).unwrap().into();
    assert_eq!(code(&host, &host.evidence()), "event-missing");
}

#[test]
fn reference_values_that_cannot_be_used_are_refused_before_any_appraisal() {
    let event = |pcr, digest| ReferenceEvent {
        pcr,
        kind: 13,
        name: "x".to_owned(),
        digests: vec![digest],
        optional: false,
    };
    let check = |events, pcrs: &[u8]| {
        let values =
            ReferenceValues { issued: NOW, name: String::new(), events, pcrs: pcrs.to_vec() };
        HostReference::new(&[endorsed(&values)], &[]).unwrap_err()
    };
    let digest = Digest::sha256([1; 32]);
    assert_eq!(check(vec![event(14, digest)], &[13]), ReferenceUnusable::Pcr(14));
    assert_eq!(check(vec![event(14, digest)], &[14, 24]), ReferenceUnusable::Pcr(24));
    assert_eq!(check(vec![], &[14]), ReferenceUnusable::Empty);
    let sha1 = Digest::zero(HashAlg::Sha1);
    assert_eq!(check(vec![event(14, sha1)], &[14]), ReferenceUnusable::Digest("x".to_owned()));
    let many = vec![event(14, digest); attest::reference::MAX_REFERENCES + 1];
    assert!(matches!(check(many, &[14]), ReferenceUnusable::TooMany));
    assert_eq!(HostReference::new(&[], &[0]).unwrap_err(), ReferenceUnusable::Empty);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_change_of_a_signed_byte_passes(which in 0_usize..3, at in 0_usize..4096, bit in 0_u8..8) {
        let host = TestHost::new();
        let mut evidence = host.evidence();
        let bytes = match which {
            0 => &mut evidence.quote.0,
            1 => &mut evidence.signature.0,
            _ => &mut evidence.ak_public.0,
        };
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(appraise_host(&evidence, &host.policy, &host.challenge, NOW).is_err());
    }
}
