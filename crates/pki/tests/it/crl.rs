//! CRLs: issued, read by `openssl`, and refused when they must not be believed.

use model::Secret;
use pki::{Crl, CrlRejection, Profile, Revocation, RevocationReason, Validity};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
};

use crate::support::{DAY, NOW, Pki, day, must, openssl, p256, write_pem};

fn client() -> Profile {
    Profile::Client { operator: "admin".to_owned() }
}

#[test]
fn a_revoked_certificate_is_found_here_and_by_openssl_and_others_are_not() {
    let pki = Pki::new();
    let bad = pki.sub.issue(&client(), &p256(), day()).unwrap();
    let good = pki.sub.issue(&client(), &p256(), day()).unwrap();
    let reason = RevocationReason::PrivilegeWithdrawn;
    let revoked = [Revocation { serial: bad.serial, at: NOW, reason }];
    let der = pki.sub.issue_crl(7, day(), &revoked).unwrap();
    let crl = Crl::verify(&der, pki.sub.certificate(), NOW).unwrap();
    assert!(crl.is_revoked(&bad.serial));
    assert!(!crl.is_revoked(&good.serial));
    assert_eq!(crl.next_update(), NOW + DAY);

    let dir = tempfile::tempdir().unwrap();
    write_pem(dir.path(), "root.pem", "CERTIFICATE", pki.root.certificate());
    write_pem(dir.path(), "sub.pem", "CERTIFICATE", pki.sub.certificate());
    write_pem(dir.path(), "crl.pem", "X509 CRL", &der);
    write_pem(dir.path(), "bad.pem", "CERTIFICATE", &bad.der);
    write_pem(dir.path(), "good.pem", "CERTIFICATE", &good.der);
    let time = NOW.unix_timestamp().to_string();
    let check = |leaf: &'static str| {
        let args =
            ["verify", "-x509_strict", "-crl_check", "-CRLfile", "crl.pem", "-attime", &time];
        let files = ["-CAfile", "root.pem", "-untrusted", "sub.pem", leaf];
        openssl(dir.path(), &[&args[..], &files[..]].concat())
    };
    let (ok, said) = check("good.pem");
    assert!(ok, "{said}");
    let (ok, said) = check("bad.pem");
    assert!(!ok && said.contains("revoked"), "{said}");
    let text = must(dir.path(), &["crl", "-in", "crl.pem", "-noout", "-text"]);
    assert!(text.contains("Privilege Withdrawn"), "{text}");
}

#[test]
fn a_crl_that_must_not_be_believed_is_refused_by_name() {
    let (pki, other) = (Pki::new(), Pki::new());
    let der = pki.sub.issue_crl(1, day(), &[]).unwrap();
    let verify = |der: &[u8], issuer: &[u8], now| Crl::verify(der, issuer, now).err();
    assert_eq!(verify(&der, pki.sub.certificate(), NOW), None);
    assert_eq!(verify(&der, pki.root.certificate(), NOW), Some(CrlRejection::Issuer));
    assert_eq!(verify(&der, other.sub.certificate(), NOW), Some(CrlRejection::Signature));
    assert_eq!(verify(&der, b"", NOW), Some(CrlRejection::Issuer));
    assert_eq!(verify(b"", pki.sub.certificate(), NOW), Some(CrlRejection::Malformed));
    let late = NOW + 2 * DAY;
    assert_eq!(verify(&der, pki.sub.certificate(), late), Some(CrlRejection::Stale));
    let early = NOW - DAY;
    assert_eq!(verify(&der, pki.sub.certificate(), early), Some(CrlRejection::Stale));
    let huge = vec![0; (8 << 20) + 1];
    assert_eq!(verify(&huge, pki.sub.certificate(), NOW), Some(CrlRejection::TooLarge));
    let old = Validity::backdated(NOW, DAY, DAY);
    assert_eq!(verify(&pki.sub.issue_crl(2, old, &[]).unwrap(), pki.sub.certificate(), NOW), None);
}

/// A CRL below a CA of ours, but made by rcgen as we would not make it.
fn foreign(
    certificate: &[u8],
    key: &Secret<Vec<u8>>,
    scope: Option<CrlIssuingDistributionPoint>,
) -> Vec<u8> {
    let key = KeyPair::try_from(key.expose().as_slice()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&certificate.into(), key).unwrap();
    let params = CertificateRevocationListParams {
        this_update: NOW,
        next_update: NOW + DAY,
        crl_number: 1_u64.into(),
        issuing_distribution_point: scope,
        revoked_certs: vec![],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().der().to_vec()
}

#[test]
fn a_crl_of_part_of_the_certificates_is_refused() {
    let pki = Pki::new();
    let whole = foreign(pki.sub.certificate(), &pki.sub_key, None);
    assert!(Crl::verify(&whole, pki.sub.certificate(), NOW).is_ok());
    let point = CrlDistributionPoint { uris: vec!["http://localhost/crl".to_owned()] };
    let scope = Some(CrlScope::UserCertsOnly);
    let scope = CrlIssuingDistributionPoint { distribution_point: point, scope };
    let part = foreign(pki.sub.certificate(), &pki.sub_key, Some(scope));
    let result = Crl::verify(&part, pki.sub.certificate(), NOW);
    assert_eq!(result.err(), Some(CrlRejection::ExtensionUnknown));
}

#[test]
fn a_crl_of_a_key_that_must_not_sign_crls_is_refused() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pkcs8 = Secret::new(key.serialize_der());
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let narrow = params.self_signed(&key).unwrap().der().to_vec();
    params.key_usages.push(KeyUsagePurpose::CrlSign);
    let wide = params.self_signed(&key).unwrap().der().to_vec();
    let crl = foreign(&wide, &pkcs8, None);
    assert!(Crl::verify(&crl, &wide, NOW).is_ok());
    assert_eq!(Crl::verify(&crl, &narrow, NOW).err(), Some(CrlRejection::IssuerKeyUsage));
}
