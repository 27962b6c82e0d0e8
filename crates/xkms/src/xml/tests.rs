//! The reader: each refusal has its name, and no bytes make it panic.

use proptest::prelude::*;

use super::*;
use crate::c14n::{Context, Method, canonicalize};

fn parse(text: &str) -> Result<Document, XmlRejection> {
    Document::parse(text.as_bytes(), &Limits::MESSAGE)
}

#[test]
fn each_refusal_of_the_reader_has_its_name() {
    use XmlRejection as R;
    let deep = "<a>".repeat(40);
    let many =
        format!("<a {}/>", (0..40).map(|i| format!("a{i}=''")).collect::<Vec<_>>().join(" "));
    let nodes = format!("<a>{}</a>", "<b/>".repeat(9000));
    let large = format!("<a>{}</a>", "x".repeat(300_000));
    for (text, rejection) in [
        ("<a b='' b=''/>", R::AttributeTwice),
        ("<a xmlns:p='u' xmlns:q='u' p:b='' q:b=''/>", R::AttributeTwice),
        ("<a xmlns='u' xmlns='u'/>", R::AttributeTwice),
        ("<a>x<!-- y -->z</a>", R::CommentInValue),
        ("<a><!-- y -->z</a>", R::CommentInValue),
        ("<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>", R::Doctype),
        ("<!DOCTYPE a><a/>", R::Doctype),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><a/>", R::Encoding),
        ("<?xml version='1.0' encoding='US-ASCII'?><a>\u{e9}</a>", R::Encoding),
        ("<a>&nbsp;</a>", R::Entity),
        ("<a b='&e;'/>", R::Entity),
        ("<a Id='x'><b Id='x'/></a>", R::IdTwice),
        ("<a Id='x'><b ID='x'/></a>", R::IdTwice),
        ("<a ID='x'><b Id='x'/></a>", R::IdTwice),
        ("<a Id='x'><b xml:id='x'/></a>", R::IdTwice),
        ("<p:a/>", R::Namespace),
        ("<a p:b=''/>", R::Namespace),
        ("<a xmlns:xml='u'/>", R::Namespace),
        ("<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>", R::Namespace),
        ("<a xmlns:xmlns='u'/>", R::Namespace),
        ("<a xmlns:p=''/>", R::Namespace),
        ("<a><?pi x?></a>", R::ProcessingInstruction),
        ("<?xml-stylesheet href='x'?><a/>", R::ProcessingInstruction),
        ("<a/><?xml version='1.0'?>", R::ProcessingInstruction),
        (&deep, R::TooDeep),
        (&large, R::TooLarge),
        (&many, R::TooManyAttributes),
        (&nodes, R::TooManyNodes),
    ] {
        let shown = text.get(..60).unwrap_or(text);
        assert_eq!(parse(text).err(), Some(rejection), "{shown}");
        assert!(rejection.code().starts_with("xml-"));
    }
    assert_eq!(Document::parse(b"<a>\xff</a>", &Limits::MESSAGE).err(), Some(R::Encoding));
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for text in [
        "",
        " ",
        "x",
        "<a>",
        "</a>",
        "<a></b>",
        "<a/><b/>",
        "<a/>x",
        "x<a/>",
        "<a b></a>",
        "<a b=c/>",
        "<a b='<'/>",
        "<a b=''c=''/>",
        "<a>]]></a>",
        "<a><!-- -- --></a>",
        "<a><!--x</a>",
        "<a><![CDATA[x</a>",
        "<1/>",
        "<a:/>",
        "<:a/>",
        "<a:b:c/>",
        "<a>&#0;</a>",
        "<a>&#xD800;</a>",
        "<a>&#;</a>",
        "<a>&#x;</a>",
        "<a>&#+9;</a>",
        "<a>&lt</a>",
        "<a>\u{1}</a>",
        "<a>\u{fffe}</a>",
        "<![CDATA[x]]><a/>",
        "< a/>",
        "<a/ >",
        "<a b='x/>",
        "<?xml encoding='utf-8'?><a/>",
        "<?xml version='1.1'?><a/>",
        "<?xml version='1.0'><a/>",
        "<!ELEMENT a ANY><a/>",
        "<a \u{a0}b=''/>",
        "<?xml version='1.0' standalone='maybe'?><a/>",
    ] {
        assert_eq!(parse(text).err(), Some(XmlRejection::Malformed), "{text}");
    }
}

