//! Each way in which a grant is not used.

use attest::envelope::SoftwareKey;
use model::{Digest, Incarnation};
use serve::{hpke::HpkePublic, keys::SigningKey};

use super::*;

fn kmi() -> Kmi {
    crate::plan::tests::kmi("v1")
}

struct Bench {
    signer: SigningKey,
    private: HpkePrivate,
    public: HpkePublic,
    ledger: Ledger,
    host: HostId,
    vm: VmId,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let (private, public) = hpke::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self {
            signer: SigningKey::generate().unwrap(),
            private,
            public,
            ledger: Ledger::open(dir.path()).unwrap(),
            host: "a".parse().unwrap(),
            vm: "v1".parse().unwrap(),
            _dir: dir,
        }
    }

    fn info(&self) -> GrantInfo {
        GrantInfo {
            id: GrantId([9; 16]),
            incarnation: Incarnation(1),
            vm: self.vm.clone(),
            host: self.host.clone(),
            epoch: Epoch(2),
            purpose: GrantPurpose::Boot,
            kmi: kmi(),
            verdict: Digest::sha256([3; 32]),
            issued_at: 1,
            expires_at: 100,
            lease_until: 1000,
            reanchor: false,
            anchor: None,
        }
    }

    fn grant(&self, info: GrantInfo, keys: &[u8]) -> serde_json::Value {
        let bound = serde_json::to_vec(&info).unwrap();
        let sealed = hpke::seal(&self.public, &bound, b"boot", keys).unwrap();
        let grant = Grant { info, enc: sealed.enc.into(), sealed: sealed.ciphertext.into() };
        let key = SoftwareKey::from_pkcs8(self.signer.to_pkcs8().unwrap().expose()).unwrap();
        Envelope::sign(Kind::Grant, &grant, &[&key]).unwrap().to_value()
    }

    fn open(&self, grant: &serde_json::Value, now: u64) -> Result<Opened, GrantRejection> {
        self.open_as(grant, now, GrantId([9; 16]))
    }

    fn open_as(
        &self,
        grant: &serde_json::Value,
        now: u64,
        request: GrantId,
    ) -> Result<Opened, GrantRejection> {
        let expected = Expected {
            host: &self.host,
            vm: &self.vm,
            epoch: Epoch(2),
            kmi: &kmi(),
            purpose: GrantPurpose::Boot,
            request,
            now,
        };
        open(grant, self.signer.spki(), &self.private, &expected, &self.ledger)
    }

    fn refusal(&self, change: impl FnOnce(&mut GrantInfo)) -> &'static str {
        let mut info = self.info();
        change(&mut info);
        self.open(&self.grant(info, &[5; 128]), 50).unwrap_err().name()
    }
}

#[test]
fn a_grant_opens_once_and_never_again_even_by_the_next_agent() {
    let bench = Bench::new();
    let grant = bench.grant(bench.info(), &[5; 128]);
    assert_eq!(bench.open(&grant, 50).unwrap().keys.expose(), &[5; 128]);
    assert_eq!(bench.open(&grant, 50).unwrap_err().name(), "grant-used");
    let reopened = Bench { ledger: Ledger::open(bench._dir.path()).unwrap(), ..bench };
    assert_eq!(reopened.open(&grant, 50).unwrap_err().name(), "grant-used");
}

#[test]
fn a_grant_for_anything_else_is_refused_by_name() {
    let bench = Bench::new();
    let other: HostId = "b".parse().unwrap();
    assert_eq!(bench.refusal(|i| i.host = other), "grant-other-host");
    assert_eq!(bench.refusal(|i| i.epoch = Epoch(1)), "grant-epoch-moved");
    assert_eq!(bench.refusal(|i| i.expires_at = 50), "grant-expired");
    assert_eq!(bench.refusal(|i| i.id = GrantId([8; 16])), "grant-used");
    assert_eq!(bench.refusal(|i| i.vm = "v2".parse().unwrap()), "grant-other-vm");
    assert_eq!(bench.refusal(|i| i.purpose = GrantPurpose::Data), "grant-other-vm");
    assert_eq!(bench.refusal(|i| i.kmi.key_id = Digest::sha256([9; 32])), "grant-other-kmi");
    assert_eq!(bench.refusal(|i| i.kmi.version = 2), "grant-other-kmi");
}

#[test]
fn no_grant_of_before_a_restore_is_opened_after_one_of_after_it() {
    let bench = Bench::new();
    let of = |bench: &Bench, incarnation: u64, id: u8| {
        let incarnation = Incarnation(incarnation);
        let info = GrantInfo { incarnation, id: GrantId([id; 16]), ..bench.info() };
        let grant = bench.grant(info, &[5; 128]);
        let request = GrantId([id; 16]);
        bench.open_as(&grant, 50, request).map(|_| ()).map_err(|refused| refused.name())
    };
    assert_eq!(of(&bench, 1, 1), Ok(()));
    assert_eq!(of(&bench, 2, 2), Ok(()));
    assert_eq!(of(&bench, 1, 3), Err("grant-incarnation-old"));
    let ledger = Ledger::open(bench._dir.path()).unwrap();
    let bench = Bench { ledger, ..bench };
    assert_eq!(of(&bench, 1, 4), Err("grant-incarnation-old"));
    assert_eq!(of(&bench, 2, 5), Ok(()));
}

#[test]
fn a_grant_by_another_signer_or_for_another_session_is_refused() {
    let bench = Bench::new();
    let stranger = Bench::new();
    let foreign = stranger.grant(bench.info(), &[5; 128]);
    assert_eq!(bench.open(&foreign, 50).unwrap_err().name(), "grant-signature-invalid");
    let elsewhere = Bench { public: stranger.public, ..bench };
    let grant = elsewhere.grant(elsewhere.info(), &[5; 128]);
    let refused = elsewhere.open(&grant, 50).unwrap_err().name();
    assert_eq!(refused, "grant-not-sealed-to-session");
}

#[test]
fn keys_of_the_wrong_length_are_refused() {
    let bench = Bench::new();
    let grant = bench.grant(bench.info(), &[5; 96]);
    assert_eq!(bench.open(&grant, 50).unwrap_err().name(), "grant-malformed");
}
