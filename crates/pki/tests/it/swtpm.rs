//! EK certificates as another maker writes them: `swtpm_setup` with its own CA of two levels.

use std::{fs, path::Path, process::Command};

use pki::{Anchors, CertRejection, Purpose, verify_chain};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use time::{Duration, OffsetDateTime};

use crate::support::tpm;

fn manufacture(dir: &Path) -> bool {
    let at = dir.display();
    let files = [
        (
            "setup.conf",
            format!(
                "create_certs_tool=/usr/bin/swtpm_localca\n\
                 create_certs_tool_config={at}/localca.conf\n\
                 create_certs_tool_options={at}/localca.options\n"
            ),
        ),
        (
            "localca.conf",
            format!(
                "statedir = {at}/ca\nsigningkey = {at}/ca/signkey.pem\n\
                 issuercert = {at}/ca/issuercert.pem\ncertserial = {at}/ca/certserial\n"
            ),
        ),
        ("localca.options", String::new()),
    ];
    for (name, text) in files {
        fs::write(dir.join(name), text).unwrap();
    }
    fs::create_dir(dir.join("ca")).unwrap();
    fs::create_dir(dir.join("state")).unwrap();
    let made = Command::new("swtpm_setup")
        .args(["--tpm2", "--create-ek-cert", "--tpmstate"])
        .arg(dir.join("state"))
        .arg("--config")
        .arg(dir.join("setup.conf"))
        .arg("--write-ek-cert-files")
        .arg(dir)
        .output();
    match made {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            true
        }
        Err(error) => {
            println!("skipped: swtpm_setup cannot be started: {error}");
            false
        }
    }
}

fn pem(dir: &Path, name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(dir.join("ca").join(name)).unwrap().to_vec()
}

#[test]
fn ek_certificates_of_swtpm_are_accepted_up_to_its_root_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    if !manufacture(dir.path()) {
        return;
    }
    let root = pem(dir.path(), "swtpm-localca-rootca-cert.pem");
    let issuer = pem(dir.path(), "issuercert.pem");
    let anchors = Anchors::new(&[root]).unwrap();
    let now = OffsetDateTime::now_utc() + Duration::minutes(1);
    let mut found = 0;
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "crt") {
            continue;
        }
        found += 1;
        let ek = fs::read(path).unwrap();
        let check =
            |offered: &[Vec<u8>], purpose| verify_chain(&ek, offered, &anchors, now, purpose);
        let offered = [issuer.clone()];
        let verified = check(&offered, Purpose::EndorsementKey).unwrap();
        assert_eq!(verified.tpm(), Some(&tpm()));
        let rejection = check(&[], Purpose::EndorsementKey).err();
        assert_eq!(rejection, Some(CertRejection::IssuerUnknown));
        let rejection = check(&offered, Purpose::AttestationKey).err();
        assert!(matches!(rejection, Some(CertRejection::Purpose | CertRejection::KeyUsage)));
    }
    assert_eq!(found, 2, "one EK certificate for RSA and one for an elliptic curve");
}
