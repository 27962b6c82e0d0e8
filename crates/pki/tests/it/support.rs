//! A small PKI, and ways to run `openssl`.

use std::{path::Path, process::Command, time::Duration};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rsa::{KeySize, PrivateDecryptingKey},
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use model::{Digest, Epoch, Secret, api::service::Service};
use pki::{Ca, CaSpec, Profile, Validity, tcg::TpmModel};
use time::{OffsetDateTime, macros::datetime};

pub(crate) const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn year() -> Validity {
    Validity::new(NOW, 365 * DAY)
}

pub(crate) fn day() -> Validity {
    Validity::new(NOW, DAY)
}

pub(crate) fn p256() -> Vec<u8> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    spki.as_ref().to_vec()
}

pub(crate) fn rsa() -> Vec<u8> {
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    spki.as_ref().to_vec()
}

pub(crate) fn spec(name: &str, path_length: u8) -> CaSpec {
    CaSpec { common_name: name.to_owned(), path_length, validity: year() }
}

/// An RSA key that is too weak, made by `openssl` because aws-lc makes none.
pub(crate) fn weak_rsa() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    must(dir.path(), &["genrsa", "-out", "weak.pem", "1024"]);
    must(dir.path(), &["rsa", "-in", "weak.pem", "-pubout", "-outform", "DER", "-out", "weak.der"]);
    std::fs::read(dir.path().join("weak.der")).unwrap()
}

/// A root, a CA below it, and the key of the latter.
pub(crate) struct Pki {
    pub(crate) root: Ca,
    pub(crate) sub: Ca,
    pub(crate) sub_key: Secret<Vec<u8>>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let (root, _key) = Ca::create_root(&spec("Root", 1)).unwrap();
        let (sub, sub_key) = root.create_sub(&spec("Sub", 0)).unwrap();
        Self { root, sub, sub_key }
    }

    pub(crate) fn anchors(&self) -> pki::Anchors {
        pki::Anchors::new(&[self.root.certificate()]).unwrap()
    }
}

pub(crate) fn tpm() -> TpmModel {
    TpmModel {
        manufacturer: "id:00001014".to_owned(),
        model: "swtpm".to_owned(),
        version: "id:20191023".to_owned(),
    }
}

/// A service's passport.
pub(crate) fn passport(service: Service, host: &str) -> Profile {
    Profile::Service { service, host: host.parse().unwrap(), verdict: Digest::sha256([7; 32]) }
}

/// One of each profile.
pub(crate) fn profiles() -> [Profile; 8] {
    let (host, vm) = ("host-a".parse().unwrap(), "web-01".parse().unwrap());
    [
        Profile::TlsServer {
            name: "authority".to_owned(),
            dns: vec!["localhost".to_owned()],
            ip: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        },
        Profile::Client { operator: "admin".to_owned() },
        Profile::HostSession { host, verdict: Digest::sha256([7; 32]) },
        Profile::HostAk { host: "host-a".parse().unwrap() },
        Profile::VtpmEk { tpm: tpm(), vm },
        Profile::VtpmAk { vm: "web-01".parse().unwrap(), epoch: Epoch(3), host: [9; 16] },
        passport(Service::Trust, "host-a"),
        Profile::HostEk { tpm: tpm() },
    ]
}

/// Runs `openssl` in `dir`; whether it succeeded, and what it said.
pub(crate) fn openssl(dir: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

pub(crate) fn must(dir: &Path, args: &[&str]) -> String {
    let (ok, said) = openssl(dir, args);
    assert!(ok, "openssl {args:?}: {said}");
    said
}

pub(crate) fn write_pem(dir: &Path, name: &str, label: &str, der: &[u8]) {
    let text = der::pem::encode_string(label, der::pem::LineEnding::LF, der).unwrap();
    std::fs::write(dir.join(name), text).unwrap();
}

/// A P-256 key of `openssl` in `name.key` (PEM) and its certificate in `name.pem`; the certificate
/// and the key (PKCS #8), DER.
pub(crate) fn key_pair(
    dir: &Path,
    name: &str,
    certify: impl FnOnce(&[u8]) -> Vec<u8>,
) -> (Vec<u8>, Vec<u8>) {
    let (pem, der, public) = (format!("{name}.key"), format!("{name}.p8"), format!("{name}.pub"));
    let curve = "ec_paramgen_curve:P-256";
    must(dir, &["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out", &pem]);
    must(dir, &["pkcs8", "-topk8", "-nocrypt", "-in", &pem, "-outform", "DER", "-out", &der]);
    must(dir, &["pkey", "-in", &pem, "-pubout", "-outform", "DER", "-out", &public]);
    let certificate = certify(&std::fs::read(dir.join(public)).unwrap());
    write_pem(dir, &format!("{name}.pem"), "CERTIFICATE", &certificate);
    (certificate, std::fs::read(dir.join(der)).unwrap())
}
