//! A guest's client on its connection: genuine proofs, and each way of not being one.

use std::time::Duration;

use attest::channel::{self, ChannelRejection, Keys, Opened, Proven, SoftwarePolicy};
use model::{
    Digest, Epoch, HashAlg, Nonce, Secret,
    api::Bytes,
    guest::{ChallengeAsk, ChannelEvidence, Measured, PCRS, PcrValue},
    keys::order::SecretBytes,
};
use pki::{Ca, CaSpec, Profile, Validity, tcg::TpmModel};
use tpm::{Purpose, QualifyingData};

use crate::support::{AK, NOW, SoftAk};

const CLIENT: [u8; 32] = [0xc1; 32];
const SHELL: [u8; 32] = [0x5e; 32];
const PATH: &str = "/bin/vouchsafe-guest";

fn hash(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap()
}

fn sized(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend_from_slice(data);
}

/// One entry of an IMA list; a digest of zeros is a violation.
fn entry(path: &str, digest: [u8; 32]) -> Vec<u8> {
    let mut data = Vec::new();
    sized(&mut data, &[&b"sha256:\0"[..], &digest].concat());
    sized(&mut data, format!("{path}\0").as_bytes());
    sized(&mut data, &[]);
    let mut out = 10_u32.to_le_bytes().to_vec();
    out.extend_from_slice(&[u8::from(digest != [0; 32]); 20]);
    sized(&mut out, b"ima-sig");
    sized(&mut out, &data);
    out
}

fn ima_value(list: &[u8]) -> [u8; 32] {
    attest::ima::ImaList::parse(list).unwrap().replay_sha256(10)
}

/// A guest with a client, and what its trust service knows and gave out.
struct Scene {
    ak: SoftAk,
    measured: Measured,
    opened: Opened,
    policy: SoftwarePolicy,
    list: Vec<u8>,
}

const NONCE: Nonce = Nonce([3; 32]);
const CHANNEL: [u8; 32] = [0xcc; 32];

fn ask(ak: &SoftAk) -> (ChallengeAsk, Vec<u8>) {
    let (certificate, ek) = endorsement();
    let ask = ChallengeAsk {
        vm: None,
        ek_certificate: Bytes(certificate.clone()),
        ek: Bytes(ek),
        ak: Bytes(ak.public.as_bytes().to_vec()),
    };
    (ask, certificate)
}

fn measured(certificate: Vec<u8>) -> Measured {
    let value = |pcr: &u8| PcrValue { pcr: *pcr, value: Digest::sha256([*pcr; 32]) };
    Measured {
        vm: "v1".parse().unwrap(),
        epoch: Epoch(2),
        trusted: Some(true),
        ek_certificate: Some(Bytes(certificate)),
        pcrs: PCRS.iter().map(value).collect(),
        port: String::new(),
    }
}

impl Scene {
    fn new() -> Self {
        let ak = SoftAk::new(AK);
        let (ask, certificate) = ask(&ak);
        let measured = measured(certificate);
        let keys: Keys = channel::open(&ask, &measured).unwrap();
        let opened = Opened {
            keys,
            nonce: NONCE,
            expires_at: NOW + 1000,
            channel: Digest::sha256(CHANNEL),
            secret: Secret::new([9; 32]),
        };
        let policy = SoftwarePolicy {
            client_path: PATH.to_owned(),
            clients: vec![Digest::sha256(CLIENT)],
            software: vec![Digest::sha256(SHELL)],
        };
        let list =
            [entry("boot_aggregate", [1; 32]), entry("/bin/busybox", SHELL), entry(PATH, CLIENT)]
                .concat();
        Self { ak, measured, opened, policy, list }
    }

