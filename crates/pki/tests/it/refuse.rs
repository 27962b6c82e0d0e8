//! One test for each rule by which a chain is refused.

use std::{fs, path::Path};

use pki::{Anchors, Ca, CaSpec, CertRejection, Profile, Purpose, Validity, verify_chain};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair};

use crate::support::{DAY, NOW, Pki, day, must, p256, profiles, spec};

fn client() -> Profile {
    Profile::Client { operator: "admin".to_owned() }
}

/// Why a client certificate of `ca` for `validity` is refused at `NOW`.
fn refused(pki: &Pki, leaf: &[u8]) -> Option<CertRejection> {
    let offered = [pki.sub.certificate()];
    verify_chain(leaf, &offered, &pki.anchors(), NOW, Purpose::TlsClient).err()
}

/// Certificates made by `openssl x509` from an extension file, below an RSA or EC root.
struct Foreign {
    dir: tempfile::TempDir,
}

impl Foreign {
    fn new(key: &str, digest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let foreign = Self { dir };
        foreign.key("root", key);
        let ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
        fs::write(foreign.path().join("root.ext"), ca).unwrap();
        foreign.request("root");
        foreign.sign("root", "-signkey root.key", digest);
        foreign
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn key(&self, name: &str, kind: &str) {
        let out = format!("{name}.key");
        let args = match kind.split_once(':') {
            Some(("rsa", bits)) => format!("genrsa -out {out} {bits}"),
            Some((_, curve)) => format!("ecparam -name {curve} -genkey -noout -out {out}"),
            None => panic!("no kind of key"),
        };
        self.run(&args);
    }

    fn request(&self, name: &str) {
        self.run(&format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"));
    }

    fn run(&self, line: &str) -> String {
        must(self.path(), &line.split(' ').collect::<Vec<_>>())
    }

    /// Valid a day before `NOW` and long after: faketime is not needed, the dates are explicit.
    fn sign(&self, name: &str, signer: &str, digest: &str) {
        self.run(&format!(
            "x509 -req -in {name}.csr {signer} -{digest} -days 36500 -extfile {name}.ext -outform \
             DER -out {name}.der"
        ));
    }

    /// Issues `name` under `issuer` with these extensions.
    fn issue(&self, name: &str, issuer: &str, digest: &str, extensions: &str) -> Vec<u8> {
        fs::write(self.path().join(format!("{name}.ext")), extensions).unwrap();
        self.request(name);
        let signer = format!("-CA {issuer}.der -CAform DER -CAkey {issuer}.key -CAcreateserial");
        self.sign(name, &signer, digest);
        self.read(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(format!("{name}.der"))).unwrap()
    }

    fn check(&self, leaf: &[u8], offered: &[Vec<u8>], purpose: Purpose) -> Option<CertRejection> {
        let anchors = Anchors::new(&[self.read("root")]).unwrap();
        // These are valid from the moment that `openssl` made them.
        let now = time::OffsetDateTime::now_utc() + time::Duration::minutes(5);
        verify_chain(leaf, offered, &anchors, now, purpose).err()
    }
}

const CLIENT_EXT: &str = "keyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n";
const CA_EXT: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n";

#[test]
fn a_leaf_outside_its_validity() {
    let pki = Pki::new();
    let old = Validity::backdated(NOW - 2 * DAY, DAY, DAY);
    let old = pki.sub.issue(&client(), &p256(), old).unwrap();
    assert_eq!(refused(&pki, &old.der), Some(CertRejection::Expired));
    let early = pki.sub.issue(&client(), &p256(), Validity::new(NOW + DAY, DAY)).unwrap();
    assert_eq!(refused(&pki, &early.der), Some(CertRejection::NotYetValid));
}

#[test]
fn an_issuer_outside_its_validity() {
    let (root, _key) = Ca::create_root(&spec("Root", 1)).unwrap();
    let short = CaSpec { validity: day(), ..spec("Short", 0) };
    let (sub, _key) = root.create_sub(&short).unwrap();
    let leaf = sub.issue(&client(), &p256(), Validity::backdated(NOW, DAY, DAY)).unwrap();
    let anchors = Anchors::new(&[root.certificate()]).unwrap();
    let at = |now| verify_chain(&leaf.der, &[sub.certificate()], &anchors, now, Purpose::TlsClient);
    assert!(at(NOW).is_ok());
    assert_eq!(at(NOW - DAY / 2).err(), Some(CertRejection::NotYetValid));
}

#[test]
fn a_chain_to_nobody_or_to_a_namesake() {
    let (pki, other) = (Pki::new(), Pki::new());
    let leaf = pki.sub.issue(&client(), &p256(), day()).unwrap();
    let none: [&[u8]; 0] = [];
    let check = |offered: &[&[u8]], anchors: &Anchors| {
        verify_chain(&leaf.der, offered, anchors, NOW, Purpose::TlsClient).err()
    };
    assert_eq!(check(&none, &pki.anchors()), Some(CertRejection::IssuerUnknown));
    // The other PKI has the same names and other keys.
    let offered = [pki.sub.certificate()];
    assert_eq!(check(&offered, &other.anchors()), Some(CertRejection::IssuerUnknown));
    let namesake = [other.sub.certificate(), pki.sub.certificate()];
    assert_eq!(check(&namesake, &pki.anchors()), None);
}

#[test]
fn a_leaf_for_another_purpose() {
    let pki = Pki::new();
    let all =
        [Purpose::EndorsementKey, Purpose::AttestationKey, Purpose::TlsClient, Purpose::TlsServer];
    for profile in profiles() {
        let leaf = pki.sub.issue(&profile, &p256(), day()).unwrap();
        let accepted = all.iter().filter(|purpose| {
            let offered = [pki.sub.certificate()];
            verify_chain(&leaf.der, &offered, &pki.anchors(), NOW, **purpose).is_ok()
        });
        // A service is asked, and asks.
        let both = if matches!(profile, Profile::Service { .. }) { 2 } else { 1 };
        assert_eq!(accepted.count(), both, "{}", profile.name());
    }
    let ca = refused(&pki, pki.sub.certificate());
    assert_eq!(ca, Some(CertRejection::LeafIsCa));
}

#[test]
fn bytes_that_are_no_certificate_or_too_many() {
    let pki = Pki::new();
    let leaf = pki.sub.issue(&client(), &p256(), day()).unwrap().der;
    assert_eq!(refused(&pki, &[]), Some(CertRejection::Malformed));
    assert_eq!(refused(&pki, &[leaf.clone(), vec![0]].concat()), Some(CertRejection::Malformed));
    assert_eq!(refused(&pki, &vec![0; 20_000]), Some(CertRejection::TooLarge));
    let many = vec![pki.sub.certificate(); 17];
    let result = verify_chain(&leaf, &many, &pki.anchors(), NOW, Purpose::TlsClient);
    assert_eq!(result.err(), Some(CertRejection::TooMany));
    let mut altered = leaf;
    *altered.last_mut().unwrap() ^= 1;
    let rejection = refused(&pki, &altered);
    assert!(matches!(rejection, Some(CertRejection::Signature)), "{rejection:?}");
}

#[test]
fn foreign_chains_with_rsa_and_p384_are_accepted() {
    for (kind, digest) in [
        ("rsa:2048", "sha256"),
        ("rsa:3072", "sha384"),
        ("rsa:2048", "sha512"),
        ("ec:secp384r1", "sha384"),
    ] {
        let foreign = Foreign::new(kind, digest);
        foreign.key("sub", kind);
        let sub = foreign.issue("sub", "root", digest, CA_EXT);
        foreign.key("leaf", "ec:prime256v1");
        let leaf = foreign.issue("leaf", "sub", digest, CLIENT_EXT);
        assert_eq!(foreign.check(&leaf, &[sub], Purpose::TlsClient), None, "{kind} {digest}");
        let ek = "subjectAltName=critical,dirName:dn\nkeyUsage=critical,keyEncipherment\n\
                  certificatePolicies=critical,1.2.3.4\n[dn]\n0.2.23.133.2.1=id:1\n";
        foreign.key("ek", "rsa:2048");
        let ek = foreign.issue("ek", "root", digest, ek);
        assert_eq!(foreign.check(&ek, &[], Purpose::EndorsementKey), None, "{kind} {digest}");
    }
}

#[test]
fn weak_keys_and_hashes() {
    let foreign = Foreign::new("ec:prime256v1", "sha256");
    foreign.key("leaf", "ec:prime256v1");
    let leaf = foreign.issue("leaf", "root", "sha1", CLIENT_EXT);
    let rejection = foreign.check(&leaf, &[], Purpose::TlsClient);
    assert_eq!(rejection, Some(CertRejection::SignatureAlgorithm));
    foreign.key("sub", "rsa:1024");
    let sub = foreign.issue("sub", "root", "sha256", CA_EXT);
    let leaf = foreign.issue("leaf", "sub", "sha256", CLIENT_EXT);
    let rejection = foreign.check(&leaf, &[sub], Purpose::TlsClient);
    assert_eq!(rejection, Some(CertRejection::IssuerKey));
}

#[test]
fn issuers_that_must_not_issue() {
    let foreign = Foreign::new("ec:prime256v1", "sha256");
    foreign.key("leaf", "ec:prime256v1");
    foreign.key("sub", "ec:prime256v1");
    let under = |extensions: &str| {
        let sub = foreign.issue("sub", "root", "sha256", extensions);
        let leaf = foreign.issue("leaf", "sub", "sha256", CLIENT_EXT);
        foreign.check(&leaf, &[sub], Purpose::TlsClient)
    };
    assert_eq!(under("basicConstraints=CA:FALSE\n"), Some(CertRejection::IssuerNotCa));
    let usage = "basicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature\n";
    assert_eq!(under(usage), Some(CertRejection::IssuerKeyUsage));
    let purpose = format!("{CA_EXT}extendedKeyUsage=serverAuth\n");
    assert_eq!(under(&purpose), Some(CertRejection::Purpose));
    let names = format!("{CA_EXT}nameConstraints=critical,permitted;dirName:dn\n[dn]\nO=Other\n");
    assert_eq!(under(&names), Some(CertRejection::NameNotPermitted));
    let names = format!("{CA_EXT}nameConstraints=critical,permitted;DNS:example.org\n");
    assert_eq!(under(&names), None);
    let unknown = format!("{CA_EXT}1.2.3.4=critical,ASN1:NULL\n");
    assert_eq!(under(&unknown), Some(CertRejection::ExtensionUnknown));
    assert_eq!(under(CA_EXT), None);
}

#[test]
fn leaves_with_a_wrong_usage_or_extensions_that_are_not_known() {
    let foreign = Foreign::new("ec:prime256v1", "sha256");
    foreign.key("leaf", "ec:prime256v1");
    let with = |extensions: &str| {
        let leaf = foreign.issue("leaf", "root", "sha256", extensions);
        foreign.check(&leaf, &[], Purpose::TlsClient)
    };
    let usage = "keyUsage=keyAgreement\nextendedKeyUsage=clientAuth\n";
    assert_eq!(with(usage), Some(CertRejection::KeyUsage));
    let unknown = format!("{CLIENT_EXT}1.2.3.4=critical,ASN1:NULL\n");
    assert_eq!(with(&unknown), Some(CertRejection::ExtensionUnknown));
    let harmless = format!("{CLIENT_EXT}1.2.3.4=ASN1:NULL\n");
    assert_eq!(with(&harmless), None);
    assert_eq!(with("keyUsage=digitalSignature\n"), Some(CertRejection::Purpose));
}

#[test]
fn a_chain_that_is_longer_than_its_issuers_or_we_allow() {
    let foreign = Foreign::new("ec:prime256v1", "sha256");
    let mut offered = Vec::new();
    let mut issuer = "root".to_owned();
    for depth in 1..=5 {
        let name = format!("ca{depth}");
        foreign.key(&name, "ec:prime256v1");
        offered.push(foreign.issue(&name, &issuer, "sha256", CA_EXT));
        issuer = name;
    }
    foreign.key("leaf", "ec:prime256v1");
    let four = foreign.issue("leaf", "ca4", "sha256", CLIENT_EXT);
    assert_eq!(foreign.check(&four, &offered, Purpose::TlsClient), None);
    let five = foreign.issue("leaf", "ca5", "sha256", CLIENT_EXT);
    let rejection = foreign.check(&five, &offered, Purpose::TlsClient);
    assert_eq!(rejection, Some(CertRejection::PathTooLong));

    let bounded = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign\n";
    let top = foreign.issue("ca1", "root", "sha256", bounded);
    let below = foreign.issue("ca2", "ca1", "sha256", CA_EXT);
    let leaf = foreign.issue("leaf", "ca2", "sha256", CLIENT_EXT);
    let rejection = foreign.check(&leaf, &[top, below], Purpose::TlsClient);
    assert_eq!(rejection, Some(CertRejection::PathTooLong));
}

/// What rcgen makes of `params`, signed by `issuer` under the name in `params` of all of these.
fn same_name(key: &KeyPair, issuer: &KeyPair, params: &CertificateParams) -> Vec<u8> {
    let issuer = Issuer::from_params(params, issuer);
    params.signed_by(key, &issuer).unwrap().der().to_vec()
}

#[test]
fn a_pool_of_namesakes_ends_the_search() {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().unwrap();
    let (a, b) = (key(), key());
    // All bear one name, so that each could have issued each: a search without bounds would try
    // every order. The anchor bears it too.
    let mut offered: Vec<_> = (0..14).map(|_| same_name(&key(), &key(), &ca)).collect();
    offered.push(same_name(&a, &b, &ca));
    offered.push(same_name(&b, &a, &ca));
    let mut client = ca.clone();
    client.is_ca = IsCa::NoCa;
    client.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = same_name(&key(), &a, &client);
    let nobody = verify_chain(&leaf, &offered, &Pki::new().anchors(), NOW, Purpose::TlsClient);
    assert_eq!(nobody.err(), Some(CertRejection::IssuerUnknown));
    let anchor = Anchors::new(&[same_name(&key(), &key(), &ca)]).unwrap();
    let result = verify_chain(&leaf, &offered, &anchor, NOW, Purpose::TlsClient);
    assert_eq!(result.err(), Some(CertRejection::SearchTooLong));
}

#[test]
fn an_extension_that_occurs_twice() {
    let mut params = CertificateParams::default();
    let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    params.custom_extensions = vec![extension.clone(), extension];
    let leaf = same_name(&KeyPair::generate().unwrap(), &KeyPair::generate().unwrap(), &params);
    assert_eq!(refused(&Pki::new(), &leaf), Some(CertRejection::ExtensionTwice));
}

#[test]
fn every_refusal_has_its_own_kebab_case_name() {
    let all = [
        CertRejection::Expired,
        CertRejection::ExtensionTwice,
        CertRejection::ExtensionUnknown,
        CertRejection::IssuerKey,
        CertRejection::IssuerKeyUsage,
        CertRejection::IssuerNotCa,
        CertRejection::IssuerUnknown,
        CertRejection::KeyUsage,
        CertRejection::LeafIsCa,
        CertRejection::Malformed,
        CertRejection::NameConstraintUnknown,
        CertRejection::NameExcluded,
        CertRejection::NameNotPermitted,
        CertRejection::NotYetValid,
        CertRejection::PathTooLong,
        CertRejection::PolicyMapping,
        CertRejection::PolicyMissing,
        CertRejection::Purpose,
        CertRejection::SearchTooLong,
        CertRejection::Signature,
        CertRejection::SignatureAlgorithm,
        CertRejection::TooLarge,
        CertRejection::TooMany,
    ];
    let mut names: Vec<_> = all.iter().map(|rejection| rejection.code()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    let plain = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    assert!(names.iter().all(plain));
}
