//! Signatures that were moved away from what they sign, and every other way to have one element
//! verified and another one processed. Each is refused by its name.

use xkms::{
    dsig::{
        Curve, Place, SignaturePolicy, SignedElement, Signer, SigningKey, VerifyingKey,
        sign_enveloped, verify,
    },
    message::{QueryKeyBinding, Request, RequestBody, RequestHead, signature_of},
    soap,
    xml::{Document, ElementRef, Limits},
};

use crate::samples::SERVICE;

const EVIL: &str =
    "<LocateRequest xmlns=\"http://www.w3.org/2002/03/xkms#\" Id=\"evil\" Service=\"urn:evil\">";
const QUERY: &str = "<QueryKeyBinding></QueryKeyBinding></LocateRequest>";

/// A signed message: the whole, its signature, and the whole without it.
struct Good {
    key: SigningKey,
    whole: String,
    signature: String,
    bare: String,
}

fn good() -> Good {
    let key = SigningKey::generate_ec(Curve::P256).unwrap();
    let body = RequestBody::Locate(QueryKeyBinding::default());
    let mut element = Request { head: RequestHead::new("I1", SERVICE), body }.to_element();
    let bare = element.to_xml();
    sign_enveloped(&mut element, &key, None).unwrap();
    let whole = element.to_xml();
    Good { key, signature: cut_out(&whole, "ds:Signature"), whole, bare }
}

/// The first element of this name in `text`.
fn cut_out(text: &str, name: &str) -> String {
    let (_, rest) = text.split_once(&format!("<{name}")).unwrap();
    let (inner, _) = rest.split_once(&format!("</{name}>")).unwrap();
    format!("<{name}{inner}</{name}>")
}

/// The element that `signature` covers at `place`, or by what name it does not.
fn verified<'d>(
    signature: ElementRef<'d>,
    place: Place<'d>,
    key: &SigningKey,
) -> Result<SignedElement<'d>, &'static str> {
    let public = key.public_key().unwrap();
    verify(signature, place, VerifyingKey::Public(&public), SignaturePolicy::default())
        .map_err(|r| r.code())
}

/// Asserts that each shape is refused by its name.
fn refused<S: AsRef<str>>(
    key: &SigningKey,
    shapes: impl IntoIterator<Item = (&'static str, S, &'static str)>,
) {
    for (shape, text, code) in shapes {
        assert_eq!(receive(text.as_ref(), key), Err(code), "{shape}");
    }
}

/// What a service does with bytes: the Id of the request it would process, or the refusal.
fn receive(text: &str, key: &SigningKey) -> Result<String, &'static str> {
    let document = Document::parse(text.as_bytes(), &Limits::MESSAGE).map_err(|r| r.code())?;
    let message = soap::open(&document).1.map_err(|r| r.code())?;
    let signature = signature_of(message).ok_or("signature-missing")?;
    let signed = verified(signature, Place { message, target: message }, key)?;
    let request = signed.read(Request::read).map_err(|r| r.code())?;
    Ok(request.get().head.id.clone())
}

fn envelope(header: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Header>{header}</s:Header>\
         <s:Body>{body}</s:Body></s:Envelope>"
    )
}

#[test]
fn the_message_itself_is_taken() {
    let good = good();
    assert_eq!(receive(&good.whole, &good.key).as_deref(), Ok("I1"));
    assert_eq!(receive(&envelope("", &good.whole), &good.key).as_deref(), Ok("I1"));
}