    /// Evidence over `list`, made for this nonce and channel.
    fn evidence_for(&self, nonce: Nonce, channel: [u8; 32]) -> ChannelEvidence {
        let qualifying = QualifyingData::bind(Purpose::GuestChannel, &nonce, &[&channel]);
        let ima = ima_value(&self.list);
        let values: Vec<u8> =
            PCRS.iter().flat_map(|pcr| if *pcr == 10 { ima } else { [*pcr; 32] }).collect();
        let (quote, signature) =
            self.ak.quote(qualifying.as_bytes(), &[(HashAlg::Sha256, &PCRS)], &hash(&values));
        ChannelEvidence {
            nonce,
            channel: Digest::sha256(channel),
            secret: SecretBytes::new(Secret::new(vec![9; 32])),
            quote: Bytes(quote),
            signature: Bytes(signature),
            ima_value: Digest::sha256(ima),
            ima_log: Bytes(self.list.clone()),
        }
    }

    fn evidence(&self) -> ChannelEvidence {
        self.evidence_for(NONCE, CHANNEL)
    }

    fn appraise(&self, evidence: &ChannelEvidence) -> Result<Proven, ChannelRejection> {
        channel::appraise(&self.opened, evidence, &self.measured, &self.policy, NOW)
    }

    fn refusal(&self, evidence: &ChannelEvidence) -> &'static str {
        self.appraise(evidence).unwrap_err().code()
    }
}

#[test]
fn an_approved_client_in_an_affirmed_guest_is_proven() {
    let mut scene = Scene::new();
    let evidence = scene.evidence();
    let proven = scene.appraise(&evidence).unwrap();
    assert_eq!((proven.vm().as_str(), proven.epoch()), ("v1", Epoch(2)));
    assert_eq!(proven.client(), Digest::sha256(CLIENT));
    // What was measured after the quote is in the list already.
    let mut later = scene.evidence();
    later.ima_log.0.extend(entry("/bin/later", [7; 32]));
    scene.appraise(&later).unwrap();
    scene.opened.expires_at = NOW;
    assert_eq!(scene.refusal(&evidence), "quote-replayed");
}

#[test]
fn a_changed_client_is_refused_by_name() {
    let mut scene = Scene::new();
    scene.list.extend(entry(PATH, [0xbd; 32]));
    assert_eq!(scene.refusal(&scene.evidence()), "client-tampered");
    let mut never = Scene::new();
    never.list = [entry("boot_aggregate", [1; 32]), entry("/bin/busybox", SHELL)].concat();
    assert_eq!(never.refusal(&never.evidence()), "client-tampered");
    let mut written = Scene::new();
    written.list.extend(entry(PATH, [0; 32]));
    assert_eq!(written.refusal(&written.evidence()), "client-tampered");
}

#[test]
fn other_software_is_refused_wherever_it_is() {
    for (path, digest) in [("/tmp/liar", [0xbd; 32]), ("boot_aggregate", [2; 32]), ("/x", [0; 32])]
    {
        let mut scene = Scene::new();
        scene.list.extend(entry(path, digest));
        assert_eq!(scene.refusal(&scene.evidence()), "guest-software-unknown", "{path}");
    }
}

#[test]
fn an_old_quote_is_replayed_and_one_of_another_connection_relayed() {
    let scene = Scene::new();
    assert_eq!(scene.refusal(&scene.evidence_for(Nonce([4; 32]), CHANNEL)), "quote-replayed");
    let relayed = scene.evidence_for(NONCE, [0xdd; 32]);
    assert_eq!(scene.refusal(&relayed), "quote-relayed");
    // A relay that lies about the channel gains nothing but another name.
    let lies = ChannelEvidence { channel: Digest::sha256(CHANNEL), ..relayed };
    assert_eq!(scene.refusal(&lies), "quote-replayed");
}

#[test]
fn another_vms_vtpm_is_foreign() {
    let scene = Scene::new();
    let mut closed = scene.evidence();
    closed.secret = SecretBytes::new(Secret::new(vec![8; 32]));
    assert_eq!(scene.refusal(&closed), "vtpm-foreign");
    let (mut asked, certificate) = ask(&scene.ak);
    let other = measured([certificate.clone(), vec![0]].concat());
    assert_eq!(channel::open(&asked, &other).unwrap_err().code(), "vtpm-foreign");
    let unrestricted = SoftAk::new(0x0004_0072);
    asked.ak = Bytes(unrestricted.public.as_bytes().to_vec());
    let refused = channel::open(&asked, &measured(certificate.clone())).unwrap_err();
    assert_eq!(refused.code(), "vtpm-foreign");
    let (mut swapped, _) = ask(&scene.ak);
    swapped.ek = swapped.ak.clone();
    let refused = channel::open(&swapped, &measured(certificate)).unwrap_err();
    assert_eq!(refused.code(), "vtpm-foreign");
}

