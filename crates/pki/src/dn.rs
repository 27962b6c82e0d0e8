//! Distinguished names in the form in which they are compared (RFC 5280, section 7.1): text of any
//! string type as UTF-8, case of ASCII letters and surplus white space disregarded.
//!
//! What is deliberately absent: Unicode case folding and normalisation; names that differ in those
//! are different names, which can only lead to a refusal.

use der::{Encode as _, Tag, Tagged as _, asn1::Any};
use x509_cert::name::{Name, RelativeDistinguishedName};

/// A name, comparable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dn {
    /// Each relative name, outermost first, in canonical bytes.
    parts: Vec<Vec<u8>>,
    der: Vec<u8>,
}

impl PartialEq for Dn {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for Dn {}

impl Dn {
    pub(crate) fn new(name: &Name) -> der::Result<Self> {
        let parts = name.iter_rdn().map(part).collect::<der::Result<_>>()?;
        Ok(Self { parts, der: name.to_der()? })
    }

    /// The name relative to this one.
    pub(crate) fn join(&self, relative: &RelativeDistinguishedName) -> der::Result<Self> {
        let mut parts = self.parts.clone();
        parts.push(part(relative)?);
        Ok(Self { parts, der: Vec::new() })
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The name as it stands in the certificate. Empty for a joined name.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// What the name is found by: equal for equal names and different for different ones.
    pub(crate) fn key(&self) -> Vec<u8> {
        let mut key = Vec::new();
        for part in &self.parts {
            put(&mut key, part);
        }
        key
    }

    /// Whether this name is `base` or below it.
    pub(crate) fn is_within(&self, base: &Self) -> bool {
        self.parts.starts_with(&base.parts)
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The attributes of a relative name, sorted, for they are a set.
fn part(relative: &RelativeDistinguishedName) -> der::Result<Vec<u8>> {
    let mut attributes = Vec::new();
    for attribute in relative.iter() {
        let mut bytes = Vec::new();
        put(&mut bytes, attribute.oid.as_bytes());
        match text(&attribute.value) {
            Some(text) => {
                bytes.push(1);
                put(&mut bytes, fold(&text).as_bytes());
            }
            None => {
                bytes.push(0);
                put(&mut bytes, &attribute.value.to_der()?);
            }
        }
        attributes.push(bytes);
    }
    attributes.sort();
    Ok(attributes.concat())
}

/// The text of a string value; `None` if it is none, or not what its type allows.
pub(crate) fn text(value: &Any) -> Option<String> {
    let bytes = value.value();
    let latin = || bytes.iter().copied().map(char::from).collect();
    let tag = value.tag();
    let ascii = [Tag::PrintableString, Tag::Ia5String, Tag::VisibleString, Tag::NumericString];
    if tag == Tag::Utf8String {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    } else if ascii.contains(&tag) {
        bytes.is_ascii().then(latin)
    } else if tag == Tag::TeletexString {
        Some(latin())
    } else if tag == Tag::BmpString {
        let (units, rest) = bytes.as_chunks::<2>();
        let units = units.iter().copied().map(u16::from_be_bytes);
        let text = char::decode_utf16(units).collect::<Result<_, _>>().ok();
        text.filter(|_| rest.is_empty())
    } else {
        None
    }
}

/// Lower case for ASCII, one space between words.
fn fold(text: &str) -> String {
    let mut folded = String::new();
    for word in text.split_ascii_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(&word.to_ascii_lowercase());
    }
    folded
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use der::Decode as _;

    use super::*;

    fn dn(text: &str) -> Dn {
        Dn::new(&Name::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn case_and_white_space_do_not_count_and_order_does() {
        assert_eq!(dn("CN=Some  CA,O=Org"), dn("CN=some ca,O=ORG"));
        assert_ne!(dn("CN=Some CA,O=Org"), dn("O=Org,CN=Some CA"));
        assert_ne!(dn("CN=SomeCA"), dn("CN=Some CA"));
        assert_ne!(dn("CN=a"), dn("OU=a"));
        assert_ne!(dn("CN=a"), dn("CN=a,O=Org"));
    }

    #[test]
    fn the_string_type_does_not_count() {
        let with = |tag: u8| {
            let der = [0x30, 12, 0x31, 10, 0x30, 8, 6, 3, 0x55, 4, 3, tag, 1, b'a'];
            Dn::new(&Name::from_der(&der).unwrap()).unwrap()
        };
        assert_eq!(with(0x13), with(0x0c));
        assert_eq!(with(0x13), dn("CN=A"));
        // An octet string is compared byte by byte.
        assert_ne!(with(0x04), with(0x13));
    }

    #[test]
    fn a_name_is_within_its_own_prefix_only() {
        // RFC 4514 writes the innermost part first.
        assert!(dn("CN=x,O=Org,C=DE").is_within(&dn("O=org,C=DE")));
        assert!(dn("O=Org").is_within(&dn("O=Org")));
        assert!(!dn("O=Org").is_within(&dn("CN=x,O=Org")));
        assert!(!dn("CN=x,O=Organ").is_within(&dn("O=Org")));
        assert!(dn("CN=x").is_within(&Dn::default()));
    }
}
