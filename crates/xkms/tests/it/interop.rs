//! Signatures and encryption against `xmlsec1`, both ways.

use std::{fs, path::Path};

use model::Secret;
use xkms::{
    dsig::{
        Form, Place, PublicKey, Sha1, SignaturePolicy, SignatureRejection, SignedElement, Signer,
        SigningKey, VerifyingKey, sign_enveloped, verify,
    },
    message::{QueryKeyBinding, Request, RequestBody, RequestHead, signature_of},
    soap::{self, Version},
    xenc::{Cipher, EncryptedData, EncryptionPolicy},
    xml::{Document, Element, Limits},
};

use crate::{
    samples::SERVICE,
    tools::{self, KeyFiles},
};

const ID: [&str; 2] = ["--id-attr:Id", "http://www.w3.org/2002/03/xkms#:LocateRequest"];
const INCLUSIVE: &str = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315";
const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";

/// One kind of key: ours, theirs, and the algorithm's URI.
struct Kind {
    algorithm: &'static str,
    signer: SigningKey,
    public: Option<PublicKey>,
    mac: Secret<Vec<u8>>,
    signing: Vec<String>,
    verifying: Vec<String>,
}

impl Kind {
    fn key(&self) -> VerifyingKey<'_> {
        self.public.as_ref().map_or(VerifyingKey::Mac(&self.mac), VerifyingKey::Public)
    }
}

fn asymmetric(files: KeyFiles, algorithm: &'static str) -> Kind {
    let signer = SigningKey::from_pkcs8(&files.signing).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    Kind {
        algorithm,
        public: signer.public_key(),
        signer,
        mac: Secret::new(Vec::new()),
        signing: vec!["--privkey-pem".into(), text(&files.private)],
        verifying: vec!["--pubkey-pem".into(), text(&files.public)],
    }
}

fn kinds(folder: &Path) -> Vec<Kind> {
    let ec = |name: &str, curve: &str| {
        tools::key(
            folder,
            name,
            &["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{curve}")],
        )
    };
    let rsa = tools::key(folder, "rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let secret = Secret::new(b"a shared secret of some length".to_vec());
    let path = folder.join("mac");
    fs::write(&path, secret.expose()).unwrap();
    let mac = |algorithm, signer| {
        let options = vec!["--hmackey".to_owned(), path.to_str().unwrap().to_owned()];
        Kind {
            algorithm,
            signer,
            public: None,
            mac: secret.clone(),
            signing: options.clone(),
            verifying: options,
        }
    };
    vec![
        asymmetric(rsa, "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"),
        asymmetric(ec("p256", "P-256"), "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"),
        asymmetric(ec("p384", "P-384"), "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"),
        mac("http://www.w3.org/2001/04/xmldsig-more#hmac-sha256", SigningKey::mac(&secret)),
        mac("http://www.w3.org/2000/09/xmldsig#hmac-sha1", SigningKey::legacy_mac(&secret)),
    ]
}

fn message() -> Element {
    let body = RequestBody::Locate(QueryKeyBinding::default());
    Request { head: RequestHead::new("I1", SERVICE), body }.to_element()
}

/// Runs `xmlsec1` on `text`; what it wrote with `--output`, if that was asked for.
fn xmlsec1(folder: &Path, command: &[&str], text: &str) -> Result<String, String> {
    let (input, output) = (folder.join("in.xml"), folder.join("out.xml"));
    fs::write(&input, text).unwrap();
    let mut arguments = command.to_vec();
    if !command.contains(&"--verify") {
        arguments.extend(["--output", output.to_str().unwrap()]);
    }
    arguments.push(input.to_str().unwrap());
    tools::run("xmlsec1", &arguments)?;
    Ok(fs::read_to_string(output).unwrap_or_default())
}

fn check(text: &str, kind: &Kind) -> Result<Form, SignatureRejection> {
    let document = Document::parse(text.as_bytes(), &Limits::MESSAGE).unwrap();
    let message = soap::open(&document).1.unwrap();
    let signature = signature_of(message).unwrap();
    let place = Place { message, target: message };
    let signed: SignedElement<'_> =
        verify(signature, place, kind.key(), SignaturePolicy { sha1: Sha1::InMacs })?;
    Ok(signed.read(Request::read).unwrap().form())
}