#[test]
fn without_a_good_verdict_nothing_is_taken() {
    for verdict in [None, Some(false)] {
        let mut scene = Scene::new();
        let evidence = scene.evidence();
        scene.measured.trusted = verdict;
        assert_eq!(scene.refusal(&evidence), "guest-not-affirmed");
        let (ask, certificate) = ask(&scene.ak);
        let unknown = Measured { trusted: verdict, ..measured(certificate) };
        assert_eq!(channel::open(&ask, &unknown).unwrap_err().code(), "guest-not-affirmed");
    }
}

#[test]
fn measurements_must_be_the_observed_ones_and_the_list_whole() {
    let mut scene = Scene::new();
    let evidence = scene.evidence();
    scene.measured.pcrs[4].value = Digest::sha256([0xee; 32]);
    assert_eq!(scene.refusal(&evidence), "measurements-differ");
    let scene = Scene::new();
    let mut short = scene.evidence();
    short.ima_log.0.truncate(entry("boot_aggregate", [1; 32]).len());
    assert_eq!(scene.refusal(&short), "ima-log-disagrees");
    let mut broken = scene.evidence();
    broken.ima_log.0.pop();
    assert_eq!(scene.refusal(&broken), "ima-log-disagrees");
    // A shorter list and the value that it leads to: the quote does not cover that value.
    let mut less = scene.evidence();
    less.ima_log.0.truncate(scene.list.len() - entry(PATH, CLIENT).len());
    less.ima_value = Digest::sha256(ima_value(&less.ima_log.0));
    assert_eq!(scene.refusal(&less), "measurements-differ");
}

#[test]
fn only_the_clients_own_quote_counts() {
    let scene = Scene::new();
    let other = Scene::new();
    assert_eq!(scene.refusal(&other.evidence()), "quote-invalid");
    let qualifying = QualifyingData::bind(Purpose::GuestChannel, &NONCE, &[&CHANNEL]);
    let pcrs: Vec<u8> = PCRS.iter().copied().filter(|pcr| *pcr != 4).collect();
    let (quote, signature) =
        scene.ak.quote(qualifying.as_bytes(), &[(HashAlg::Sha256, &pcrs)], &[0; 32]);
    let fewer =
        ChannelEvidence { quote: Bytes(quote), signature: Bytes(signature), ..scene.evidence() };
    assert_eq!(scene.refusal(&fewer), "quote-invalid");
}

/// The EK of a vTPM in software: its certificate, and its public area.
fn endorsement() -> (Vec<u8>, Vec<u8>) {
    let pair = SoftAk::new(0x0003_00b2);
    let tpm::Key::Ecc { x, y, .. } = pair.public.key() else { unreachable!("it is an EC key") };
    let mut ek = tpm::template::ek_p256().as_bytes().to_vec();
    ek.truncate(ek.len() - 68);
    crate::support::sized(&mut ek, x);
    crate::support::sized(&mut ek, y);
    let now =
        time::OffsetDateTime::from_unix_timestamp(i64::try_from(NOW / 1000).unwrap()).unwrap();
    let life = Duration::from_secs(3600);
    let spec = CaSpec {
        common_name: "vTPM CA".to_owned(),
        path_length: 0,
        validity: Validity::new(now, life),
    };
    let ca = Ca::create_root(&spec).unwrap().0;
    let model = TpmModel {
        manufacturer: "id:00001014".to_owned(),
        model: "swtpm".to_owned(),
        version: "id:00070001".to_owned(),
    };
    let profile = Profile::VtpmEk { tpm: model, vm: "v1".parse().unwrap() };
    let spki = pair.public.spki_der().unwrap();
    let issued = ca.issue(&profile, &spki, Validity::new(now, life / 2)).unwrap();
    (issued.der, ek)
}
