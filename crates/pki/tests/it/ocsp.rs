//! OCSP both ways with `openssl ocsp`, and answers that must not be believed.

use std::{fs, path::Path, time::Duration};

use model::Secret;
use pki::{
    Anchors, Aspect, Ca, CaSpec, CrlEntry, CrlPlan, Evidence, Finding, Ground, Issued,
    OcspRejection, OcspStatus, Pool, Profile, Purpose, Refusal, Responder, Revocation,
    RevocationGround, RevocationReason, Terms, Usage, Validation, Validity, Verdict, ocsp_request,
    validate,
};
use time::OffsetDateTime;

use crate::support::{DAY, must, openssl, p256, write_pem};

const HOUR: Duration = Duration::from_secs(3600);

/// A root, whose key answers for itself, and a leaf; at the real time, which `openssl ocsp` uses.
struct World {
    root: Ca,
    key: Secret<Vec<u8>>,
    leaf: Issued,
    now: OffsetDateTime,
}

impl World {
    fn new() -> Self {
        let now = OffsetDateTime::now_utc();
        let validity = Validity::backdated(now, DAY, 30 * DAY);
        let spec = CaSpec { common_name: "Root".to_owned(), path_length: 0, validity };
        let (root, key) = Ca::create_root(&spec).unwrap();
        let profile = Profile::Client { operator: "admin".to_owned() };
        let leaf = root.issue(&profile, &p256(), Validity::backdated(now, HOUR, DAY)).unwrap();
        Self { root, key, leaf, now }
    }

    fn direct(&self) -> Responder {
        Responder::load(self.root.certificate(), &self.key, self.root.certificate()).unwrap()
    }

    /// A responder's certificate and key below the root.
    fn delegate(&self, profile: &Profile) -> (Vec<u8>, Secret<Vec<u8>>) {
        let validity = Validity::backdated(self.now, HOUR, DAY);
        let spec = CaSpec { common_name: "x".to_owned(), path_length: 0, validity };
        let (own, key) = Ca::create_root(&spec).unwrap();
        let spki = spki_of(own.certificate());
        (self.root.issue(profile, &spki, validity).unwrap().der, key)
    }

    fn request(&self, nonce: Option<&[u8]>) -> Vec<u8> {
        ocsp_request(&self.leaf.der, self.root.certificate(), nonce).unwrap()
    }

    fn answer(&self, status: OcspStatus) -> Vec<u8> {
        let own = self.leaf.serial;
        let lookup = |serial: &[u8]| if serial == own { status } else { OcspStatus::Unknown };
        self.direct().respond(&self.request(None), self.now, HOUR, lookup).unwrap().der
    }

    fn validate(&self, evidence: &Evidence, at: OffsetDateTime) -> Validation {
        let anchors = Anchors::new(&[self.root.certificate()]).unwrap();
        let terms = Terms::new(at, Usage::For(Purpose::TlsClient));
        validate(&self.leaf.der, &Pool::default(), &anchors, Some(evidence), &terms).unwrap()
    }

    fn with(&self, response: &[u8]) -> Validation {
        let mut evidence = Evidence::new();
        evidence.add_ocsp(response).unwrap();
        self.validate(&evidence, self.now)
    }
}

fn spki_of(certificate: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("c.der"), certificate).unwrap();
    must(
        dir.path(),
        &["x509", "-inform", "DER", "-in", "c.der", "-pubkey", "-noout", "-out", "k.pem"],
    );
    must(dir.path(), &["pkey", "-pubin", "-in", "k.pem", "-outform", "DER", "-out", "k.der"]);
    fs::read(dir.path().join("k.der")).unwrap()
}

fn refused(validation: &Validation) -> Option<OcspRejection> {
    match validation.refusal() {
        Some(Refusal::Ocsp(rejection)) => Some(rejection),
        _ => None,
    }
}

fn files(world: &World, dir: &Path) {
    write_pem(dir, "root.pem", "CERTIFICATE", world.root.certificate());
    write_pem(dir, "leaf.pem", "CERTIFICATE", &world.leaf.der);
    write_pem(dir, "root.key", "PRIVATE KEY", world.key.expose());
}

