//! What is issued: accepted by ourselves, and by `openssl` in its strict manner.

use model::{Digest, Epoch, Secret};
use pki::{Anchors, Ca, IssueError, Profile, Purpose, Validity, verify_chain};

use crate::support::{
    DAY, NOW, Pki, day, must, p256, profiles, rsa, spec, tpm, weak_rsa, write_pem, year,
};

const fn purpose(profile: &Profile) -> Purpose {
    match profile {
        Profile::TlsServer { .. } => Purpose::TlsServer,
        Profile::Client { .. } | Profile::HostSession { .. } | Profile::Service { .. } => {
            Purpose::TlsClient
        }
        Profile::HostAk { .. } | Profile::VtpmAk { .. } => Purpose::AttestationKey,
        Profile::OcspResponder { .. } | Profile::User(_) => panic!("it is for no purpose of ours"),
        Profile::VtpmEk { .. } | Profile::HostEk { .. } => Purpose::EndorsementKey,
    }
}

#[test]
fn every_profile_with_either_kind_of_key_verifies_here_and_strictly_in_openssl() {
    let pki = Pki::new();
    let dir = tempfile::tempdir().unwrap();
    write_pem(dir.path(), "root.pem", "CERTIFICATE", pki.root.certificate());
    write_pem(dir.path(), "sub.pem", "CERTIFICATE", pki.sub.certificate());
    let time = NOW.unix_timestamp().to_string();
    for profile in profiles() {
        for spki in [p256(), rsa()] {
            let issued = pki.sub.issue(&profile, &spki, day()).unwrap();
            let offered = [pki.sub.certificate()];
            let verified =
                verify_chain(&issued.der, &offered, &pki.anchors(), NOW, purpose(&profile));
            let verified = verified.unwrap_or_else(|e| panic!("{}: {e}", profile.name()));
            assert_eq!(verified.spki(), spki);
            assert_eq!(verified.serial(), issued.serial);
            assert_eq!(verified.chain().len(), 3);
            write_pem(dir.path(), "leaf.pem", "CERTIFICATE", &issued.der);
            let common = ["verify", "-x509_strict", "-check_ss_sig", "-attime", &time];
            let files = ["-CAfile", "root.pem", "-untrusted", "sub.pem", "leaf.pem"];
            must(dir.path(), &[&common[..], &files[..]].concat());
        }
    }
}

#[test]
fn names_come_back_from_the_certificates_that_carry_them() {
    let pki = Pki::new();
    let [_, client, session, host_ak, vtpm_ek, vtpm_ak, _, host_ek] = profiles();
    let read = |profile: &Profile| {
        let issued = pki.sub.issue(profile, &p256(), day()).unwrap();
        let offered = [pki.sub.certificate()];
        verify_chain(&issued.der, &offered, &pki.anchors(), NOW, purpose(profile)).unwrap()
    };
    assert_eq!(read(&client).operator().as_deref(), Some("admin"));
    let session = read(&session);
    assert_eq!(session.host().unwrap().as_str(), "host-a");
    assert_eq!(session.verdict(), Some(Digest::sha256([7; 32])));
    assert_eq!(read(&host_ak).host().unwrap().as_str(), "host-a");
    let ek = read(&vtpm_ek);
    assert_eq!(ek.tpm(), Some(&tpm()));
    assert_eq!(ek.vm(), Some(("web-01".parse().unwrap(), None)));
    assert_eq!(ek.subject(), "");
    let ak = read(&vtpm_ak);
    assert_eq!(ak.vm(), Some(("web-01".parse().unwrap(), Some(Epoch(3)))));
    assert_eq!(ak.host(), None);
    assert!(ak.uris().contains(&format!("urn:vouchsafe:host-ref:{}", "09".repeat(16))));
    assert_eq!(read(&host_ek).tpm(), Some(&tpm()));
}

