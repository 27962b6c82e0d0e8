//! The service as others' tools see it: `curl`, `xmlsec1`, `openssl`, and a SOAP client that knows
//! the WSDL only.

use std::fs;

use xkms::{
    dsig::PublicKey,
    message::KeyInfo,
    xml::{Document, Limits},
};

use super::life::Registered;
use crate::{
    checks::Checks,
    server::{Server, secret},
    world::{Said, run},
};

const XKMS: &str = "http://www.w3.org/2002/03/xkms#";
const DS: &str = "http://www.w3.org/2000/09/xmldsig#";
const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";

/// What is published, by `curl`.
pub fn published(server: &Server<'_>, checks: &mut Checks) {
    let get = |path: &str| run("curl", &["-s", &format!("{}{path}", server.base())]);
    let wsdl = server.put("service.wsdl", get("/xkms?wsdl").stdout);
    let said = run("xmllint", &["--noout", &wsdl]);
    checks.check("GET /xkms?wsdl: a WSDL that xmllint reads", said.code == 0, said.complaint());
    let pem = server.put("published-ca.pem", get("/ca.pem").stdout);
    let ours = fs::read_to_string(&server.ca).unwrap_or_default();
    let same = run("openssl", &["x509", "-in", &pem, "-noout", "-fingerprint"]).stdout
        == run(
            "openssl",
            &["x509", "-in", server.ca.to_str().expect("a path"), "-noout", "-fingerprint"],
        )
        .stdout;
    checks.check("GET /ca.pem is xkms_ca_file", same && !ours.is_empty(), "");
    let delta = server.file("delta.crl");
    let delta = delta.to_str().expect("a path");
    run("curl", &["-sf", "-o", delta, &format!("{}/delta.crl", server.base())]);
    let said = run("openssl", &["crl", "-inform", "DER", "-in", delta, "-noout", "-text"]);
    let is_delta = said.stdout.contains("Delta CRL Indicator");
    checks.check("GET /delta.crl: openssl reads a delta CRL", is_delta, said.stderr);
}

fn template(place: &str, algorithm: &str) -> String {
    format!(
        "<{place}><Signature xmlns=\"{DS}\"><SignedInfo>\
         <CanonicalizationMethod Algorithm=\"{EXCLUSIVE}\"/>\
         <SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#{algorithm}\"/>\
         <Reference URI=\"#proto\"><Transforms><Transform Algorithm=\"{EXCLUSIVE}\"/></Transforms>\
         <DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"/><DigestValue/>\
         </Reference></SignedInfo><SignatureValue/></Signature></{place}>"
    )
}

/// Signs one of the signatures in a document with `xmlsec1`.
fn sign(place: &str, key: [&str; 2], from: &str, to: &str) -> Said {
    let node = format!("//*[local-name()='{place}']/*[local-name()='Signature']");
    let id = format!("{XKMS}:PrototypeKeyBinding");
    let arguments = [
        "--sign",
        key[0],
        key[1],
        "--node-xpath",
        &node,
        "--id-attr:Id",
        &id,
        "--output",
        to,
        from,
    ];
    run("xmlsec1", &arguments)
}

/// Verifies the answer in a file with `xmlsec1`, to the CA.
fn verified(server: &Server<'_>, file: &str, kind: &str) -> Said {
    let id = format!("{XKMS}:{kind}");
    let ca = server.ca.to_str().expect("a path");
    run("xmlsec1", &["--verify", "--id-attr:Id", &id, "--trusted-pem", ca, file])
}

/// Registers an RSA key without any of our code for signatures or derived keys.
pub fn register(server: &Server<'_>, checks: &mut Checks, name: &str) {
    let Ok(phrase) = server.pass_phrase(name) else { return };
    let path = |name: &str| server.file(name).to_str().expect("a path").to_owned();
    let (key, public, mac) = (path("rsa.pem"), path("rsa.der"), path("mac.key"));
    run("openssl", &["genpkey", "-algorithm", "RSA", "-out", &key]);
    run("openssl", &["pkey", "-in", &key, "-pubout", "-outform", "DER", "-out", &public]);
    // The authentication key of XKMS: HMAC-SHA-1 of the phrase under the octet 1.
    let phrase = server.put("phrase", &phrase);
    run(
        "openssl",
        &[
            "dgst",
            "-sha1",
            "-mac",
            "HMAC",
            "-macopt",
            "hexkey:01",
            "-binary",
            "-out",
            &mac,
            &phrase,
        ],
    );
    let spki = PublicKey::from_spki(&fs::read(&public).unwrap_or_default());
    let mut info = KeyInfo::named(name);
    info.items.extend(spki.map(xkms::message::KeyInfoItem::KeyValue));
    let text = format!(
        "<RegisterRequest xmlns=\"{XKMS}\" Id=\"{}\" Service=\"{}\">\
         <PrototypeKeyBinding Id=\"proto\">{}<KeyUsage>{XKMS}Signature</KeyUsage></PrototypeKeyBinding>\
         <Authentication>{}</Authentication>{}</RegisterRequest>",
        server.id(),
        server.url,
        info.to_element().to_xml(),
        template("KeyBindingAuthentication", "hmac-sha256"),
        template("ProofOfPossession", "rsa-sha256"),
    );
    let (plain, half, whole) =
        (server.put("register.xml", text), path("half.xml"), path("signed.xml"));
    let said = [
        sign("KeyBindingAuthentication", ["--hmackey", &mac], &plain, &half),
        sign("ProofOfPossession", ["--privkey-pem", &key], &half, &whole),
    ];
    let complaint = said.iter().map(Said::complaint).collect::<String>();
    checks.check("xmlsec1 signs a registration", complaint.is_empty(), complaint);
    answered(server, checks, name, &whole);
}

