//! Messages: each refusal has its name, and the schema's edges.

use super::*;
use crate::xml::{Document, Limits};

const HEAD: &str = "xmlns='http://www.w3.org/2002/03/xkms#' xmlns:ds='http://www.w3.org/2000/09/xmldsig#' \
                    Id='a' Service='urn:s'";

fn request(name: &str, attributes: &str, inner: &str) -> Result<Request, MessageRejection> {
    let text = format!("<{name} {HEAD} {attributes}>{inner}</{name}>");
    Request::read(Document::parse(text.as_bytes(), &Limits::MESSAGE).unwrap().root())
}

#[test]
fn each_refusal_of_a_message_has_its_name() {
    use MessageRejection as R;
    let query = "<QueryKeyBinding/>";
    let many: String = (0..65)
        .map(|i| format!("<LocateRequest Id='i{i}' Service='u'>{query}</LocateRequest>"))
        .collect();
    for (name, attributes, inner, rejection) in [
        ("LocateRequest", "x='1'", query, R::Attribute),
        ("PendingRequest", "", "", R::Attribute),
        ("LocateRequest", "ResponseId='b'", query, R::Attribute),
        ("CompoundRequest", "", many.as_str(), R::CompoundTooLarge),
        ("LocateRequest", "", "", R::Element),
        ("LocateRequest", "", "<QueryKeyBinding/><QueryKeyBinding/>", R::Element),
        ("CompoundRequest", "", "", R::Element),
        ("CompoundRequest", "", "<PendingRequest Id='b' Service='u' ResponseId='c'/>", R::Element),
        (
            "RevokeRequest",
            "",
            "<RevokeKeyBinding><Status StatusValue='http://www.w3.org/2002/03/xkms#Valid'/></RevokeKeyBinding>",
            R::Element,
        ),
        ("LocateRequest", "", "<x xmlns='urn:x'/><QueryKeyBinding/>", R::Extension),
        ("LocateRequest", "ResponseLimit='0'", query, R::ResponseLimit),
        ("LocateRequest", "ResponseLimit='-1'", query, R::ResponseLimit),
        ("LocateResult", "", "", R::Unknown),
        ("FooRequest", "", "", R::Unknown),
        ("LocateRequest", "Nonce='%'", query, R::Value),
        ("LocateRequest", "OriginalRequestId='1 2'", query, R::Value),
        ("LocateRequest", "", "x<QueryKeyBinding/>", R::Value),
        (
            "LocateRequest",
            "",
            "<QueryKeyBinding><KeyUsage>x</KeyUsage></QueryKeyBinding>",
            R::Value,
        ),
        (
            "LocateRequest",
            "",
            "<QueryKeyBinding><TimeInstant Time='x'/></QueryKeyBinding>",
            R::Value,
        ),
    ] {
        assert_eq!(
            request(name, attributes, inner).err(),
            Some(rejection),
            "{name} {attributes} {inner}"
        );
        assert!(rejection.code().starts_with("message-"));
        assert!(matches!(rejection.result().0, Major::Sender | Major::Receiver));
    }
    assert!(request("LocateRequest", "", query).is_ok());
}

#[test]
fn white_space_around_names_and_uris_means_nothing() {
    let text = "<LocateRequest xmlns='http://www.w3.org/2002/03/xkms#' Id=' a ' Service='\n urn:s '>
        <ResponseMechanism> http://www.w3.org/2002/03/xkms#Pending\n</ResponseMechanism>
        <RespondWith>\n http://www.w3.org/2002/03/xkms#KeyName </RespondWith>
        <QueryKeyBinding><KeyUsage>\thttp://www.w3.org/2002/03/xkms#Signature </KeyUsage>
        <UseKeyWith Application=' urn:ietf:rfc:2818 ' Identifier=' x '/></QueryKeyBinding></LocateRequest>";
    let read =
        Request::read(Document::parse(text.as_bytes(), &Limits::MESSAGE).unwrap().root()).unwrap();
    let RequestBody::Locate(query) = read.body else { panic!() };
    assert_eq!((read.head.id.as_str(), read.head.service.as_str()), ("a", "urn:s"));
    assert_eq!(read.head.mechanisms, [Mechanism::Pending]);
    assert_eq!(read.head.respond_with, [RespondWith::KeyName]);
    assert_eq!(query.binding.usage, [KeyUsage::Signature]);
    // An identifier is a string, which keeps its spaces.
    let with = UseKeyWith { application: "urn:ietf:rfc:2818".into(), identifier: " x ".into() };
    assert_eq!(query.binding.use_with, [with]);
}

#[test]
fn a_binding_is_valid_only_if_all_four_reasons_are() {
    let all = Reason::ALL.to_vec();
    assert_eq!(Status::judged(all.clone(), vec![], vec![]).value, StatusValue::Valid);
    for missing in 0..all.len() {
        let mut some = all.clone();
        let left = some.remove(missing);
        assert_eq!(Status::judged(some.clone(), vec![], vec![]).value, StatusValue::Indeterminate);
        assert_eq!(
            Status::judged(some.clone(), vec![left.clone()], vec![]).value,
            StatusValue::Indeterminate
        );
        assert_eq!(Status::judged(some, vec![], vec![left]).value, StatusValue::Invalid);
    }
    assert_eq!(
        Status::judged(all.clone(), vec![Reason::Other("urn:x".into())], vec![]).value,
        StatusValue::Indeterminate
    );
    assert_eq!(Status::unknown().value, StatusValue::Indeterminate);
}

#[test]
fn an_interval_ends_before_its_end() {
    use time::{Duration, OffsetDateTime};
    let start = OffsetDateTime::UNIX_EPOCH;
    let end = start + Duration::DAY;
    let interval = ValidityInterval { not_before: Some(start), not_on_or_after: Some(end) };
    assert!(interval.contains(start));
    assert!(interval.contains(end - Duration::SECOND));
    assert!(!interval.contains(end));
    assert!(!interval.contains(start - Duration::SECOND));
    assert!(ValidityInterval::default().contains(start));
}
