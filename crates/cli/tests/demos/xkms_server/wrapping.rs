//! Signatures that were moved away from what they sign, posted to the running server: each is refused
//! by its name, and is one line in the audit log. All shapes are in `xkms/tests/it/wrapping.rs`.

use xkms::{
    dsig::{Signer as _, sign_enveloped},
    message::*,
    soap,
    xml::{Document, Limits},
};

use super::life::Registered;
use crate::{
    checks::Checks,
    server::{Server, named, result},
};

/// Each attempt is one line in the audit log, by this name.
pub const PROVOKED: &[&str] = &[
    "signature-object",
    "signature-reference-elsewhere",
    "signature-reference-external",
    "signature-reference-unresolved",
    "signature-transform-xslt",
    "soap-body",
    "soap-structure",
    "xml-id-twice",
];

const END: &str = "</ds:Signature>";

fn envelope(header: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\">\
         <s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

/// A question that a registered key signed, and the same without the signature.
struct Original {
    id: String,
    bare: String,
    whole: String,
    signature: String,
}

fn original(server: &Server<'_>, known: &Registered) -> Option<Original> {
    let query = QueryKeyBinding { binding: named(&known.name), time: None };
    let head = server.head();
    let id = head.id.clone();
    let mut element = Request { head, body: RequestBody::Locate(query) }.to_element();
    let bare = element.to_xml();
    let info = KeyInfo::key(known.key.public_key()?).to_element();
    sign_enveloped(&mut element, &known.key, Some(info)).ok()?;
    let whole = element.to_xml();
    let (_, rest) = whole.split_once("<ds:Signature")?;
    let (inner, _) = rest.split_once(END)?;
    let signature = format!("<ds:Signature{inner}{END}");
    Some(Original { id, bare, whole, signature })
}

/// Moves the signature in every way that the server can be shown, and sees each refused.
pub fn wrapping(server: &Server<'_>, checks: &mut Checks, known: &Registered) {
    let Some(good) = original(server, known) else {
        checks.check("a question is signed by a registered key", false, "");
        return;
    };
    let answer = ask(server, &good.whole);
    checks.check("a question that a registered key signed", answer == "Success", answer);
    for (shape, text, expected) in shapes(server, &good) {
        let seen = ask(server, &text);
        checks.check(&format!("{shape} is refused"), seen == expected, seen);
    }
}

/// A shape, its text, and what comes of it.
type Shape = (&'static str, String, &'static str);

fn shapes(server: &Server<'_>, good: &Original) -> Vec<Shape> {
    const FAULT: &str = "fault";
    const NO: &str = "Sender NoAuthentication";
    let Original { id, bare, whole, signature } = good;
    let forged = |id: &str, inside: &str| {
        format!(
            "<LocateRequest xmlns=\"http://www.w3.org/2002/03/xkms#\" Id=\"{id}\" Service=\"{}\">\
             {inside}<QueryKeyBinding></QueryKeyBinding></LocateRequest>",
            server.url
        )
    };
    let evil = forged("evil", signature);
    let object = signature.replace(END, &format!("<ds:Object>{bare}</ds:Object>{END}"));
    let transform = "<ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"></ds:Transform>";
    let xslt = "<ds:Transform Algorithm=\"http://www.w3.org/TR/1999/REC-xslt-19991116\"/>";
    vec![
        ("the original in a header, its signature in a forgery", envelope(bare, &evil), NO),
        ("the original in an object of the signature", forged("evil", &object), NO),
        ("a signature without what it signs", evil.clone(), NO),
        ("a reference to the whole document", whole.replace(&format!("\"#{id}\""), "\"\""), NO),
        ("a transform by XSLT", whole.replace(transform, &format!("{transform}{xslt}")), NO),
        (
            "the original beside a forgery in the body",
            envelope("", &format!("{evil}{bare}")),
            FAULT,
        ),
        (
            "a forgery in a body of its own before the original's",
            envelope("", whole)
                .replace("<s:Body>", &format!("<s:Body>{}</s:Body><s:Body>", forged("evil", ""))),
            FAULT,
        ),
        ("one Id on two elements", envelope(bare, &forged(id, signature)), FAULT),
    ]
}

/// What comes of a document as it stands: a SOAP fault, or the result.
fn ask(server: &Server<'_>, text: &str) -> String {
    let (status, body) = server.post("/xkms", text.as_bytes());
    if status == 500 {
        return "fault".to_owned();
    }
    let read = || -> Result<Answer, String> {
        let document =
            Document::parse(&body, &Limits::MESSAGE).map_err(|error| error.to_string())?;
        let message = soap::open(&document).1.map_err(|error| error.to_string())?;
        Answer::read(message).map_err(|error| error.to_string())
    };
    result(&read())
}
