//! The service described for SOAP clients (WSDL 1.1), with the messages' structure in it, so that
//! one document is enough.

use std::fmt::Write as _;

/// Operations: all take `<name>Request`; Pending is answered by a bare `Result`.
const OPERATIONS: [&str; 9] = [
    "Locate", "Validate", "Register", "Reissue", "Revoke", "Recover", "Compound", "Pending",
    "Status",
];

/// What the messages look like.
const MESSAGES: &str = include_str!("messages.xsd");

/// The document for the service at `address`.
pub(super) fn document(address: &str) -> String {
    let mut text = String::with_capacity(24 << 10);
    text.push_str(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <wsdl:definitions name=\"Xkms\" xmlns:wsdl=\"http://schemas.xmlsoap.org/wsdl/\" \
         xmlns:soap=\"http://schemas.xmlsoap.org/wsdl/soap/\" \
         xmlns:k=\"http://www.w3.org/2002/03/xkms#\" \
         xmlns:t=\"http://www.w3.org/2002/03/xkms#wsdl\" \
         targetNamespace=\"http://www.w3.org/2002/03/xkms#wsdl\">\n  <wsdl:types>\n",
    );
    text.push_str(MESSAGES);
    text.push_str("  </wsdl:types>\n");
    for name in OPERATIONS {
        let result = if name == "Pending" { "" } else { name };
        for (message, element) in [
            (format!("{name}Request"), format!("{name}Request")),
            (format!("{name}Result"), format!("{result}Result")),
        ] {
            line(
                &mut text,
                format_args!(
                    "  <wsdl:message name=\"{message}\"><wsdl:part name=\"body\" element=\"k:{element}\"/></wsdl:message>"
                ),
            );
        }
    }
    text.push_str("  <wsdl:portType name=\"XkmsPortType\">\n");
    for name in OPERATIONS {
        line(
            &mut text,
            format_args!(
                "    <wsdl:operation name=\"{name}\"><wsdl:input message=\"t:{name}Request\"/>\
             <wsdl:output message=\"t:{name}Result\"/></wsdl:operation>"
            ),
        );
    }
    text.push_str(
        "  </wsdl:portType>\n  <wsdl:binding name=\"XkmsBinding\" type=\"t:XkmsPortType\">\n    \
         <soap:binding style=\"document\" transport=\"http://schemas.xmlsoap.org/soap/http\"/>\n",
    );
    for name in OPERATIONS {
        line(
            &mut text,
            format_args!(
                "    <wsdl:operation name=\"{name}\"><soap:operation soapAction=\"\"/>\
             <wsdl:input><soap:body use=\"literal\"/></wsdl:input>\
             <wsdl:output><soap:body use=\"literal\"/></wsdl:output></wsdl:operation>"
            ),
        );
    }
    let address = address.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    line(
        &mut text,
        format_args!(
            "  </wsdl:binding>\n  <wsdl:service name=\"XkmsService\"><wsdl:port name=\"XkmsPort\" \
         binding=\"t:XkmsBinding\"><soap:address location=\"{address}\"/></wsdl:port></wsdl:service>\n\
         </wsdl:definitions>"
        ),
    );
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use xkms::xml::{Document, Limits};

    use super::*;

    #[test]
    fn it_is_well_formed_and_names_the_service() {
        let text = document("https://trust.example.test/xkms?a&b");
        let limits = Limits { nodes: 100_000, ..Limits::MESSAGE };
        let read = Document::parse(text.as_bytes(), &limits).unwrap();
        assert!(read.root().is("http://schemas.xmlsoap.org/wsdl/", "definitions"));
        assert!(text.contains("https://trust.example.test/xkms?a&amp;b"));
        assert_eq!(text.matches("<wsdl:operation ").count(), 18);
    }
}
