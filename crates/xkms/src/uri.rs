//! The names that the protocol is made of: namespaces, and URIs that stand for values.

/// XKMS 2.0; every protocol URI is this and a fragment.
pub const XKMS: &str = "http://www.w3.org/2002/03/xkms#";
/// XML Signature.
pub const DS: &str = "http://www.w3.org/2000/09/xmldsig#";
/// XML Signature 1.1: `ECKeyValue`.
pub const DS11: &str = "http://www.w3.org/2009/xmldsig11#";
/// XML Encryption.
pub const XENC: &str = "http://www.w3.org/2001/04/xmlenc#";
/// The `InclusiveNamespaces` element of exclusive C14N, and the algorithm's own name.
pub const EXC_C14N: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
/// Our own extension of messages.
pub const VOUCHSAFE: &str = "urn:vouchsafe:xkms:1";
/// `RespondWith` of a client that wants to be told what the answer rests on.
pub const KNOWLEDGE: &str = "urn:vouchsafe:xkms:1#Knowledge";
/// SOAP 1.1 envelopes.
pub const SOAP11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
/// SOAP 1.2 envelopes.
pub const SOAP12: &str = "http://www.w3.org/2003/05/soap-envelope";
/// The namespace that the prefix `xml` is bound to for ever.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// The namespace of namespace declarations.
pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// The prefix under which this crate writes `namespace`; `None` for one it does not write.
pub(crate) fn prefix(namespace: &str) -> Option<&'static str> {
    Some(match namespace {
        XKMS | "" => "",
        DS => "ds",
        DS11 => "ds11",
        XENC => "xenc",
        SOAP11 | SOAP12 => "soap",
        EXC_C14N => "ec",
        XML => "xml",
        _ => return None,
    })
}