#[test]
fn a_signature_that_covers_another_element_is_refused() {
    let Good { key, whole, signature, bare } = good();
    let evil = format!("{EVIL}{signature}{QUERY}");
    let opaque = |inner: &str| {
        format!("<OpaqueClientData><OpaqueData>{inner}</OpaqueData></OpaqueClientData>")
    };
    let object = signature
        .replace("</ds:Signature>", &format!("<ds:Object>{bare}</ds:Object></ds:Signature>"));
    let shapes = [
        (
            "the original in a header, its signature in the forgery",
            envelope(&bare, &evil),
            "signature-reference-elsewhere",
        ),
        (
            "the original as sibling after the body's message",
            envelope("", &format!("{evil}{bare}")),
            "soap-body",
        ),
        (
            "the signed original in a header, the forgery bare",
            envelope(&whole, &format!("{EVIL}{QUERY}")),
            "signature-missing",
        ),
        (
            "the original in the forgery, where extensions stand",
            format!("{EVIL}{signature}{bare}{QUERY}"),
            "signature-reference-elsewhere",
        ),
        (
            "the original in the forgery's opaque data",
            format!("{EVIL}{signature}{}{QUERY}", opaque(&bare)),
            "signature-reference-elsewhere",
        ),
        (
            "the original in an object of the signature",
            format!("{EVIL}{object}{QUERY}"),
            "signature-object",
        ),
        (
            "the original in the signature's key information",
            format!(
                "{EVIL}{}{QUERY}",
                signature.replace(
                    "</ds:Signature>",
                    &format!("<ds:KeyInfo>{bare}</ds:KeyInfo></ds:Signature>")
                )
            ),
            "signature-reference-elsewhere",
        ),
        (
            "the original above the forgery",
            whole.replace("<QueryKeyBinding>", &format!("{EVIL}{QUERY}<QueryKeyBinding>")),
            "signature-digest",
        ),
        (
            "the signature as sibling of its message in the body",
            envelope("", &format!("{signature}{bare}")),
            "soap-body",
        ),
        ("the signature in a header", envelope(&signature, &bare), "signature-missing"),
        (
            "the original in a second body",
            envelope("", &evil)
                .replace("</s:Envelope>", &format!("<s:Body>{bare}</s:Body></s:Envelope>")),
            "soap-structure",
        ),
        (
            "the forgery in a body before the original's",
            envelope("", &whole)
                .replace("<s:Body>", &format!("<s:Body>{EVIL}{QUERY}</s:Body><s:Body>")),
            "soap-structure",
        ),
        (
            "the original after the body",
            envelope("", &evil).replace("</s:Envelope>", &format!("{bare}</s:Envelope>")),
            "signature-reference-elsewhere",
        ),
        (
            "the whole in a forged compound",
            format!(
                "<CompoundRequest xmlns=\"http://www.w3.org/2002/03/xkms#\" Id=\"evil\" Service=\"urn:evil\">{whole}</CompoundRequest>"
            ),
            "signature-missing",
        ),
        ("the signature without what it signs", evil.clone(), "signature-reference-unresolved"),
    ];
    refused(&key, shapes);
}

#[test]
fn an_id_that_two_elements_may_claim_is_refused() {
    let Good { key, signature, bare, .. } = good();
    for name in ["Id", "ID", "id", "iD", "xml:id"] {
        let evil = EVIL.replace("Id=\"evil\"", &format!("{name}=\"I1\""));
        for text in [
            envelope(&bare, &format!("{evil}{signature}{QUERY}")),
            format!("{evil}{signature}{bare}{QUERY}"),
        ] {
            assert_eq!(receive(&text, &key), Err("xml-id-twice"), "{name}");
        }
    }
    // Only `Id` can be referred to: an attribute that some readers take for one resolves nothing.
    let evil = EVIL.replace("Id=\"evil\"", "ID=\"I1\"");
    let text = format!("{evil}{signature}{QUERY}");
    assert_eq!(receive(&text, &key), Err("signature-reference-unresolved"));
}

