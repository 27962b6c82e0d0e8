//! SOAP 1.1 and 1.2: the envelope around a message, and faults.
//!
//! The version is told by the envelope's namespace, never by HTTP headers; a message without an
//! envelope is taken as it is. Errors of XKMS are XKMS results: a fault only says that there was no
//! message to answer.

use thiserror::Error;

use crate::{
    uri,
    xml::{Document, Element, ElementRef},
};

/// Which envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// None: the message itself.
    Bare,
    /// SOAP 1.1.
    V11,
    /// SOAP 1.2.
    V12,
}

/// Why there is no message in an envelope. Alphabetical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SoapRejection {
    /// Not exactly one message in the body.
    #[error("the body does not hold exactly one message")]
    Body,
    /// An envelope of another version.
    #[error("the envelope is of an unknown version")]
    Envelope,
    /// A header that must be understood, and is not.
    #[error("a header must be understood and is not")]
    MustUnderstand,
    /// Headers, body or something else where SOAP does not have it.
    #[error("the envelope is malformed")]
    Structure,
}

impl SoapRejection {
    /// Kebab-case name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Body => "soap-body",
            Self::Envelope => "soap-envelope",
            Self::MustUnderstand => "soap-must-understand",
            Self::Structure => "soap-structure",
        }
    }
}

impl Version {
    /// The namespace of the envelope.
    #[must_use]
    pub const fn namespace(self) -> &'static str {
        match self {
            Self::Bare => "",
            Self::V11 => uri::SOAP11,
            Self::V12 => uri::SOAP12,
        }
    }

    /// The media type of messages in it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Bare | Self::V11 => "text/xml; charset=utf-8",
            Self::V12 => "application/soap+xml; charset=utf-8",
        }
    }
}

/// The message in `document`. The version says how to answer, also where there is no message.
pub fn open(document: &Document) -> (Version, Result<ElementRef<'_>, SoapRejection>) {
    let root = document.root();
    match root.name() {
        (uri::SOAP11, "Envelope") => (Version::V11, body(root, Version::V11)),
        (uri::SOAP12, "Envelope") => (Version::V12, body(root, Version::V12)),
        (_, "Envelope") => (Version::V11, Err(SoapRejection::Envelope)),
        _ => (Version::Bare, Ok(root)),
    }
}

