//! A VM with a certified vTPM in software on an appraised host, and what a real boot measured.

use std::time::Duration;

use attest::{
    Appraised, Guest, Host, Rejected,
    eventlog::{EventLog, EventType},
    guest::{GuestPolicy, VtpmBinding, appraise_guest},
    host::appraise_host,
    ima::ImaList,
    predict::{Predicted, Prediction, Presence, Unpredicted, VERSION},
};
use model::{
    Digest, Epoch, HashAlg, VmId,
    api::vm::{GuestEvidence, ObservedExtend},
};
use pki::{Anchors, Ca, CaSpec, Profile, Validity, tcg::TpmModel};
use time::OffsetDateTime;

use crate::support::{AK, NOW, SoftAk, TestHost};

pub(super) const OVMF: &[u8] = include_bytes!("../../../vectors/tcg/ovmf-guest.bin");
pub(super) const IMA: &[u8] = include_bytes!("../../../vectors/tcg/ima-boot-aggregate.bin");
pub(super) const ALL: [u8; 24] =
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];

/// A VM with a certified vTPM on an appraised host.
pub(super) struct TestGuest {
    pub(super) host: Appraised<Host>,
    pub(super) host_test: TestHost,
    pub(super) ca: Ca,
    pub(super) anchors: Anchors,
    pub(super) vm: VmId,
    pub(super) epoch: Epoch,
    pub(super) ak: SoftAk,
    pub(super) ek_certificate: Vec<u8>,
    pub(super) ak_certificate: Vec<u8>,
    pub(super) prediction: Prediction,
    pub(super) observed: Vec<ObservedExtend>,
}

pub(super) fn moment() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(NOW / 1000).unwrap()).unwrap()
}

pub(super) fn validity() -> Validity {
    Validity::backdated(moment(), Duration::from_secs(60), Duration::from_secs(3600))
}

pub(super) fn vtpm_ca() -> Ca {
    let validity = Validity::new(moment() - Duration::from_secs(900), Duration::from_secs(90_000));
    let spec = CaSpec { common_name: "vTPM CA".to_owned(), path_length: 0, validity };
    Ca::create_root(&spec).unwrap().0
}

pub(super) fn ek_certificate(ca: &Ca, vm: &VmId) -> Vec<u8> {
    let tpm = TpmModel {
        manufacturer: "id:00001014".to_owned(),
        model: "swtpm".to_owned(),
        version: "id:20191023".to_owned(),
    };
    let profile = Profile::VtpmEk { tpm, vm: vm.clone() };
    let spki = SoftAk::new(AK).public.spki_der().unwrap();
    ca.issue(&profile, &spki, validity()).unwrap().der
}

pub(super) fn ak_certificate(ca: &Ca, ak: &SoftAk, vm: &VmId, epoch: Epoch) -> Vec<u8> {
    let profile = Profile::VtpmAk { vm: vm.clone(), epoch, host: [9; 16] };
    ca.issue(&profile, &ak.public.spki_der().unwrap(), validity()).unwrap().der
}

/// Everything that the real boot measured, as its prediction would have it.
pub(super) fn prediction() -> Prediction {
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

pub(super) fn observed() -> Vec<ObservedExtend> {
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

pub(super) fn extend(pcr: u8, byte: u8) -> ObservedExtend {
    ObservedExtend { pcr, digests: vec![Digest::sha256([byte; 32])] }
}

pub(super) fn replay(observed: &[ObservedExtend]) -> [u8; 32] {
    let mut replay = attest::eventlog::Sha256Replay::new(0);
    for extend in observed {
        for digest in extend.digests.iter().filter(|digest| digest.alg() == HashAlg::Sha256) {
            replay.extend(extend.pcr, digest.as_bytes().try_into().unwrap());
        }
    }
    replay.quote_digest(ALL.into_iter())
}

impl TestGuest {
    pub(super) fn new() -> Self {
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

    pub(super) fn evidence(&self) -> GuestEvidence {
        let qualifying =
            attest::binding::guest(&self.host_test.challenge.nonce, &self.vm, self.epoch);
        self.evidence_with(qualifying.as_bytes())
    }

    pub(super) fn evidence_with(&self, qualifying: &[u8]) -> GuestEvidence {
        let digest = replay(&self.observed);
        self.evidence_of(self.ak.quote(qualifying, &[(HashAlg::Sha256, &ALL)], &digest))
    }

    pub(super) fn evidence_of(&self, (quote, signature): (Vec<u8>, Vec<u8>)) -> GuestEvidence {
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

    pub(super) fn appraise_at(
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

    pub(super) fn appraise(
        &self,
        evidence: &GuestEvidence,
    ) -> Result<Appraised<Guest>, Box<Rejected>> {
        self.appraise_at(evidence, NOW)
    }

    pub(super) fn code(&self, evidence: &GuestEvidence) -> &'static str {
        self.appraise(evidence).unwrap_err().code()
    }
}
