//! Guests: a real boot's measurements under a vTPM in software, and each way of not being good.

use std::time::Duration;

use attest::{
    Appraised, Guest, Host, Rejected, Rejection,
    eventlog::{EventLog, EventType},
    guest::{GuestPolicy, VtpmBinding, appraise_guest, observed_extends},
    host::appraise_host,
    ima::ImaList,
    predict::{Predicted, Prediction, Presence, Unpredicted, VERSION},
    result::Status,
};
use model::{
    Digest, Epoch, HashAlg, VmId,
    api::vm::{GuestEvidence, ObservedExtend},
    child::vtpm::{Entry, Measured},
};
use pki::{Anchors, Ca, CaSpec, Profile, Validity, tcg::TpmModel};
use time::OffsetDateTime;
use tpm::{Purpose, QualifyingData};

use crate::support::{AK, NOW, SoftAk, TestHost};

const OVMF: &[u8] = include_bytes!("../../vectors/tcg/ovmf-guest.bin");
const IMA: &[u8] = include_bytes!("../../vectors/tcg/ima-boot-aggregate.bin");
const ALL: [u8; 24] =
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];

/// A VM with a certified vTPM on an appraised host.
struct TestGuest {
    host: Appraised<Host>,
    host_test: TestHost,
    ca: Ca,
    anchors: Anchors,
    vm: VmId,
    epoch: Epoch,
    ak: SoftAk,
    ek_certificate: Vec<u8>,
    ak_certificate: Vec<u8>,
    prediction: Prediction,
    observed: Vec<ObservedExtend>,
}

fn moment() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(NOW / 1000).unwrap()).unwrap()
}

fn validity() -> Validity {
    Validity::backdated(moment(), Duration::from_secs(60), Duration::from_secs(3600))
}

fn vtpm_ca() -> Ca {
    let validity = Validity::new(moment() - Duration::from_secs(900), Duration::from_secs(90_000));
    let spec = CaSpec { common_name: "vTPM CA".to_owned(), path_length: 0, validity };
    Ca::create_root(&spec).unwrap().0
}

fn ek_certificate(ca: &Ca, vm: &VmId) -> Vec<u8> {
    let tpm = TpmModel {
        manufacturer: "id:00001014".to_owned(),
        model: "swtpm".to_owned(),
        version: "id:20191023".to_owned(),
    };
    let profile = Profile::VtpmEk { tpm, vm: vm.clone() };
    let spki = SoftAk::new(AK).public.spki_der().unwrap();
    ca.issue(&profile, &spki, validity()).unwrap().der
}

fn ak_certificate(ca: &Ca, ak: &SoftAk, vm: &VmId, epoch: Epoch) -> Vec<u8> {
    let profile = Profile::VtpmAk { vm: vm.clone(), epoch, host: [9; 16] };
    ca.issue(&profile, &ak.public.spki_der().unwrap(), validity()).unwrap().der
}

/// Everything that the real boot measured, as its prediction would have it.
fn prediction() -> Prediction {
    let log = EventLog::parse(OVMF).unwrap();
    let applications = |index: usize| {
        let app = EventType::EFI_BOOT_SERVICES_APPLICATION;
        log.extends().filter(|e| e.kind == app).position(|e| e.index == index)
    };
    let entries = log.extends().filter(|e| e.pcr != 1).map(|event| Predicted {
        pcr: event.pcr,
        digests: vec![Digest::sha256(*event.sha256().unwrap())],
        name: match applications(event.index) {
            Some(1) => "kernel".to_owned(),
            _ => event.description(),
        },
        presence: Presence::Always,
    });
    let unpredicted = vec![Unpredicted { pcr: 1, reason: "boot variables".to_owned() }];
    Prediction { version: VERSION, entries: entries.collect(), unpredicted, boot_aggregate: true }
}

fn observed() -> Vec<ObservedExtend> {
    let log = EventLog::parse(OVMF).unwrap();
    let firmware = log
        .extends()
        .map(|event| ObservedExtend { pcr: event.pcr, digests: event.digests().collect() });
    let list = ImaList::parse(IMA).unwrap();
    let ima = list.entries.iter().map(|entry| ObservedExtend {
        pcr: 10,
        digests: vec![Digest::zero(HashAlg::Sha1), Digest::sha256(entry.extended)],
    });
    firmware.chain(ima).collect()
}

fn extend(pcr: u8, byte: u8) -> ObservedExtend {
    ObservedExtend { pcr, digests: vec![Digest::sha256([byte; 32])] }
}

fn replay(observed: &[ObservedExtend]) -> [u8; 32] {
    let mut replay = attest::eventlog::Sha256Replay::new(0);
    for extend in observed {
        for digest in extend.digests.iter().filter(|digest| digest.alg() == HashAlg::Sha256) {
            replay.extend(extend.pcr, digest.as_bytes().try_into().unwrap());
        }
    }
    replay.quote_digest(ALL.into_iter())
}

impl TestGuest {
    fn new() -> Self {
        let host_test = TestHost::new();
        let host =
            appraise_host(&host_test.evidence(), &host_test.policy, &host_test.challenge, NOW)
                .unwrap();
        let ca = vtpm_ca();
        let (vm, epoch): (VmId, _) = ("v1".parse().unwrap(), Epoch(3));
        let ak = SoftAk::new(AK);
        Self {
            host,
            host_test,
            anchors: Anchors::new(&[ca.certificate()]).unwrap(),
            ek_certificate: ek_certificate(&ca, &vm),
            ak_certificate: ak_certificate(&ca, &ak, &vm, epoch),
            ca,
            vm,
            epoch,
            ak,
            prediction: prediction(),
            observed: observed(),
        }
    }