#[test]
fn xmlsec1_verifies_what_we_sign_alone_and_in_envelopes() {
    if !(tools::has("xmlsec1") && tools::has("openssl")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for kind in kinds(folder.path()) {
        let mut command = vec!["--verify", ID[0], ID[1]];
        command.extend(kind.verifying.iter().map(String::as_str));
        for version in [Version::Bare, Version::V11, Version::V12] {
            let mut element = message();
            sign_enveloped(&mut element, &kind.signer, None).unwrap();
            let text = soap::wrap(version, &element);
            xmlsec1(folder.path(), &command, &text).unwrap();
            assert_eq!(check(&text, &kind), Ok(Form::InPlace));
            let forged = text.replace("trust.example", "other.example");
            assert!(xmlsec1(folder.path(), &command, &forged).is_err());
            assert_eq!(check(&forged, &kind), Err(SignatureRejection::Digest));
        }
    }
}

/// The message with an empty signature, to be filled by `xmlsec1`.
fn template(algorithm: &str, signed_info: &str, reference: Option<&str>) -> String {
    let transform =
        reference.map(|r| format!("<ds:Transform Algorithm=\"{r}\"/>")).unwrap_or_default();
    let signature = format!(
        "<ds:Signature xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\n <ds:SignedInfo>\
         <ds:CanonicalizationMethod Algorithm=\"{signed_info}\"/><ds:SignatureMethod Algorithm=\"{algorithm}\"/>\
         <ds:Reference URI=\"#I1\"><ds:Transforms>\
         <ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"/>{transform}\
         </ds:Transforms><ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"/><ds:DigestValue/>\
         </ds:Reference></ds:SignedInfo> <ds:SignatureValue/></ds:Signature>"
    );
    message().to_xml().replacen("<QueryKeyBinding", &format!("{signature}\n  <QueryKeyBinding"), 1)
}

const OPEN: &str = "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
                    xmlns:unused=\"urn:unused\" xml:lang=\"en\"><s:Body>";
const CLOSE: &str = "</s:Body></s:Envelope>";

#[test]
fn we_verify_what_xmlsec1_signs_in_place_and_detached() {
    if !(tools::has("xmlsec1") && tools::has("openssl")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let comments = format!("{EXCLUSIVE}WithComments");
    for kind in kinds(folder.path()) {
        let mut command = vec!["--sign", ID[0], ID[1]];
        command.extend(kind.signing.iter().map(String::as_str));
        let sign = |text: &str| {
            let signed = xmlsec1(folder.path(), &command, text).unwrap();
            signed.strip_prefix("<?xml version=\"1.0\"?>\n").unwrap_or(&signed).trim().to_owned()
        };
        for (signed_info, reference, outcome) in [
            (EXCLUSIVE, Some(EXCLUSIVE), Form::InPlace),
            (EXCLUSIVE, Some(comments.as_str()), Form::InPlace),
            (INCLUSIVE, Some(EXCLUSIVE), Form::Detached),
            (EXCLUSIVE, Some(INCLUSIVE), Form::Detached),
            (INCLUSIVE, Some(INCLUSIVE), Form::Detached),
            (INCLUSIVE, None, Form::Detached),
        ] {
            let text = template(kind.algorithm, signed_info, reference);
            let alone = sign(&text);
            assert_eq!(check(&alone, &kind), Ok(Form::InPlace), "{alone}");
            let wrapped = format!("{OPEN}{alone}{CLOSE}");
            assert_eq!(check(&wrapped, &kind), Ok(outcome), "{wrapped}");
            let in_place = sign(&format!("{OPEN}{text}{CLOSE}"));
            assert_eq!(check(&in_place, &kind), Ok(Form::InPlace), "{in_place}");
        }
    }
}

#[test]
fn xmlsec1_opens_what_we_encrypt_and_we_open_what_it_encrypts() {
    if !tools::has("xmlsec1") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let secret = Secret::new((0..32).collect::<Vec<u8>>());
    let key = folder.path().join("key");
    fs::write(&key, secret.expose()).unwrap();
    let option = ["--aeskey", key.to_str().unwrap()];
    let plain = Secret::new(b"<k xmlns=\"urn:k\">secret</k>".to_vec());
    let policy = EncryptionPolicy { cbc: true };
    for cipher in [Cipher::Aes256Gcm, Cipher::Aes256Cbc] {
        for wrap in [false, true] {
            let sealed = EncryptedData::seal(&plain, &secret, cipher, wrap, None).unwrap();
            let text = sealed.to_element().to_xml();
            let opened =
                xmlsec1(folder.path(), &["--decrypt", option[0], option[1]], &text).unwrap();
            assert!(opened.contains("<k xmlns=\"urn:k\">secret</k>"), "{opened}");
        }
        let template = folder.path().join("template.xml");
        let text = format!(
            "<EncryptedData xmlns=\"http://www.w3.org/2001/04/xmlenc#\" \
             Type=\"http://www.w3.org/2001/04/xmlenc#Element\"><EncryptionMethod Algorithm=\"{}\"/>\
             <CipherData><CipherValue/></CipherData></EncryptedData>",
            cipher.uri()
        );
        fs::write(&template, text).unwrap();
        let data = folder.path().join("plain.xml");
        fs::write(&data, plain.expose()).unwrap();
        let (data, template) = (data.to_str().unwrap(), template.to_str().unwrap());
        let out = folder.path().join("sealed.xml");
        let out_text = out.to_str().unwrap();
        let command =
            ["--encrypt", option[0], option[1], "--xml-data", data, "--output", out_text, template];
        tools::run("xmlsec1", &command).unwrap();
        let document = Document::parse(&fs::read(&out).unwrap(), &Limits::MESSAGE).unwrap();
        let opened = EncryptedData::read(document.root()).unwrap().open(&secret, policy).unwrap();
        assert_eq!(
            String::from_utf8_lossy(opened.expose()).trim(),
            "<k xmlns=\"urn:k\">secret</k>"
        );
    }
}
