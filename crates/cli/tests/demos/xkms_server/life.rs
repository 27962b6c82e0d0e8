//! The life of a key, over our own client: registered, found, judged, renewed, revoked.

use xkms::{
    client::sign_order,
    dsig::{Curve, Signer, SigningKey},
    message::*,
    soap::Version,
};

use crate::{
    checks::Checks,
    server::{Ended, Server, about, named, result, secret},
    world::run,
};

/// A key that was registered.
pub struct Registered {
    pub name: String,
    pub phrase: String,
    pub key: SigningKey,
    /// Its certificate, a PEM file.
    pub certificate: String,
}

/// Registers a new key as `name`, and checks what came.
pub fn register(
    server: &Server<'_>,
    checks: &mut Checks,
    name: &str,
    two: bool,
) -> Option<Registered> {
    let phrase = match server.pass_phrase(name) {
        Ok(phrase) => phrase,
        Err(said) => {
            checks.check("`vouchsafe key authorize` prints a pass phrase", false, said);
            return None;
        }
    };
    let key = SigningKey::generate_ec(Curve::P256).expect("a key");
    let mut request = server.register(name, &phrase, Some(&key));
    if two {
        request.head.mechanisms = vec![Mechanism::Represent];
    }
    request.head.opaque = Some(vec![b"ours".to_vec()]);
    let answer = server.ask(request);
    let phases = if two { "two phases" } else { "one phase" };
    let Ok(Answer { body: AnswerBody::Register(found, _), .. }) = &answer else {
        checks.check(&format!("Register in {phases}"), false, result(&answer));
        return None;
    };
    let der =
        found.first().and_then(|found| found.binding.key_info.as_ref()?.certificates().next());
    let certificate = der.map(|der| server.put_certificate(name, der)).unwrap_or_default();
    let verified = server.openssl_verify(&certificate, &[]);
    checks.check(&format!("Register in {phases}"), found.len() == 1, result(&answer));
    let said = verified.err().unwrap_or_default();
    checks.check("its certificate verifies with openssl to xkms_ca_file", said.is_empty(), said);
    Some(Registered { name: name.to_owned(), phrase, key, certificate })
}

/// Locate and Validate of what is there and what is not.
pub fn questions(server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    let ask = |binding: Binding, respond_with| {
        let head = RequestHead { respond_with, ..server.head() };
        let query = QueryKeyBinding { binding, time: None };
        server.ask(Request { head, body: RequestBody::Locate(query) })
    };
    let answer = ask(named("nobody-has-this-name"), vec![]);
    checks.check(
        "Locate of what is not there: NoMatch",
        result(&answer) == "Success NoMatch",
        result(&answer),
    );
    let subject = X509Item::SubjectName(format!("CN={}", known.name));
    let key_info = Some(KeyInfo { items: vec![KeyInfoItem::X509(vec![subject])] });
    let answer = ask(Binding { key_info, ..Binding::default() }, vec![]);
    checks.check(
        "Locate by a subject alone, which finds nothing here: OptionalElementNotSupported",
        result(&answer) == "Receiver OptionalElementNotSupported",
        result(&answer),
    );
    let answer = ask(named(&known.name), vec![RespondWith::KeyValue, RespondWith::X509Chain]);
    let good = match &answer {
        Ok(Answer { body: AnswerBody::Locate(found), .. }) => found.iter().any(|found| {
            let info = found.binding.key_info.as_ref();
            info.and_then(KeyInfo::key_value) == known.key.public_key().as_ref()
                && info.is_some_and(|info| info.certificates().count() == 2)
                && info.and_then(KeyInfo::key_name).is_none()
        }),
        _ => false,
    };
    checks.check("Locate by name gives key and chain, as RespondWith asked", good, result(&answer));
    let status = server.status_of(&known.key);
    let valid =
        status.as_ref().is_some_and(|s| s.value == StatusValue::Valid && s.valid.len() == 4);
    checks.check(
        "Validate: Valid, on four reasons that were checked",
        valid,
        format!("{status:?}"),
    );
    let early = QueryKeyBinding {
        binding: named(&known.name),
        time: Some(time::OffsetDateTime::now_utc() + time::Duration::days(40_000)),
    };
    let answer = server.ask(Request { head: server.head(), body: RequestBody::Validate(early) });
    let not_valid = match &answer {
        Ok(Answer { body: AnswerBody::Validate(found), .. }) => {
            found.iter().all(|found| found.status.value != StatusValue::Valid)
        }
        _ => false,
    };
    checks.check(
        "Validate for an instant long after its end: not Valid",
        not_valid,
        result(&answer),
    );
}

/// Every envelope that the protocol has.
pub fn envelopes(server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    let ended = [Version::Bare, Version::V11, Version::V12].map(|version| {
        let body = RequestBody::Locate(QueryKeyBinding { binding: named(&known.name), time: None });
        let client = server.client(version, Some(&known.key));
        let mut head = server.head();
        head.mechanisms = vec![Mechanism::RequestSignatureValue];
        match server.run(&client, Request { head, body }) {
            Ok(Ended::Done(answer)) => {
                format!("{:?}", (answer.head.major, answer.head.request_signature.is_some()))
            }
            Ok(Ended::Waits(_)) => "waits".to_owned(),
            Err(error) => error.to_string(),
        }
    });
    let good = ended.iter().all(|said| said == "(Success, true)");
    checks.check(
        "signed requests bare, in SOAP 1.1 and 1.2; their signature comes back",
        good,
        ended.join(", "),
    );
}