fn body(envelope: ElementRef<'_>, version: Version) -> Result<ElementRef<'_>, SoapRejection> {
    let namespace = version.namespace();
    let mut children = envelope.children().peekable();
    let header = children.next_if(|first| first.is(namespace, "Header"));
    if header.is_some_and(|h| h.children().any(|block| must_understand(block, version))) {
        return Err(SoapRejection::MustUnderstand);
    }
    let body = children.next().filter(|next| next.is(namespace, "Body"));
    let body = body.ok_or(SoapRejection::Structure)?;
    // SOAP 1.1 lets elements of other namespaces follow the body; nothing reads them.
    if children.any(|after| version == Version::V12 || after.name().0 == namespace) {
        return Err(SoapRejection::Structure);
    }
    if !envelope.is_structural() || !body.is_structural() {
        return Err(SoapRejection::Structure);
    }
    let mut messages = body.children();
    match (messages.next(), messages.next()) {
        (Some(message), None) => Ok(message),
        _ => Err(SoapRejection::Body),
    }
}

/// Roles of the last node on a message's way, besides none at all. A header for another one is not
/// ours to understand.
const ROLES: [&str; 4] = [
    "",
    "http://schemas.xmlsoap.org/soap/actor/next",
    "http://www.w3.org/2003/05/soap-envelope/role/next",
    "http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver",
];

fn must_understand(block: ElementRef<'_>, version: Version) -> bool {
    let named = |local: &str| {
        let mut all = block.attributes().iter();
        all.find(|a| &*a.namespace == version.namespace() && &*a.local == local)
            .map(|a| a.value.trim())
    };
    let role = named(if version == Version::V11 { "actor" } else { "role" });
    matches!(named("mustUnderstand"), Some("1" | "true"))
        && role.is_none_or(|role| ROLES.contains(&role))
}

/// `message` in an envelope, as text.
#[must_use]
pub fn wrap(version: Version, message: &Element) -> String {
    envelop(version, message.to_xml())
}

/// A message that is text already, in an envelope: what is in there declares its own namespaces.
pub(crate) fn envelop(version: Version, message: String) -> String {
    match version {
        Version::Bare => message,
        Version::V11 | Version::V12 => {
            let namespace = version.namespace();
            [
                "<soap:Envelope xmlns:soap=\"",
                namespace,
                "\"><soap:Body>",
                &message,
                "</soap:Body></soap:Envelope>",
            ]
            .concat()
        }
    }
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultCode {
    /// The sender's.
    Sender,
    /// The receiver's.
    Receiver,
    /// A header was not understood.
    MustUnderstand,
    /// Another version of SOAP.
    VersionMismatch,
}

impl From<SoapRejection> for FaultCode {
    fn from(rejection: SoapRejection) -> Self {
        match rejection {
            SoapRejection::Body | SoapRejection::Structure => Self::Sender,
            SoapRejection::Envelope => Self::VersionMismatch,
            SoapRejection::MustUnderstand => Self::MustUnderstand,
        }
    }
}

impl FaultCode {
    const fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Sender, Version::V12) => "soap:Sender",
            (Self::Sender, _) => "soap:Client",
            (Self::Receiver, Version::V12) => "soap:Receiver",
            (Self::Receiver, _) => "soap:Server",
            (Self::MustUnderstand, _) => "soap:MustUnderstand",
            (Self::VersionMismatch, _) => "soap:VersionMismatch",
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn http_status(self, version: Version) -> u16 {
        match (self, version) {
            (Self::Sender, Version::V12) => 400,
            _ => 500,
        }
    }
}

/// A fault in an envelope, as text; a message without an envelope gets a SOAP 1.1 fault.
#[must_use]
pub fn fault(version: Version, code: FaultCode, reason: &str) -> String {
    let version = if version == Version::Bare { Version::V11 } else { version };
    let name = code.name(version);
    let namespace = version.namespace();
    let fault = if version == Version::V12 {
        let text = Element::new(namespace, "Text").text(reason);
        Element::new(namespace, "Fault")
            .child(
                Element::new(namespace, "Code").child(Element::new(namespace, "Value").text(name)),
            )
            .child(Element::new(namespace, "Reason").child(text.with_language()))
    } else {
        Element::new(namespace, "Fault")
            .child(Element::new("", "faultcode").text(name))
            .child(Element::new("", "faultstring").text(reason))
    };
    wrap(version, &fault)
}

/// The reason of the fault in `document`, if it holds one.
#[must_use]
pub fn fault_reason(message: ElementRef<'_>) -> Option<&str> {
    let (namespace, local) = message.name();
    if local != "Fault" || (namespace != uri::SOAP11 && namespace != uri::SOAP12) {
        return None;
    }
    let reason = message.children().find_map(|child| match child.name().1 {
        "faultstring" => child.text(),
        "Reason" => child.children().next().and_then(ElementRef::text),
        _ => None,
    });
    Some(reason.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Limits;

    fn parse(text: &str) -> Document {
        Document::parse(text.as_bytes(), &Limits::MESSAGE).unwrap()
    }

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        for version in [Version::Bare, Version::V11, Version::V12] {
            let text = wrap(version, &Element::new(uri::XKMS, "Result").with("Id", "a"));
            let document = parse(&text);
            let (found, message) = open(&document);
            assert_eq!(found, version);
            assert!(message.unwrap().is(uri::XKMS, "Result"));
        }
    }

    #[test]
    fn each_refusal_of_an_envelope_has_its_name() {
        use SoapRejection as R;
        for namespace in [uri::SOAP11, uri::SOAP12] {
            let envelope =
                |inner: &str| format!("<s:Envelope xmlns:s='{namespace}'>{inner}</s:Envelope>");
            for (inner, rejection) in [
                ("<s:Body/>", R::Body),
                ("<s:Body><a/><b/></s:Body>", R::Body),
                ("<s:Body>x<a/></s:Body>", R::Structure),
                ("<s:Header/>", R::Structure),
                ("<s:Body><a/></s:Body><s:Body><b/></s:Body>", R::Structure),
                ("<s:Body><a/></s:Body><s:Header/>", R::Structure),
                ("<x/><s:Body><a/></s:Body>", R::Structure),
                (
                    "<s:Header><x s:mustUnderstand='1'/></s:Header><s:Body><a/></s:Body>",
                    R::MustUnderstand,
                ),
            ] {
                let text = envelope(inner);
                assert_eq!(open(&parse(&text)).1.err(), Some(rejection), "{text}");
            }
            let text = envelope("<s:Header><x/></s:Header><s:Body> <a/> </s:Body>");
            assert!(open(&parse(&text)).1.is_ok());
            // What others on the way must understand is theirs; what the last must, is ours.
            let next = match namespace {
                uri::SOAP11 => "http://schemas.xmlsoap.org/soap/actor/next".to_owned(),
                _ => format!("{namespace}/role/ultimateReceiver"),
            };
            for (role, understood) in [("urn:other", true), ("", false), (&next, false)] {
                let text = envelope(&format!(
                    "<s:Header><x s:mustUnderstand='1' s:actor='{role}' s:role='{role}'/></s:Header>\
                     <s:Body><a/></s:Body>"
                ));
                assert_eq!(open(&parse(&text)).1.is_ok(), understood, "{text}");
            }
        }
        let text = "<s:Envelope xmlns:s='urn:x'><s:Body/></s:Envelope>";
        assert_eq!(open(&parse(text)).1.err(), Some(R::Envelope));
    }

    #[test]
    fn faults_say_whose_fault_and_why() {
        for (version, name) in [(Version::V11, "soap:Client"), (Version::V12, "soap:Sender")] {
            let text = fault(version, FaultCode::Sender, "no <b>");
            assert!(text.contains(name));
            let document = parse(&text);
            assert_eq!(fault_reason(open(&document).1.unwrap()), Some("no <b>"));
        }
        assert_eq!(
            FaultCode::from(SoapRejection::Envelope).name(Version::V11),
            "soap:VersionMismatch"
        );
        assert_eq!(FaultCode::Sender.http_status(Version::V12), 400);
    }
}
