//! Guests: a real boot's measurements under a vTPM in software, and each way of not being good.

mod bench;
mod own_log;

use std::time::Duration;

use attest::{Rejection, guest::observed_extends, predict::Unpredicted, result::Status};
use model::{
    Digest, Epoch, HashAlg, VmId,
    api::vm::GuestEvidence,
    child::vtpm::{Entry, Measured},
};
use pki::{Profile, Validity};
use tpm::{Purpose, QualifyingData};

use self::bench::{ALL, TestGuest, ak_certificate, ek_certificate, extend, moment, vtpm_ca};
use crate::support::{AK, SoftAk};

#[test]
fn a_real_boot_is_affirmed_with_the_whole_chain() {
    let guest = TestGuest::new();
    let appraised = guest.appraise(&guest.evidence()).unwrap();
    let result = appraised.result();
    assert_eq!(result.status, Status::Affirming);
    assert!(result.claims.iter().all(|claim| claim.passed));
    let roles: Vec<_> = result.chain.iter().map(|link| link.role.as_str()).collect();
    assert_eq!(roles, ["host-tpm-ek", "host-ak", "vtpm-ek", "vtpm-ak", "kernel"]);
    assert_eq!(appraised.facts().host_verdict, guest.host.verdict_digest());
    let names: Vec<_> = result.claims.iter().map(|claim| &*claim.name).collect();
    assert_eq!(
        names,
        [
            "host",
            "nonce",
            "vtpm-binding",
            "quote-signature",
            "binding",
            "observed-list",
            "events",
            "own-log"
        ]
    );
}

#[test]
fn no_log_of_the_guest_is_needed() {
    let guest = TestGuest::new();
    let mut evidence = guest.evidence();
    evidence.guest_log = None;
    evidence.ima_log = None;
    guest.appraise(&evidence).unwrap();
}

#[test]
fn a_guest_is_not_better_than_its_host() {
    let guest = TestGuest::new();
    let late = guest.host.expires_at();
    let refused = guest.appraise_at(&guest.evidence(), late).unwrap_err();
    assert_eq!(refused.code(), "host-not-trusted");
}

#[test]
fn a_list_that_does_not_tell_all_is_refused_before_anything_else() {
    let guest = TestGuest::new();
    let evidence = GuestEvidence { overflowed: true, ..guest.evidence() };
    assert_eq!(guest.code(&evidence), "log-overflow");
    let evidence =
        GuestEvidence { unobservable: Some("stored-state".to_owned()), ..guest.evidence() };
    assert_eq!(guest.code(&evidence), "log-unobservable");
    let mut evidence = guest.evidence();
    evidence.observed.push(extend(24, 1));
    assert_eq!(guest.code(&evidence), "pcr-missing");
}

#[test]
fn nonce_purpose_vm_and_epoch_are_bound() {
    let mut guest = TestGuest::new();
    let nonce = guest.host_test.challenge.nonce;
    let parts: [&[u8]; 2] = [b"v1", &3_u64.to_be_bytes()];
    let other = QualifyingData::bind(Purpose::VtpmBinding, &nonce, &parts);
    assert_eq!(guest.code(&guest.evidence_with(other.as_bytes())), "quote-wrong-purpose");
    let other = attest::binding::guest(&nonce, &"v2".parse().unwrap(), guest.epoch);
    assert_eq!(guest.code(&guest.evidence_with(other.as_bytes())), "quote-not-bound");
    let other = attest::binding::guest(&nonce, &guest.vm, Epoch(2));
    assert_eq!(guest.code(&guest.evidence_with(other.as_bytes())), "quote-not-bound");
    let old = guest.evidence();
    guest.host_test.challenge.nonce = model::Nonce([1; 32]);
    assert_eq!(guest.code(&old), "nonce-unknown");
}

#[test]
fn the_ek_certificate_of_another_vm_is_named() {
    let guest = TestGuest::new();
    let other: VmId = "v2".parse().unwrap();
    let mut evidence = guest.evidence();
    evidence.ek_certificate = ek_certificate(&guest.ca, &other).into();
    let refused = guest.appraise(&evidence).unwrap_err();
    let expected = guest.vm.clone();
    assert_eq!(*refused.first(), Rejection::VtpmEkOtherVm { found: other, expected });
    assert_eq!(refused.code(), "vtpm-ek-other-vm");
}

#[test]
fn a_vtpm_that_is_not_the_certified_one_is_refused() {
    let mut guest = TestGuest::new();
    // An older EK certificate of the same VM, one of another CA, and none at all.
    for ek in [ek_certificate(&guest.ca, &guest.vm), ek_certificate(&vtpm_ca(), &guest.vm), vec![]]
    {
        let evidence = GuestEvidence { ek_certificate: ek.into(), ..guest.evidence() };
        assert_eq!(guest.code(&evidence), "vtpm-binding-invalid");
    }
    let evidence = GuestEvidence { epoch: Epoch(2), ..guest.evidence() };
    assert_eq!(guest.code(&evidence), "vtpm-binding-invalid");
    let other = ak_certificate(&guest.ca, &guest.ak, &guest.vm, guest.epoch);
    let evidence = GuestEvidence { ak_certificate: other.into(), ..guest.evidence() };
    assert_eq!(guest.code(&evidence), "vtpm-binding-invalid");
    // Even the authority's own record must hold: a certificate of another epoch does not.
    guest.ak_certificate = ak_certificate(&guest.ca, &guest.ak, &guest.vm, Epoch(2));
    assert_eq!(guest.code(&guest.evidence()), "vtpm-binding-invalid");
}