#[test]
fn openssl_believes_our_answers_direct_and_delegated() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    files(&world, dir.path());
    let line = "ocsp -issuer root.pem -cert leaf.pem -reqout req.der";
    must(dir.path(), &line.split(' ').collect::<Vec<_>>());
    let request = fs::read(dir.path().join("req.der")).unwrap();
    let (certificate, key) = world.delegate(&Profile::OcspResponder { name: "ocsp".to_owned() });
    let delegated = Responder::load(&certificate, &key, world.root.certificate()).unwrap();
    let reason = RevocationReason::KeyCompromise;
    let revoked = OcspStatus::Revoked { at: world.now, reason };
    for responder in [world.direct(), delegated] {
        for (status, said) in [
            (OcspStatus::Good, "leaf.pem: good"),
            (revoked, "keyCompromise"),
            (OcspStatus::Unknown, "unknown"),
        ] {
            let reply = responder.respond(&request, world.now, HOUR, |_| status).unwrap();
            assert_eq!(reply.refused, None);
            assert_eq!(reply.serials, [world.leaf.serial.to_vec()]);
            fs::write(dir.path().join("resp.der"), reply.der).unwrap();
            let line = "ocsp -no_nonce -issuer root.pem -cert leaf.pem -reqin req.der -respin resp.der -CAfile root.pem";
            let (ok, text) = openssl(dir.path(), &line.split(' ').collect::<Vec<_>>());
            assert!(ok && text.contains("Response verify OK") && text.contains(said), "{text}");
            assert!(!text.contains("WARNING"), "nonce: {text}");
        }
    }
}

#[test]
fn we_believe_the_answers_of_openssl_and_read_what_it_says() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    files(&world, dir.path());
    let nonce = [7; 32];
    fs::write(dir.path().join("req.der"), world.request(Some(&nonce))).unwrap();
    let serial: String = world.leaf.serial.iter().map(|byte| format!("{byte:02X}")).collect();
    for (entry, verdict) in [
        (format!("V\t351231235959Z\t\t{serial}\tunknown\t/CN=admin\n"), Verdict::Valid),
        (
            format!("R\t351231235959Z\t260101000000Z,superseded\t{serial}\tunknown\t/CN=admin\n"),
            Verdict::Invalid,
        ),
        (String::new(), Verdict::Indeterminate),
    ] {
        fs::write(dir.path().join("index.txt"), entry).unwrap();
        let line = "ocsp -index index.txt -CA root.pem -rsigner root.pem -rkey root.key -reqin req.der -respout resp.der -ndays 1";
        must(dir.path(), &line.split(' ').collect::<Vec<_>>());
        let response = fs::read(dir.path().join("resp.der")).unwrap();
        let mut evidence = Evidence::new();
        assert_eq!(evidence.add_ocsp_with_nonce(&response, &[8; 32]), Err(OcspRejection::Nonce));
        evidence.add_ocsp_with_nonce(&response, &nonce).unwrap();
        let validation = world.validate(&evidence, OffsetDateTime::now_utc());
        assert_eq!(validation.verdict(), verdict, "{:?}", validation.status());
        match verdict {
            Verdict::Valid => {
                let finding = validation.status().finding(Aspect::RevocationStatus).clone();
                let Finding::Good(Ground::NotRevoked(grounds)) = finding else { panic!() };
                assert!(matches!(grounds[0], RevocationGround::Ocsp(_)));
            }
            Verdict::Invalid => {
                let Some(Refusal::Revoked(revoked)) = validation.refusal() else { panic!() };
                assert_eq!(revoked.reason, Some(RevocationReason::Superseded));
            }
            Verdict::Indeterminate => {
                assert_eq!(refused(&validation), Some(OcspRejection::Unknown));
            }
        }
    }
}

#[test]
fn an_answer_about_another_serial_or_issuer_or_time_says_nothing() {
    let (world, other) = (World::new(), World::new());
    assert_eq!(world.with(&world.answer(OcspStatus::Good)).verdict(), Verdict::Valid);
    let foreign = other.answer(OcspStatus::Good);
    assert_eq!(refused(&world.with(&foreign)), Some(OcspRejection::Serial));
    // The same serial number below another CA of the same name.
    let request = world.request(None);
    let mine = other.direct().respond(&request, world.now, HOUR, |_| OcspStatus::Good).unwrap();
    let rejection = refused(&world.with(&mine.der));
    assert!(matches!(rejection, Some(OcspRejection::Issuer | OcspRejection::Responder)));
    let mut evidence = Evidence::new();
    evidence.add_ocsp(&world.answer(OcspStatus::Good)).unwrap();
    for at in [world.now + 2 * HOUR, world.now - 2 * HOUR / 3] {
        let validation = world.validate(&evidence, at);
        assert_eq!(refused(&validation), Some(OcspRejection::Stale));
        assert_eq!(validation.verdict(), Verdict::Indeterminate);
    }
}

