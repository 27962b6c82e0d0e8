//! Certificates of others: judged over the configured anchors, and never good without every check.

use std::time::Duration;

use model::{
    api::Bytes,
    keys::{KeyExample, KeyFinding, KeyStatus, StatusValue},
};
use pki::{
    Ca, CaSpec, KeyUses, Profile, Revocation, RevocationReason, UserCert, UserName, Validity,
};
use serve::{clock::Clock as _, clock::SystemClock, pem};
use tempfile::TempDir;
use trust::keeper::Settings;

use crate::support::{Rig, by_certificate, key, open_settings};

const DAY: Duration = Duration::from_secs(86_400);

fn validity() -> Validity {
    Validity::backdated(SystemClock.now(), Duration::from_secs(60), DAY)
}

/// Another PKI, whose root the keeper is told of.
struct Other {
    ca: Ca,
    dir: TempDir,
}

impl Other {
    fn new() -> Self {
        let common_name = "Other root".to_owned();
        let spec = CaSpec { common_name, path_length: 1, validity: validity() };
        let (ca, _) = Ca::create_root(&spec).unwrap();
        let dir = tempfile::tempdir().unwrap();
        pem::write_certificates(&dir.path().join("root.pem"), &[ca.certificate()]).unwrap();
        Self { ca, dir }
    }

    fn settings(&self) -> Settings {
        Settings {
            anchors: vec![self.dir.path().join("root.pem")],
            crls: vec![self.dir.path().join("root.crl")],
            ..open_settings()
        }
    }

    fn issue(&self, ca: &Ca) -> (Bytes, [u8; 16]) {
        let profile = Profile::User(UserCert {
            name: "web".to_owned(),
            names: vec![UserName::Dns("web.example.org".to_owned())],
            uses: KeyUses { signature: true, ..KeyUses::default() },
            ..UserCert::default()
        });
        let issued = ca.issue(&profile, key().spki(), validity_inside(ca)).unwrap();
        (Bytes(issued.der), issued.serial)
    }

    fn publish(&self, number: u64, revoked: &[Revocation]) {
        let crl = self.ca.issue_crl(number, validity(), revoked).unwrap();
        std::fs::write(self.dir.path().join("root.crl"), crl).unwrap();
    }
}

fn validity_inside(ca: &Ca) -> Validity {
    Validity { not_after: ca.validity().not_after, ..validity() }
}

fn status(rig: &Rig, example: KeyExample) -> KeyStatus {
    let found = rig.validate(example);
    assert_eq!(found.bindings.len(), 1);
    found.bindings[0].status.clone().unwrap()
}

#[test]
fn without_a_crl_a_foreign_certificate_is_never_valid() {
    let other = Other::new();
    let rig = Rig::new(other.settings());
    let (certificate, serial) = other.issue(&other.ca);
    let open = status(&rig, by_certificate(&certificate));
    assert_eq!(open.value, StatusValue::Indeterminate);
    assert_eq!(open.aspects.revocation_status, KeyFinding::Open);
    assert_eq!(open.aspects.issuer_trust, KeyFinding::Good);
    assert_eq!(open.refusal.as_deref(), Some("crl-missing"));
    other.publish(1, &[]);
    assert_eq!(status(&rig, by_certificate(&certificate)).value, StatusValue::Valid);
    let (at, reason) = (SystemClock.now(), RevocationReason::KeyCompromise);
    other.publish(2, &[Revocation { serial, at, reason }]);
    let revoked = status(&rig, by_certificate(&certificate));
    assert_eq!(revoked.value, StatusValue::Invalid);
    assert_eq!(revoked.refusal.as_deref(), Some("certificate-revoked"));
    // The older list put back is told, and hides nothing.
    other.publish(1, &[]);
    let back = status(&rig, by_certificate(&certificate));
    assert_eq!(back.value, StatusValue::Indeterminate);
    assert_eq!(back.refusal.as_deref(), Some("crl-rolled-back"));
    // Whoever tried that is seen; that a certificate was revoked is no news.
    assert_eq!(rig.refusals(), ["crl-missing", "crl-rolled-back"]);
}