#[test]
fn an_expired_virtual_ak_certificate_is_refused() {
    let mut guest = TestGuest::new();
    let profile = Profile::VtpmAk { vm: guest.vm.clone(), epoch: guest.epoch, host: [9; 16] };
    let past = Validity::backdated(
        moment() - Duration::from_secs(60),
        Duration::from_secs(60),
        Duration::from_secs(1),
    );
    let spki = guest.ak.public.spki_der().unwrap();
    guest.ak_certificate = guest.ca.issue(&profile, &spki, past).unwrap().der;
    assert_eq!(guest.code(&guest.evidence()), "vtpm-binding-invalid");
}

#[test]
fn a_quote_by_another_key_is_refused() {
    let guest = TestGuest::new();
    let other = SoftAk::new(AK);
    let mut evidence = guest.evidence();
    evidence.signature = other.sign(&evidence.quote.0).into();
    assert_eq!(guest.code(&evidence), "quote-signature-invalid");
}

#[test]
fn a_list_that_was_shortened_does_not_lead_to_the_quote() {
    let guest = TestGuest::new();
    let mut evidence = guest.evidence();
    evidence.observed.remove(5);
    assert_eq!(guest.code(&evidence), "observed-list-mismatch");
}

#[test]
fn a_pcr_that_was_extended_must_be_quoted() {
    let mut guest = TestGuest::new();
    guest.observed.push(extend(16, 1));
    let qualifying =
        attest::binding::guest(&guest.host_test.challenge.nonce, &guest.vm, guest.epoch);
    let quote = guest.ak.quote(qualifying.as_bytes(), &[(HashAlg::Sha256, &ALL[..16])], &[0; 32]);
    assert_eq!(guest.code(&guest.evidence_of(quote)), "pcr-missing");
}

#[test]
fn another_kernel_is_named_by_pcr_digest_and_the_guests_own_words() {
    let mut guest = TestGuest::new();
    let entry = guest.prediction.entries.iter_mut().find(|entry| entry.name == "kernel").unwrap();
    let found = std::mem::replace(&mut entry.digests, vec![Digest::sha256([5; 32])]);
    let refused = guest.appraise(&guest.evidence()).unwrap_err();
    assert_eq!(refused.code(), "guest-event-unknown");
    let Rejection::GuestEventUnknown { pcr, digest, instead_of, description, .. } = refused.first()
    else {
        panic!("{refused}")
    };
    assert_eq!((*pcr, *digest), (4, found[0]));
    assert_eq!(instead_of.as_deref(), Some("kernel"));
    assert!(description.as_deref().unwrap().starts_with("EV_EFI_BOOT_SERVICES_APPLICATION"));
    assert!(refused.all().any(|r| r.code() == "guest-event-missing"));
    assert_eq!(refused.result().status, Status::Contraindicated);
}

#[test]
fn a_boot_that_stopped_early_misses_events() {
    let mut guest = TestGuest::new();
    guest.observed.truncate(20);
    let mut evidence = guest.evidence();
    evidence.guest_log = None;
    evidence.ima_log = None;
    assert_eq!(guest.code(&evidence), "guest-event-missing");
}

#[test]
fn a_prediction_without_a_kernel_affirms_nothing() {
    let mut guest = TestGuest::new();
    guest.prediction.entries.clear();
    guest.prediction.boot_aggregate = false;
    guest.observed.clear();
    let mut evidence = guest.evidence();
    evidence.guest_log = None;
    evidence.ima_log = None;
    assert_eq!(guest.code(&evidence), "guest-event-missing");
}

#[test]
fn a_pcr_that_policy_wants_predicted_must_be() {
    let mut guest = TestGuest::new();
    let open = Unpredicted { pcr: 0, reason: "unknown firmware".to_owned() };
    guest.prediction.unpredicted.push(open);
    assert_eq!(guest.code(&guest.evidence()), "pcr-unpredicted");
}

#[test]
fn a_proxys_list_becomes_evidence_or_says_why_not() {
    let entry = |locality, measured| Entry { locality, measured };
    let digests = vec![Digest::sha256([1; 32])];
    let extend = |pcr| entry(0, Measured::Extend { pcr, digests: digests.clone() });
    let start = || entry(0, Measured::Startup {});
    let pcrs = |entries: &[Entry]| {
        observed_extends(entries).map(|list| list.iter().map(|e| e.pcr).collect::<Vec<_>>())
    };
    let reset = entry(0, Measured::Reset { pcr: 16 });
    assert_eq!(pcrs(&[start(), extend(16), extend(4), reset, extend(16)]), Ok(vec![4, 16]));
    for measured in [
        Measured::Resume {},
        Measured::Crtm { digests: digests.clone() },
        Measured::Drtm { digests: digests.clone() },
        Measured::Reset { pcr: 20 },
    ] {
        assert!(pcrs(&[start(), entry(0, measured)]).is_err());
    }
    assert!(pcrs(&[entry(3, Measured::Startup {})]).is_err());
}
