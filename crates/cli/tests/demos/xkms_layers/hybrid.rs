//! Where answers come from: the library, the centre, or the centre a moment ago.

use model::keys::{Anchor, Knowledge};
use xkms::{client::sign_order, dsig::Signer, message::*};

use crate::{
    checks::Checks,
    server::{Server, about, result},
    world::{PATIENCE, World, eventually},
    xkms_server::life::Registered,
};

/// What the service knows of a certificate: its status, and what that rests on.
pub fn validate(server: &Server<'_>, certificate: &str) -> Option<(StatusValue, Knowledge)> {
    let der = serve::pem::read_certificates(certificate.as_ref()).ok()?.into_iter().next()?;
    let items = vec![KeyInfoItem::X509(vec![X509Item::Certificate(der)])];
    let binding = Binding { key_info: Some(KeyInfo { items }), ..Binding::default() };
    let body = RequestBody::Validate(QueryKeyBinding { binding, time: None });
    let head = RequestHead { wants_knowledge: true, ..server.head() };
    let answer = server.ask(Request { head, body }).ok()?;
    let AnswerBody::Validate(found) = answer.body else { return None };
    Some((found.into_iter().next()?.status.value, answer.head.knowledge?))
}

fn said(seen: &Option<(StatusValue, Knowledge)>) -> String {
    match seen {
        Some((status, Knowledge { anchor, pki_calls, as_of })) => {
            format!("{status:?}, anchor {anchor:?}, {pki_calls} calls to the PKI, as of {as_of}")
        }
        None => "no answer".to_owned(),
    }
}

/// Mode 1 and mode 2, for clients without a VM.
pub fn modes(a: &Server<'_>, checks: &mut Checks, own: &Registered, other: &Registered) {
    let seen = validate(a, &own.certificate);
    let good = matches!(&seen, Some((StatusValue::Valid, k))
        if k.anchor == Anchor::TrustService && k.pki_calls == 0);
    checks.check("asked where it was registered: anchor trust-service, no call", good, said(&seen));
    let seen = validate(a, &other.certificate);
    let good = matches!(&seen, Some((StatusValue::Valid, k))
        if matches!(k.anchor, Anchor::Ca(_)) && k.pki_calls == 1);
    checks.check("asked at the other server: anchor is the CA, one call", good, said(&seen));
    let seen = validate(a, &other.certificate);
    let good = matches!(&seen, Some((StatusValue::Valid, k)) if k.pki_calls == 0);
    checks.check("asked again: no call", good, said(&seen));
    let query = serde_json::json!({"binding": {"name": own.name}, "limit": 1});
    let (status, body) = a.post_json("/v1/keys/validate", &query);
    let anchor = body["knowledge"]["anchor"].as_str().unwrap_or_default().to_owned();
    let good = status == 200 && anchor == "trust-service";
    checks.check("the JSON answer says it too", good, &body["knowledge"]);
    let counts = standing(a);
    let forwarded = counts["forwarded"].as_u64().unwrap_or(0);
    let cached = counts["cached"].as_u64().unwrap_or(0);
    checks.check("`vouchsafe key status` counts them", forwarded >= 1 && cached >= 1, counts);
}

/// How the service stands with the centre.
pub fn standing(server: &Server<'_>) -> serde_json::Value {
    let said = server.world.vouchsafe(&["key", "status", "--host", &server.host]);
    said.json()["centre"].clone()
}

/// A revocation is everywhere.
pub fn revoked(a: &Server<'_>, b: &Server<'_>, checks: &mut Checks, gone: &Registered) {
    let before = validate(b, &gone.certificate);
    let was = matches!(&before, Some((StatusValue::Valid, _)));
    checks.check("the other server takes the key for Valid", was, said(&before));
    let mut body = RequestBody::Revoke {
        binding: about(&gone.name, &gone.key),
        proof: RevokeProof::Authentication(Authentication::default()),
    };
    sign_order(&mut body, &gone.key as &dyn Signer, None).expect("a signature");
    let answer = a.ask(Request { head: a.head(), body });
    let done = result(&answer).starts_with("Success");
    checks.check("Revoke, by the key itself", done, result(&answer));
    let seen = validate(a, &gone.certificate);
    let ended = matches!(&seen, Some((StatusValue::Invalid, _)));
    checks.check("Validate there: Invalid", ended, said(&seen));
    let seen = eventually(PATIENCE, || {
        validate(b, &gone.certificate).filter(|(status, _)| *status == StatusValue::Invalid)
    });
    checks.check("Validate at the other server: Invalid", seen.is_some(), said(&seen));
}

/// Both trust services hand out the centre's CA, and have none of their own.
pub fn one_pki(world: &World, a: &Server<'_>, b: &Server<'_>, checks: &mut Checks) {
    let read = |path: &std::path::Path| serve::pem::read_certificates(path).unwrap_or_default();
    let centre = read(&world.path("centre/state/ca-own.pem"));
    let same = !centre.is_empty() && read(&a.ca) == centre && read(&b.ca) == centre;
    checks.check("the only CA is the centre's", same, "");
}

/// What needs a CA or makes keys is refused.
pub fn nothing_made_here(server: &Server<'_>, checks: &mut Checks) {
    let Ok(phrase) = server.pass_phrase("made-here") else { return };
    let answer = server.ask(server.register("made-here", &phrase, None));
    let refused = matches!(&answer, Ok(answer) if answer.head.major != Major::Success);
    checks.check("Register without a key is refused", refused, result(&answer));
    let (status, _) = server.post("/ocsp", b"anything");
    checks.check("it answers no OCSP request", status != 200, status);
}