#[test]
fn an_answer_that_was_altered_or_is_signed_by_nobody_in_particular_says_nothing() {
    let world = World::new();
    let good = world.answer(OcspStatus::Good);
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&world.with(&altered)), Some(OcspRejection::Signature));
    // A certificate of the same CA that was not made for this.
    let (certificate, key) = world.delegate(&Profile::Client { operator: "eve".to_owned() });
    assert!(Responder::load(&certificate, &key, world.root.certificate()).is_err());
    let dir = tempfile::tempdir().unwrap();
    files(&world, dir.path());
    write_pem(dir.path(), "eve.pem", "CERTIFICATE", &certificate);
    write_pem(dir.path(), "eve.key", "PRIVATE KEY", key.expose());
    let serial: String = world.leaf.serial.iter().map(|byte| format!("{byte:02X}")).collect();
    fs::write(
        dir.path().join("index.txt"),
        format!("V\t351231235959Z\t\t{serial}\tunknown\t/CN=x\n"),
    )
    .unwrap();
    fs::write(dir.path().join("req.der"), world.request(None)).unwrap();
    let line = "ocsp -index index.txt -CA root.pem -rsigner eve.pem -rkey eve.key -reqin req.der -respout resp.der -ndays 1";
    must(dir.path(), &line.split(' ').collect::<Vec<_>>());
    let eve = fs::read(dir.path().join("resp.der")).unwrap();
    let mut evidence = Evidence::new();
    evidence.add_ocsp(&eve).unwrap();
    let validation = world.validate(&evidence, OffsetDateTime::now_utc());
    assert_eq!(refused(&validation), Some(OcspRejection::Responder));
}

#[test]
fn what_is_proven_to_be_revoked_is_revoked_whoever_else_says_that_it_is_good() {
    let world = World::new();
    let reason = RevocationReason::KeyCompromise;
    let revocation = Revocation { serial: world.leaf.serial, at: world.now, reason };
    let plan = CrlPlan::full(1, Validity::new(world.now, DAY));
    let crl = world.root.issue_crl_by(&plan, &[CrlEntry { revocation, issuer: None }]).unwrap();
    let mut evidence = Evidence::new();
    evidence.add_ocsp(&world.answer(OcspStatus::Good)).unwrap();
    evidence.add_crl(&crl).unwrap();
    assert_eq!(world.validate(&evidence, world.now).verdict(), Verdict::Invalid);
    // Two answers, in either order.
    let good = world.answer(OcspStatus::Good);
    let revoked = world.answer(OcspStatus::Revoked { at: world.now, reason });
    for answers in [[&good, &revoked], [&revoked, &good]] {
        let mut evidence = Evidence::new();
        answers.into_iter().for_each(|answer| evidence.add_ocsp(answer).unwrap());
        assert_eq!(world.validate(&evidence, world.now).verdict(), Verdict::Invalid);
    }
}

#[test]
fn requests_and_responses_that_cannot_be_read_are_refused_by_name() {
    let world = World::new();
    let responder = world.direct();
    let reply =
        |request: &[u8]| responder.respond(request, world.now, HOUR, |_| OcspStatus::Good).unwrap();
    assert_eq!(reply(b"").refused, Some(OcspRejection::Malformed));
    assert_eq!(reply(&[0; 20_000]).refused, Some(OcspRejection::TooLarge));
    let refusal = reply(b"").der;
    let mut evidence = Evidence::new();
    assert_eq!(evidence.add_ocsp(&refusal), Err(OcspRejection::Refused));
    assert_eq!(evidence.add_ocsp(b"x"), Err(OcspRejection::Malformed));
    assert_eq!(evidence.add_ocsp(&vec![0; 300_000]), Err(OcspRejection::TooLarge));
    let leaf = &world.leaf.der;
    assert_eq!(ocsp_request(leaf, b"", None), Err(OcspRejection::Malformed));
    let long = ocsp_request(leaf, world.root.certificate(), Some(&[0; 129]));
    assert_eq!(long, Err(OcspRejection::Nonce));
    let request = world.request(Some(&[9; 32]));
    let nonced = reply(&request);
    assert_eq!(evidence.add_ocsp_with_nonce(&nonced.der, &[9; 32]), Ok(()));
}
