//! What takes longer, and what takes more than one person: orders that wait for an operator, and
//! keys that are given back.

use xkms::{
    client::sign_order,
    dsig::{Curve, SigningKey},
    message::*,
    soap::Version,
    xenc::{EncryptionPolicy, RsaKeyPair},
};

use crate::{
    checks::Checks,
    server::{Server, named, result, secret},
    world::run,
};

/// Pending and Status: an order that an operator must approve.
pub fn approved(server: &Server<'_>, checks: &mut Checks) {
    if let Err(said) = server.restart_with("[keeper]\napproval = \"operator\"\n") {
        checks.check("the service starts with `approval = \"operator\"`", false, said);
        return;
    }
    let Ok(phrase) = server.pass_phrase("waiting") else { return };
    let key = SigningKey::generate_ec(Curve::P256).expect("a key");
    let hasty = server.ask(server.register("waiting", &phrase, Some(&key)));
    checks.check(
        "a client that cannot wait: NotSynchronous",
        result(&hasty) == "Receiver NotSynchronous",
        result(&hasty),
    );
    let client = server.client(Version::V11, None);
    let request = server.register("waiting", &phrase, Some(&key));
    let waits = server.put_off(checks, "a client that can wait: Pending", &client, request);
    let Some(mut exchange) = waits else { return };
    server.is_pending(checks, "Status: one order is pending", &exchange);
    let early = server.poll(&mut exchange);
    checks.check("Pending, asked too early: it still waits", early.is_none(), "");
    let orders = server.world.vouchsafe(&["key", "list"]).json();
    let order = orders["orders"][0]["order"].as_str().unwrap_or_default().to_owned();
    let said = server.world.vouchsafe(&["key", "approve", &order, "--operator", "alice"]);
    checks.check("`vouchsafe key approve` decides it", said.code == 0, said.complaint());
    server.carried_out(checks, "Pending, asked again: the registration", &mut exchange);
}

/// A key that the service makes, keeps, and gives back once two operators agree.
pub fn recovered(server: &Server<'_>, checks: &mut Checks) {
    let recover = |name: &str, phrase: &str| {
        let binding = Binding { id: Some("B1".to_owned()), ..named(name) };
        let binding = KeyBinding { binding, validity: None, status: Status::unknown() };
        let mut body = RequestBody::Recover { binding, authentication: Authentication::default() };
        let mac = SigningKey::mac(&secret(phrase).authentication_key());
        sign_order(&mut body, &mac, None).expect("a signature");
        server.ask(Request { head: server.head(), body })
    };
    let off = recover("escrowed", "not-a-pass-phrase");
    let refused = matches!(&off, Ok(answer) if answer.head.major != Major::Success);
    checks.check("Recover where nothing is in escrow is refused", refused, result(&off));
    if let Err(said) = server.restart_with("[keeper]\ngenerate_keys = true\nescrow = true\n") {
        checks.check("the service starts with `escrow = true`", false, said);
        return;
    }
    let Ok(phrase) = server.pass_phrase("escrowed") else { return };
    let answer = server.ask(server.register("escrowed", &phrase, None));
    let made = private_key(&answer, &phrase);
    checks.check(
        "Register without a key: the service makes one, and delivers it under the phrase",
        made.is_some(),
        result(&answer),
    );
    let (id, fits) = fits(server, &answer, made.as_ref());
    checks.check("it is the key of the certificate (openssl)", fits, "");
    let wrong = recover("escrowed", &phrase);
    checks.check(
        "Recover with the old pass phrase is refused",
        result(&wrong) == "Sender NoAuthentication",
        result(&wrong),
    );
    let approve =
        |who: &str| server.world.vouchsafe(&["key", "approve-recovery", &id, "--operator", who]);
    let first = approve("alice");
    checks.check(
        "one operator is not enough",
        first.json()["pass_phrase"].is_null() && first.code == 0,
        first.stdout,
    );
    let again = approve("alice");
    checks.check("nor is the same one twice", again.code == 3, again.refusal());
    let second = approve("bob").json();
    let once = second["pass_phrase"].as_str().unwrap_or_default().to_owned();
    checks.check("the second operator gets a recovery phrase", !once.is_empty(), "");
    if once.is_empty() {
        return;
    }
    let answer = recover("escrowed", &once);
    let back = private_key(&answer, &once);
    let same = back.is_some() && pkcs1(back.as_ref()) == pkcs1(made.as_ref());
    checks.check("Recover gives the same private key back", same, result(&answer));
    let twice = recover("escrowed", &once);
    let refused = matches!(&twice, Ok(answer) if answer.head.major != Major::Success);
    checks.check("and only once", refused, result(&twice));
    let body = RequestBody::Validate(QueryKeyBinding { binding: named("escrowed"), time: None });
    let answer = server.ask(Request { head: server.head(), body });
    let revoked = matches!(&answer, Ok(Answer { body: AnswerBody::Validate(found), .. })
        if found.iter().all(|found| found.status.value == StatusValue::Invalid));
    checks.check("a key that was given back is revoked", revoked, result(&answer));
}

pub fn private_key(answer: &Result<Answer, String>, phrase: &str) -> Option<RsaKeyPair> {
    let data = match answer {
        Ok(Answer {
            body: AnswerBody::Register(_, data) | AnswerBody::Recover(_, data), ..
        }) => data.as_ref()?,
        _ => return None,
    };
    let plain = data.open(&secret(phrase).private_key_key(32), EncryptionPolicy::default()).ok()?;
    RsaKeyPair::from_xml(&plain).ok()
}

pub fn pkcs1(key: Option<&RsaKeyPair>) -> Option<Vec<u8>> {
    key.map(|key| key.to_pkcs1().expose().clone())
}

/// The binding's id, and whether the delivered key is that of the certificate.
fn fits(
    server: &Server<'_>,
    answer: &Result<Answer, String>,
    key: Option<&RsaKeyPair>,
) -> (String, bool) {
    let Ok(Answer { body: AnswerBody::Register(found, _), .. }) = answer else {
        return (String::new(), false);
    };
    let Some(found) = found.first() else { return (String::new(), false) };
    let id = found.binding.id.clone().unwrap_or_default();
    let der = found.binding.key_info.as_ref().and_then(|info| info.certificates().next());
    let certificate = der.map(|der| server.put_certificate("escrowed", der)).unwrap_or_default();
    let private = server.put("escrowed.der", pkcs1(key).unwrap_or_default());
    let public = run("openssl", &["x509", "-in", &certificate, "-noout", "-pubkey"]).stdout;
    let ours = run("openssl", &["rsa", "-inform", "DER", "-in", &private, "-pubout"]).stdout;
    (id, !public.is_empty() && public == ours)
}