/// Posts the signed registration, and looks at what came.
fn answered(server: &Server<'_>, checks: &mut Checks, name: &str, whole: &str) {
    let answer = server.file("answer.xml").to_str().expect("a path").to_owned();
    let from = format!("@{whole}");
    run(
        "curl",
        &["-s", "-o", &answer, "-H", "content-type: text/xml", "--data-binary", &from, &server.url],
    );
    let text = fs::read_to_string(&answer).unwrap_or_default();
    checks.check(
        "curl posts it: Success",
        text.contains("ResultMajor=\"http://www.w3.org/2002/03/xkms#Success\""),
        major(&text),
    );
    let said = verified(server, &answer, "RegisterResult");
    checks.check("xmlsec1 verifies the answer to xkms_ca_file", said.code == 0, said.complaint());
    let forged = server.put("forged.xml", text.replacen("#Success", "#Sender", 1));
    let said = verified(server, &forged, "RegisterResult");
    checks.check("and not one that was changed", said.code != 0, "");
    let certificate = certificate_in(&text).map(|der| server.put_certificate(name, &der));
    let verified = server.openssl_verify(&certificate.unwrap_or_default(), &[]);
    checks.check(
        "the certificate in it verifies with openssl",
        verified.is_ok(),
        verified.err().unwrap_or_default(),
    );
}

fn major(text: &str) -> String {
    text.split_whitespace().filter(|word| word.starts_with("Result")).collect::<Vec<_>>().join(" ")
}

/// The certificate of the binding in an answer: the second, after that of the answer's signature.
fn certificate_in(text: &str) -> Option<Vec<u8>> {
    let document = Document::parse(text.as_bytes(), &Limits::MESSAGE).ok()?;
    let binding = document.root().children().find(|child| child.is(XKMS, "KeyBinding"))?;
    let info = binding.children().find(|child| child.is(DS, "KeyInfo"))?;
    KeyInfo::read(info).ok()?.certificates().next().map(<[u8]>::to_vec)
}

/// A SOAP client that has the WSDL and nothing else. It asks about one key, and ends another one, whose
/// revocation code it is told: an order that needs no signature.
pub fn stock_client(server: &Server<'_>, checks: &mut Checks, name: &str, ended: &Registered) {
    let python = "/usr/bin/python3";
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/demos/xkms_server/soap_client.py");
    let wsdl = format!("{}?wsdl", server.url);
    let code = server.put("revocation-code", secret(&ended.phrase).revocation_code().expose());
    let expected = [
        "Locate Success",
        "Validate Success",
        "Register Sender",
        "Reissue Sender",
        "Revoke Sender NoAuthentication",
        "Recover",
        "Compound Success",
        "Pending Sender UnknownResponseId",
        "Status Sender UnknownResponseId",
        "Revoke Success",
    ];
    if run(python, &["-c", "import zeep"]).code != 0 {
        let count = u32::try_from(expected.len()).unwrap_or(u32::MAX);
        checks.skipped(count, "python3-zeep is not installed");
        return;
    }
    let said = run(python, &[script, &wsdl, &server.url, name, &ended.name, &code]);
    let lines: Vec<&str> = said.stdout.lines().map(str::trim).collect();
    for (number, expected) in expected.iter().enumerate() {
        let line = lines.get(number).copied().unwrap_or_default();
        let seen = if line.is_empty() { said.complaint() } else { line.to_owned() };
        let what = format!("zeep, from the WSDL alone: {expected}");
        checks.check(&what, line.starts_with(expected), seen);
    }
}

/// The JSON interface, by `curl`.
pub fn json(server: &Server<'_>, checks: &mut Checks, name: &str) {
    let ask = |path: &str, body: &str| {
        let url = format!("{}{path}", server.base());
        run("curl", &["-s", "-H", "content-type: application/json", "-d", body, &url])
    };
    let query = format!("{{\"binding\":{{\"name\":\"{name}\"}},\"limit\":5}}");
    let found = ask("/v1/keys/validate", &query).json();
    let status = found["bindings"][0]["status"]["value"].as_str().unwrap_or_default().to_owned();
    checks.check("JSON: validate says what Validate says", status == "valid", status);
    let found = ask("/v1/keys/locate", &query).json();
    let vouched =
        found["bindings"][0]["status"].is_null() && found["bindings"][0]["key"].is_string();
    checks.check("JSON: locate vouches for nothing", vouched, "");
    let refused = ask("/v1/keys/validate", "{\"bidning\":{}}").json();
    let name = refused["name"].as_str().unwrap_or_default().to_owned();
    checks.check("JSON: an unknown field is refused", name == "request-invalid", name);
    let document = run("curl", &["-s", &format!("{}/v1/openapi.json", server.base())]);
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/trust.json");
    let same = fs::read_to_string(committed).unwrap_or_default() == document.stdout;
    checks.check("its OpenAPI document is the committed one", same, "");
}