/// A compound of which one part fails.
pub fn compound(server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    let query = |name: &str| QueryKeyBinding { binding: named(name), time: None };
    let stranger = SigningKey::generate_ec(Curve::P256).expect("a key");
    let all = vec![
        Request { head: server.head(), body: RequestBody::Locate(query(&known.name)) },
        server.register("stranger", "not-a-pass-phrase", Some(&stranger)),
        Request { head: server.head(), body: RequestBody::Validate(query(&known.name)) },
    ];
    let answer = server.ask(Request { head: server.head(), body: RequestBody::Compound(all) });
    let majors: Vec<String> = match &answer {
        Ok(Answer { body: AnswerBody::Compound(parts), .. }) => {
            parts.iter().map(|part| format!("{:?}", part.head.major)).collect()
        }
        _ => Vec::new(),
    };
    let seen = if majors.is_empty() { result(&answer) } else { majors.join(" ") };
    checks.check(
        "a compound of which one part fails: the others are done",
        seen == "Success Sender Success",
        seen,
    );
}

/// Reissue by the key's own signature.
pub fn reissue(server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    let mut body = RequestBody::Reissue {
        binding: about(&known.name, &known.key),
        authentication: Authentication::default(),
        possession: None,
    };
    sign_order(&mut body, &known.key, Some(&known.key)).expect("a signature");
    let answer = server.ask(Request { head: server.head(), body });
    let Ok(Answer { body: AnswerBody::Reissue(found), .. }) = &answer else {
        checks.check("Reissue, signed by the key itself", false, result(&answer));
        return;
    };
    let der =
        found.first().and_then(|found| found.binding.key_info.as_ref()?.certificates().next());
    let fresh = der.map(|der| server.put_certificate("reissued", der)).unwrap_or_default();
    let verified = server.openssl_verify(&fresh, &[]);
    let serial = |file: &str| run("openssl", &["x509", "-in", file, "-noout", "-serial"]).stdout;
    let other = serial(&fresh) != serial(&known.certificate);
    checks.check(
        "Reissue, signed by the key itself: another serial, and it verifies",
        verified.is_ok() && other,
        serial(&fresh),
    );
}

/// Revoke by a wrong code, by the right one, and by signature.
pub fn revoke(server: &Server<'_>, checks: &mut Checks, known: &Registered, other: &Registered) {
    let order = |code: Vec<u8>| {
        let binding = about(&known.name, &known.key);
        let body = RequestBody::Revoke { binding, proof: RevokeProof::Code(code) };
        server.ask(Request { head: server.head(), body })
    };
    let answer = order(vec![7; 20]);
    checks.check(
        "Revoke with a wrong code is refused",
        result(&answer) == "Sender NoAuthentication",
        result(&answer),
    );
    let before = openssl_status(server, &known.certificate);
    checks.check("openssl's OCSP client: good", before.contains(": good"), before);
    let answer = order(secret(&known.phrase).revocation_code().expose().clone());
    checks.check(
        "Revoke with the code from the pass phrase",
        result(&answer) == "Success",
        result(&answer),
    );
    revoked(server, checks, known);
    let mut body = RequestBody::Revoke {
        binding: about(&other.name, &other.key),
        proof: RevokeProof::Authentication(Authentication::default()),
    };
    sign_order(&mut body, &other.key, None).expect("a signature");
    let answer = server.ask(Request { head: server.head(), body });
    checks.check("Revoke, signed by the key itself", result(&answer) == "Success", result(&answer));
}

/// How all see a key that was revoked.
pub fn revoked(server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    let status = server.status_of(&known.key);
    let bad = status.as_ref().is_some_and(|s| s.invalid.contains(&Reason::RevocationStatus));
    checks.check("Validate: Invalid for its RevocationStatus", bad, format!("{status:?}"));
    let said = openssl_status(server, &known.certificate);
    checks.check("openssl's OCSP client: revoked", said.contains(": revoked"), said);
    let crl = server.file("crl.pem");
    let url = format!("{}/crl.der", server.base());
    let der = server.file("crl.der");
    run("curl", &["-sf", "-o", der.to_str().expect("a path"), &url]);
    let (crl, der) = (crl.to_str().expect("a path"), der.to_str().expect("a path"));
    run("openssl", &["crl", "-inform", "DER", "-in", der, "-out", crl]);
    let said = server.openssl_verify(&known.certificate, &["-crl_check", "-CRLfile", crl]);
    let refused = said.as_ref().is_err_and(|said| said.contains("certificate revoked"));
    checks.check(
        "openssl verify -crl_check with our CRL: revoked",
        refused,
        said.err().unwrap_or_default(),
    );
}

/// What openssl's OCSP client learns of a certificate.
pub fn openssl_status(server: &Server<'_>, certificate: &str) -> String {
    let ca = server.ca.to_str().expect("a plain path");
    let url = format!("{}/ocsp", server.base());
    let arguments = ["ocsp", "-issuer", ca, "-cert", certificate, "-url", &url, "-CAfile", ca];
    let said = run("openssl", &arguments);
    let verified = said.stderr.contains("Response verify OK");
    let line = said.stdout.lines().find(|line| line.starts_with(certificate)).unwrap_or_default();
    if verified { line.to_owned() } else { format!("{} {}", said.stdout, said.stderr) }
}