#[test]
fn values_are_normalised_as_xml_says() {
    let document = parse(
        "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<!-- c --><a b=' x\ty\r\nz&#10;&amp;' >\
         1\r\n2\r3<![CDATA[<&>]]>&#x34;</a>\n",
    )
    .unwrap();
    assert_eq!(document.root().attribute("b"), Some(" x y z\n&"));
    assert_eq!(document.root().text(), Some("1\n2\n3<&>4"));
    // As libraries write that keep to ASCII: the rest is references.
    let document = parse("<?xml version='1.0' encoding='ASCII'?><a>&#233;</a>").unwrap();
    assert_eq!(document.root().text(), Some("\u{e9}"));
}

#[test]
fn what_is_written_is_its_own_exclusive_canonical_form() {
    let inner = Element::new(crate::uri::DS, "KeyInfo")
        .child(Element::new(crate::uri::DS, "KeyName").text("a<b>&\r\"c"))
        .child(Element::new(crate::uri::XKMS, "X").with("z", "1\n\t\"&<>").with("a", "2"));
    let outer =
        Element::new(crate::uri::XKMS, "M").with("Id", "i").child(inner.clone()).child(inner);
    let text = outer.to_xml();
    let document = parse(&text).unwrap();
    let canonical =
        canonicalize(document.root(), None, &Method::EXCLUSIVE, Context::InPlace).unwrap();
    assert_eq!(text, canonical);
    assert_eq!(Element::copy_of(document.root()).to_xml(), text);
    let part = document.root().children().next().unwrap();
    let canonical = canonicalize(part, None, &Method::EXCLUSIVE, Context::InPlace).unwrap();
    assert_eq!(Element::copy_of(part).to_xml(), canonical);
}

#[test]
fn a_subtree_inherits_inclusively_and_not_exclusively_or_detached() {
    let text = "<e xmlns:s='S' xml:lang='en'><p:m xmlns:p='P' xmlns:q='Q'><p:c q:a='1'/></p:m></e>";
    let document = parse(text).unwrap();
    let message = document.root().children().next().unwrap();
    let form = |method: &Method, context| canonicalize(message, None, method, context).unwrap();
    assert_eq!(
        form(&Method::INCLUSIVE, Context::InPlace),
        "<p:m xmlns:p=\"P\" xmlns:q=\"Q\" xmlns:s=\"S\" xml:lang=\"en\"><p:c q:a=\"1\"></p:c></p:m>"
    );
    assert_eq!(
        form(&Method::INCLUSIVE, Context::Detached(message)),
        "<p:m xmlns:p=\"P\" xmlns:q=\"Q\"><p:c q:a=\"1\"></p:c></p:m>"
    );
    assert_eq!(
        form(&Method::EXCLUSIVE, Context::InPlace),
        "<p:m xmlns:p=\"P\"><p:c xmlns:q=\"Q\" q:a=\"1\"></p:c></p:m>"
    );
    let listed = Method { exclusive: Some(vec!["s".into()]), comments: false };
    assert!(form(&listed, Context::InPlace).starts_with("<p:m xmlns:p=\"P\" xmlns:s=\"S\">"));
}

#[test]
fn a_prefix_declared_outside_only_has_no_detached_form() {
    let document = parse("<e xmlns:s='S'><s:m/></e>").unwrap();
    let message = document.root().children().next().unwrap();
    let form = canonicalize(message, None, &Method::INCLUSIVE, Context::Detached(message));
    assert_eq!(form, None);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Document::parse(&bytes, &Limits::MESSAGE);
    }

    #[test]
    fn what_is_read_is_written_the_same(text in "[<>/a&;#x\"' =!\\[\\]-]{0,60}") {
        if let Ok(document) = parse(&text) {
            let form = canonicalize(document.root(), None, &Method::EXCLUSIVE, Context::InPlace).unwrap();
            let again = parse(&form).unwrap();
            let second = canonicalize(again.root(), None, &Method::EXCLUSIVE, Context::InPlace).unwrap();
            prop_assert_eq!(form, second);
        }
    }
}