#[test]
fn references_and_transforms_that_select_otherwise_are_refused() {
    let Good { key, whole, .. } = good();
    let enveloped = "<ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"></ds:Transform>";
    let with = |algorithm: &str| {
        whole.replace(enveloped, &format!("{enveloped}<ds:Transform Algorithm=\"{algorithm}\"/>"))
    };
    let reference = cut_out(&whole, "ds:Reference");
    let external = [
        ("the whole document", "\"\""),
        ("a pointer", "\"#xpointer(id('I1'))\""),
        ("the root by a pointer", "\"#xpointer(/)\""),
        ("a file", "\"file:///etc/passwd\""),
        ("a host", "\"http://127.0.0.1/#I1\""),
    ];
    refused(
        &key,
        external.map(|(shape, uri)| {
            (shape, whole.replace("\"#I1\"", uri), "signature-reference-external")
        }),
    );
    let shapes = [
        ("no URI", whole.replace(" URI=\"#I1\"", ""), "signature-reference-external"),
        (
            "XPath",
            with("http://www.w3.org/TR/1999/REC-xpath-19991116"),
            "signature-transform-xpath",
        ),
        (
            "XPath filter",
            with("http://www.w3.org/2002/06/xmldsig-filter2"),
            "signature-transform-xpath",
        ),
        ("XSLT", with("http://www.w3.org/TR/1999/REC-xslt-19991116"), "signature-transform-xslt"),
        ("base64", with("http://www.w3.org/2000/09/xmldsig#base64"), "signature-transform"),
        ("enveloped twice", whole.replace(enveloped, &enveloped.repeat(2)), "signature-transform"),
        ("not enveloped", whole.replace(enveloped, ""), "signature-enveloping"),
        (
            "two references",
            whole.replace(&reference, &reference.repeat(2)),
            "signature-references-many",
        ),
        ("no reference", whole.replace(&reference, ""), "signature-malformed"),
        (
            "SHA-1",
            whole.replace(
                "http://www.w3.org/2001/04/xmlenc#sha256",
                "http://www.w3.org/2000/09/xmldsig#sha1",
            ),
            "signature-algorithm",
        ),
        (
            "no algorithm that is known",
            whole.replace("#ecdsa-sha256", "#none"),
            "signature-algorithm",
        ),
        (
            "a MAC under the public key",
            whole.replace("#ecdsa-sha256", "#hmac-sha256"),
            "signature-key-mismatch",
        ),
    ];
    refused(&key, shapes);
    let many = "p ".repeat(1000);
    let list = format!(
        "c14n#\"><i:InclusiveNamespaces xmlns:i=\"http://www.w3.org/2001/10/xml-exc-c14n#\" \
         PrefixList=\"{many}\"></i:InclusiveNamespaces>"
    );
    let prefixes = whole.replace("c14n#\">", &list);
    assert_ne!(prefixes, whole);
    assert_eq!(receive(&prefixes, &key), Err("signature-malformed"));
    let truncated = whole
        .replace("#ecdsa-sha256\">", "#hmac-sha256\"><ds:HMACOutputLength>1</ds:HMACOutputLength>");
    assert_eq!(receive(&truncated, &key), Err("signature-truncated-mac"));
}

#[test]
fn what_readers_see_differently_is_refused() {
    let Good { key, whole, .. } = good();
    let shapes = [
        (
            "a comment in a value",
            whole.replace("<ds:DigestValue>", "<ds:DigestValue><!-- -->"),
            "xml-comment-in-value",
        ),
        ("a document type", format!("<!DOCTYPE x>{whole}"), "xml-doctype"),
        (
            "a default attribute",
            format!("<!DOCTYPE x [<!ATTLIST LocateRequest Service CDATA 'x'>]>{whole}"),
            "xml-doctype",
        ),
        ("a processing instruction", format!("<?x?>{whole}"), "xml-processing-instruction"),
        (
            "white space in what was signed",
            whole.replace("<QueryKeyBinding>", " <QueryKeyBinding>"),
            "signature-digest",
        ),
        (
            "another signature value",
            whole.replace("<ds:SignatureValue>", "<ds:SignatureValue>AAAA"),
            "signature-value",
        ),
    ];
    refused(&key, shapes);
    // A comment between elements changes neither what is verified nor what is read.
    let text = whole.replace("<QueryKeyBinding>", "<!-- a --><QueryKeyBinding>");
    assert_eq!(receive(&text, &key).as_deref(), Ok("I1"));
}

#[test]
fn a_binding_that_was_not_signed_is_not_authenticated() {
    let key = SigningKey::generate_ec(Curve::P256).unwrap();
    let asked = crate::samples::prototype("P1");
    let signature =
        xkms::dsig::detached_signature(&asked.to_element(), &key, None).unwrap().to_xml();
    let bound = |id: &str| format!("<PrototypeKeyBinding Id=\"{id}\"></PrototypeKeyBinding>");
    let request = |binding: &str, extra: &str| {
        format!(
            "<RegisterRequest xmlns=\"http://www.w3.org/2002/03/xkms#\" Id=\"I1\" Service=\"urn:s\">{binding}\
             <Authentication><KeyBindingAuthentication>{signature}</KeyBindingAuthentication></Authentication>\
             {extra}</RegisterRequest>"
        )
    };
    let check = |text: &str| {
        let document = Document::parse(text.as_bytes(), &Limits::MESSAGE).map_err(|r| r.code())?;
        let message = document.root();
        let target = Request::binding_of(message).ok_or("no binding")?;
        let signature = Request::authentication_of(message).ok_or("no signature")?;
        verified(signature, Place { message, target }, &key).map(|_| ())
    };
    let good = asked.to_element().to_xml();
    assert_eq!(check(&request(&good, "")), Ok(()));
    assert_eq!(check(&request(&bound("P2"), &good)), Err("signature-reference-elsewhere"));
    assert_eq!(check(&request(&bound("P1"), &good)), Err("xml-id-twice"));
    assert_eq!(check(&request(&bound("P1"), "")), Err("signature-digest"));
}