#[test]
fn a_crl_that_comes_with_the_question_counts_if_it_is_proven() {
    let other = Other::new();
    let rig = Rig::new(Settings { crls: Vec::new(), ..other.settings() });
    let (certificate, _) = other.issue(&other.ca);
    let good = other.ca.issue_crl(1, validity(), &[]).unwrap();
    let (stranger, _) = Ca::create_root(&CaSpec {
        common_name: "Other root".to_owned(),
        path_length: 1,
        validity: validity(),
    })
    .unwrap();
    let forged = stranger.issue_crl(9, validity(), &[]).unwrap();
    let with = |crl: Vec<u8>| {
        let crls = vec![Bytes(crl)];
        status(&rig, KeyExample { crls, ..by_certificate(&certificate) }).value
    };
    assert_eq!(with(forged), StatusValue::Indeterminate);
    assert_eq!(with(b"junk".to_vec()), StatusValue::Indeterminate);
    assert_eq!(with(good), StatusValue::Valid);
}

#[test]
fn a_stranger_is_not_trusted_and_a_forgery_is_invalid() {
    let other = Other::new();
    let rig = Rig::open();
    let (certificate, _) = other.issue(&other.ca);
    let unknown = status(&rig, by_certificate(&certificate));
    assert_eq!(unknown.value, StatusValue::Indeterminate);
    assert_eq!(unknown.aspects.issuer_trust, KeyFinding::Open);
    // Our own certificate with one bit of its signature changed is not one of ours any more.
    let own = rig.register("bob", &key()).certificates.remove(0);
    let mut forged = own.clone();
    *forged.0.last_mut().unwrap() ^= 1;
    let refused = status(&rig, by_certificate(&forged));
    assert_ne!(refused.value, StatusValue::Valid);
    assert_eq!(status(&rig, by_certificate(&own)).value, StatusValue::Valid);
}

#[test]
fn what_our_own_ca_signed_outside_the_library_is_not_known_to_be_good() {
    let rig = Rig::open();
    let own = Bytes(rig.keeper.message_identity().chain.remove(0));
    let status = status(&rig, by_certificate(&own));
    assert_eq!(status.value, StatusValue::Indeterminate);
    assert_eq!(status.aspects.revocation_status, KeyFinding::Open);
}

#[test]
fn names_and_uses_of_the_example_must_be_those_of_the_certificate() {
    let other = Other::new();
    let rig = Rig::new(other.settings());
    let (certificate, _) = other.issue(&other.ca);
    let with = |application: &str, identifier: &str| {
        let mut example = by_certificate(&certificate);
        example.use_with = vec![model::keys::UseWith {
            application: application.to_owned(),
            identifier: identifier.to_owned(),
        }];
        rig.validate(example).bindings.len()
    };
    assert_eq!(with("urn:ietf:rfc:2818", "WEB.example.org"), 1);
    assert_eq!(with("urn:ietf:rfc:2818", "mail.example.org"), 0);
    assert_eq!(with("urn:ietf:rfc:2633", "web@example.org"), 0);
}

#[test]
fn a_chain_over_an_intermediate_that_comes_with_the_question_is_built() {
    let other = Other::new();
    let rig = Rig::new(Settings { crls: Vec::new(), ..other.settings() });
    let spec = CaSpec {
        common_name: "Below".to_owned(),
        path_length: 0,
        validity: validity_inside(&other.ca),
    };
    let (below, _) = other.ca.create_sub(&spec).unwrap();
    let (certificate, _) = other.issue(&below);
    let alone = status(&rig, by_certificate(&certificate));
    assert_eq!(alone.aspects.issuer_trust, KeyFinding::Open);
    let mut example = by_certificate(&certificate);
    example.certificates.push(Bytes(below.certificate().to_vec()));
    example.crls = [&other.ca, &below]
        .map(|ca| Bytes(ca.issue_crl(1, validity_inside(ca), &[]).unwrap()))
        .to_vec();
    assert_eq!(status(&rig, example).value, StatusValue::Valid);
}
