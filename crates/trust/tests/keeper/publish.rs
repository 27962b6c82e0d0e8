//! CRLs, full and delta, and OCSP, as relying parties and `openssl` see them.

use std::{path::Path, process::Command};

use model::{
    api::Bytes,
    keys::{
        KeyBinding,
        admin::{AdminReply, AdminRequest},
        order::KeyOperation,
        rpc::KeyRequest,
    },
};
use pki::{
    Anchors, Crl, CrlRejection, Evidence, Finding, Pool, Terms, Usage, Verdict, ocsp_request,
    validate,
};
use serve::{clock::Clock as _, pem};

use crate::support::{Rig, done, held, key, named};

fn judge(rig: &Rig, binding: &KeyBinding, evidence: &Evidence) -> Verdict {
    let anchors = Anchors::new(&[rig.keeper.ca_certificate()]).unwrap();
    let terms = Terms::new(rig.clock.now(), Usage::Any);
    let leaf = &binding.certificates[0].0;
    let validation = validate(leaf, &Pool::default(), &anchors, Some(evidence), &terms).unwrap();
    assert!(!matches!(validation.status().finding(pki::Aspect::Signature), Finding::Bad(_)));
    validation.verdict()
}

fn revoke(rig: &Rig, name: &str, key: &serve::keys::SigningKey) {
    let about = rig.about(KeyOperation::Revoke, named(name), key);
    done(rig.keeper.serve(KeyRequest::Revoke(about))).unwrap();
}

fn number(rig: &Rig) -> u64 {
    held!(rig.keeper.administer(AdminRequest::Status), AdminReply::Status(status) => status.crl_number)
}

#[test]
fn a_revocation_is_on_the_next_crl_and_a_delta_adds_to_the_old_one() {
    let rig = Rig::open();
    let (pair, other) = (key(), key());
    let (bob, carol) = (rig.register("bob", &pair), rig.register("carol", &other));
    let old = rig.published(KeyRequest::Crl);
    rig.clock.pass(1);
    revoke(&rig, "bob", &pair);
    let full = rig.published(KeyRequest::Crl);
    let delta = rig.published(KeyRequest::DeltaCrl);
    let mut evidence = Evidence::new();
    evidence.add_crl(&old).unwrap();
    assert_eq!(judge(&rig, &bob, &evidence), Verdict::Valid);
    evidence.add_crl(&delta).unwrap();
    assert_eq!(judge(&rig, &bob, &evidence), Verdict::Invalid);
    assert_eq!(judge(&rig, &carol, &evidence), Verdict::Valid);
    let mut evidence = Evidence::new();
    evidence.add_crl(&full).unwrap();
    assert_eq!(judge(&rig, &bob, &evidence), Verdict::Invalid);
    assert_eq!(judge(&rig, &carol, &evidence), Verdict::Valid);
}

#[test]
fn numbers_grow_over_restarts_and_a_crl_is_renewed_before_it_ends() {
    let rig = Rig::open();
    let first = number(&rig);
    let rig = rig.restart();
    let second = number(&rig);
    assert!(second > first, "{first} {second}");
    let old = rig.published(KeyRequest::Crl);
    assert_eq!(old, rig.published(KeyRequest::Crl));
    rig.clock.pass(43_201);
    let new = rig.published(KeyRequest::Crl);
    assert_ne!(old, new);
    let (ca, now) = (rig.keeper.ca_certificate(), rig.clock.now());
    assert!(Crl::verify(&new, ca, now).is_ok());
    rig.clock.pass(86_400);
    let stale = Crl::verify(&new, ca, rig.clock.now());
    assert_eq!(stale.unwrap_err(), CrlRejection::Stale);
}

#[test]
fn an_expired_certificate_leaves_the_crl_after_one_more() {
    let rig = Rig::new(trust::keeper::Settings {
        key_life_s: 3600,
        crl_life_s: 3600,
        ..crate::support::open_settings()
    });
    let pair = key();
    let serial =
        pki::CertFacts::read(&rig.register("bob", &pair).certificates[0].0).unwrap().serial;
    revoke(&rig, "bob", &pair);
    rig.clock.pass(1);
    let named = |rig: &Rig| {
        let crl = rig.published(KeyRequest::Crl);
        Crl::verify(&crl, rig.keeper.ca_certificate(), rig.clock.now()).unwrap().is_revoked(&serial)
    };
    assert!(named(&rig));
    rig.clock.pass(3700);
    assert!(named(&rig));
    rig.clock.pass(3700);
    assert!(!named(&rig));
}

#[test]
fn ocsp_knows_good_revoked_and_unknown() {
    let rig = Rig::open();
    let pair = key();
    let bob = rig.register("bob", &pair);
    let ca = rig.keeper.ca_certificate().to_vec();
    let ask = |certificate: &[u8]| {
        let nonce = [7; 32];
        let request = ocsp_request(certificate, &ca, Some(&nonce)).unwrap();
        let answer = rig.published(KeyRequest::Ocsp(Bytes(request)));
        let mut evidence = Evidence::new();
        evidence.add_ocsp_with_nonce(&answer, &nonce).unwrap();
        evidence
    };
    assert_eq!(judge(&rig, &bob, &ask(&bob.certificates[0].0)), Verdict::Valid);
    rig.clock.pass(1);
    revoke(&rig, "bob", &pair);
    assert_eq!(judge(&rig, &bob, &ask(&bob.certificates[0].0)), Verdict::Invalid);
    let service = rig.keeper.message_identity().chain.remove(0);
    let own = KeyBinding { certificates: vec![Bytes(service.clone())], ..bob };
    assert_eq!(judge(&rig, &own, &ask(&service)), Verdict::Valid);
    let junk = rig.published(KeyRequest::Ocsp(Bytes(b"junk".to_vec())));
    assert_eq!(junk, [0x30, 3, 0x0a, 1, 1]);
    assert_eq!(rig.last_refusal(), "ocsp-malformed");
}

#[test]
fn openssl_verifies_what_is_published() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("Skipped: openssl is not installed");
        return;
    }
    let rig = Rig::open();
    let (pair, other) = (key(), key());
    let (bob, carol) = (rig.register("bob", &pair), rig.register("carol", &other));
    revoke(&rig, "bob", &pair);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    pem::write_certificates(&at("bob.pem"), &[&bob.certificates[0].0]).unwrap();
    pem::write_certificates(&at("carol.pem"), &[&carol.certificates[0].0]).unwrap();
    let crl = pem::encode("X509 CRL", &rig.published(KeyRequest::Crl)).unwrap();
    std::fs::write(at("crl.pem"), crl).unwrap();
    let ca = rig.dir.path().join("ca.pem");
    let verify = |leaf: &Path| {
        let output = Command::new("openssl")
            .args(["verify", "-crl_check", "-CAfile"])
            .arg(&ca)
            .arg("-CRLfile")
            .arg(at("crl.pem"))
            .arg(leaf)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(verify(&at("carol.pem")).0);
    let (good, why) = verify(&at("bob.pem"));
    assert!(!good && why.contains("revoked"), "{why}");
}