#[test]
fn openssl_reads_the_tcg_parts_of_an_ek_certificate() {
    let pki = Pki::new();
    let dir = tempfile::tempdir().unwrap();
    let [.., vtpm_ek, _, _, _] = profiles();
    for (spki, usage) in [(p256(), "Key Agreement"), (rsa(), "Key Encipherment")] {
        let issued = pki.sub.issue(&vtpm_ek, &spki, day()).unwrap();
        write_pem(dir.path(), "ek.pem", "CERTIFICATE", &issued.der);
        let text = must(dir.path(), &["x509", "-in", "ek.pem", "-noout", "-text"]);
        for part in [
            usage,
            "2.23.133.8.1",
            "2.23.133.2.1=id:00001014",
            "2.23.133.2.2=swtpm",
            "2.23.133.2.3=id:20191023",
            "URI:urn:vouchsafe:vm:web-01",
            "X509v3 Subject Directory Attributes",
            "CA:FALSE",
        ] {
            let spaced = part.replace('=', " = ");
            assert!(text.contains(part) || text.contains(&spaced), "{part} is not in {text}");
        }
        let asn1 = must(dir.path(), &["asn1parse", "-in", "ek.pem"]);
        assert!(!asn1.contains("Error"), "{asn1}");
    }
}

#[test]
fn a_ca_comes_back_from_its_certificate_and_key_and_only_from_its_own() {
    let pki = Pki::new();
    let again = Ca::load(pki.sub.certificate().to_vec(), &pki.sub_key).unwrap();
    let [_, client, ..] = profiles();
    let issued = again.issue(&client, &p256(), day()).unwrap();
    let offered = [pki.sub.certificate()];
    assert!(verify_chain(&issued.der, &offered, &pki.anchors(), NOW, Purpose::TlsClient).is_ok());

    let other = Ca::load(pki.root.certificate().to_vec(), &pki.sub_key);
    assert!(matches!(other, Err(IssueError::CaMismatch)));
    let leaf = Ca::load(issued.der, &pki.sub_key);
    assert!(matches!(leaf, Err(IssueError::CaCertificate(_))));
    let junk = Ca::load(pki.sub.certificate().to_vec(), &Secret::new(vec![1, 2]));
    assert!(matches!(junk, Err(IssueError::CaKey)));
}

#[test]
fn a_ca_issues_nothing_beyond_its_own_reach() {
    let pki = Pki::new();
    let [_, client, ..] = profiles();
    let long = Validity::new(NOW, 366 * DAY);
    assert!(matches!(pki.sub.issue(&client, &p256(), long), Err(IssueError::Validity)));
    let empty = Validity::new(NOW, std::time::Duration::ZERO);
    assert!(matches!(pki.sub.issue(&client, &p256(), empty), Err(IssueError::Validity)));
    assert!(matches!(pki.sub.create_sub(&spec("Deeper", 0)), Err(IssueError::PathLength)));
    assert!(matches!(pki.root.create_sub(&spec("Wider", 1)), Err(IssueError::PathLength)));
    for bad in
        [vec![], vec![0x30, 0], p256()[..80].to_vec(), weak_rsa(), [p256(), vec![0]].concat()]
    {
        assert!(matches!(pki.sub.issue(&client, &bad, day()), Err(IssueError::SubjectKey)));
    }
    let shouted = Profile::Client { operator: "Not A Name".to_owned() };
    assert!(matches!(pki.sub.issue(&shouted, &p256(), day()), Err(IssueError::Name(_))));
}

#[test]
fn two_certificates_have_different_positive_serial_numbers() {
    let pki = Pki::new();
    let [_, client, ..] = profiles();
    let key = p256();
    let one = pki.sub.issue(&client, &key, day()).unwrap();
    let two = pki.sub.issue(&client, &key, day()).unwrap();
    assert_ne!(one.serial, two.serial);
    assert_eq!(one.serial[0] & 0xc0, 0x40);
}

#[test]
fn an_anchor_must_be_a_ca() {
    let pki = Pki::new();
    let [_, client, ..] = profiles();
    let leaf = pki.sub.issue(&client, &p256(), year()).unwrap();
    assert!(Anchors::new(&[leaf.der]).is_err());
    assert!(Anchors::new::<Vec<u8>>(&[]).is_err());
}