    fn evidence(&self) -> GuestEvidence {
        let qualifying =
            attest::binding::guest(&self.host_test.challenge.nonce, &self.vm, self.epoch);
        self.evidence_with(qualifying.as_bytes())
    }

    fn evidence_with(&self, qualifying: &[u8]) -> GuestEvidence {
        let digest = replay(&self.observed);
        self.evidence_of(self.ak.quote(qualifying, &[(HashAlg::Sha256, &ALL)], &digest))
    }

    fn evidence_of(&self, (quote, signature): (Vec<u8>, Vec<u8>)) -> GuestEvidence {
        GuestEvidence {
            nonce: self.host_test.challenge.nonce,
            epoch: self.epoch,
            ak_certificate: self.ak_certificate.clone().into(),
            ek_certificate: self.ek_certificate.clone().into(),
            quote: quote.into(),
            signature: signature.into(),
            observed: self.observed.clone(),
            overflowed: false,
            unobservable: None,
            guest_log: Some(OVMF.to_vec().into()),
            ima_log: Some(IMA.to_vec().into()),
        }
    }

    fn appraise_at(
        &self,
        evidence: &GuestEvidence,
        now: u64,
    ) -> Result<Appraised<Guest>, Box<Rejected>> {
        let vtpm = VtpmBinding {
            vm: &self.vm,
            epoch: self.epoch,
            ek_certificate: &self.ek_certificate,
            ak_certificate: &self.ak_certificate,
            vtpm_ca: &self.anchors,
        };
        let policy = GuestPolicy {
            prediction: &self.prediction,
            may_be_unpredicted: &[1],
            pcrs: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            lifetime_ms: 60_000,
        };
        appraise_guest(&self.host, &vtpm, evidence, &policy, &self.host_test.challenge, now)
    }

    fn appraise(&self, evidence: &GuestEvidence) -> Result<Appraised<Guest>, Box<Rejected>> {
        self.appraise_at(evidence, NOW)
    }

    fn code(&self, evidence: &GuestEvidence) -> &'static str {
        self.appraise(evidence).unwrap_err().code()
    }
}

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
fn the_guests_log_may_not_be_shorter_than_what_was_observed() {
    let guest = TestGuest::new();
    let log = EventLog::parse(OVMF).unwrap();
    let last = log.events().last().unwrap();
    let cut =
        4 * 4 + last.digests().map(|d| 2 + d.as_bytes().len()).sum::<usize>() + last.data.len();
    let mut evidence = guest.evidence();
    evidence.guest_log = Some(OVMF[..OVMF.len() - cut].to_vec().into());
    let refused = guest.appraise(&evidence).unwrap_err();
    let (log, entries, observed) = ("event log", 35, 36);
    assert_eq!(*refused.first(), Rejection::GuestLogTruncated { log, entries, observed });
    assert_eq!(refused.code(), "guest-log-truncated");
    let mut evidence = guest.evidence();
    evidence.ima_log = Some(vec![].into());
    assert_eq!(guest.code(&evidence), "guest-log-truncated");
}

#[test]
fn the_guests_log_must_agree_with_what_was_observed() {
    let guest = TestGuest::new();
    let log = EventLog::parse(OVMF).unwrap();
    let third = log.extends().nth(3).unwrap().sha256().unwrap().as_slice();
    let at = OVMF.windows(32).position(|window| window == third).unwrap();
    let mut evidence = guest.evidence();
    evidence.guest_log.as_mut().unwrap().0[at] ^= 1;
    let refused = guest.appraise(&evidence).unwrap_err();
    let rejection = Rejection::GuestLogDisagrees { log: "event log", entry: 3 };
    assert_eq!(*refused.first(), rejection);
    assert_eq!(refused.code(), "guest-log-disagrees");
    let mut evidence = guest.evidence();
    let end = evidence.ima_log.as_mut().unwrap();
    let at = end.0.windows(8).position(|window| window == b"sha256:\0").unwrap();
    end.0[at + 10] ^= 1;
    assert_eq!(guest.code(&evidence), "guest-log-disagrees");
    // A log with more than was observed lies as well.
    let mut longer = guest.evidence();
    let log = longer.guest_log.as_mut().unwrap();
    let header = 4 + 4 + 20 + 4 + usize::from(OVMF[28]);
    let first = OVMF[header..].to_vec();
    log.0.extend_from_slice(&first);
    assert_eq!(guest.code(&longer), "guest-log-disagrees");
}

#[test]
fn the_guests_log_must_be_one() {
    let guest = TestGuest::new();
    let evidence = GuestEvidence { guest_log: Some(vec![1].into()), ..guest.evidence() };
    assert_eq!(guest.code(&evidence), "guest-log-malformed");
    let mut evidence = guest.evidence();
    evidence.ima_log.as_mut().unwrap().0[0] = 24;
    assert_eq!(guest.code(&evidence), "guest-log-malformed");
    let evidence = GuestEvidence { ima_log: Some(vec![1].into()), ..guest.evidence() };
    assert_eq!(guest.code(&evidence), "guest-log-truncated");
    let mut evidence = guest.evidence();
    let log = evidence.guest_log.as_mut().unwrap();
    log.0.pop();
    assert_eq!(guest.code(&evidence), "guest-log-truncated");
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
