//! `ds:KeyInfo`: what is said of a key.

use super::{Fields, MessageRejection, fields};
use crate::{
    dsig::{Curve, PublicKey},
    uri,
    xml::{Element, ElementRef, Sink, Tree},
};

/// What is said of a key, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyInfo {
    /// The items.
    pub items: Vec<KeyInfoItem>,
}

/// One item of `ds:KeyInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyInfoItem {
    /// A name.
    KeyName(String),
    /// An RSA or EC public key.
    KeyValue(PublicKey),
    /// Where more is to be had; never followed here.
    RetrievalMethod {
        /// Where.
        uri: Option<String>,
        /// Of what type.
        kind: Option<String>,
    },
    /// Certificates and what identifies them.
    X509(Vec<X509Item>),
    /// OpenPGP: key id and key packet; one of them at least.
    Pgp {
        /// The key's id.
        key_id: Option<Vec<u8>>,
        /// The key.
        packet: Option<Vec<u8>>,
    },
    /// SPKI S-expressions.
    Spki(Vec<Vec<u8>>),
    /// Anything else, kept as it came.
    Foreign(Element),
}

/// One item of `ds:X509Data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum X509Item {
    /// A certificate, DER.
    Certificate(Vec<u8>),
    /// A revocation list, DER.
    Crl(Vec<u8>),
    /// Issuer's name and serial number.
    IssuerSerial {
        /// The issuer, RFC 4514.
        issuer: String,
        /// The number, decimal.
        serial: String,
    },
    /// Subject key identifier.
    Ski(Vec<u8>),
    /// Subject, RFC 4514.
    SubjectName(String),
}

impl KeyInfo {
    /// One public key.
    #[must_use]
    pub fn key(key: PublicKey) -> Self {
        Self { items: vec![KeyInfoItem::KeyValue(key)] }
    }

    /// One name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { items: vec![KeyInfoItem::KeyName(name.to_owned())] }
    }

    /// The first name.
    #[must_use]
    pub fn key_name(&self) -> Option<&str> {
        self.items.iter().find_map(|item| {
            if let KeyInfoItem::KeyName(name) = item { Some(name.as_str()) } else { None }
        })
    }

    /// The first public key.
    #[must_use]
    pub fn key_value(&self) -> Option<&PublicKey> {
        self.items
            .iter()
            .find_map(|item| if let KeyInfoItem::KeyValue(key) = item { Some(key) } else { None })
    }

    /// All certificates, in order.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.x509().filter_map(|item| {
            if let X509Item::Certificate(der) = item { Some(der.as_slice()) } else { None }
        })
    }

    /// All revocation lists, in order.
    pub fn crls(&self) -> impl Iterator<Item = &[u8]> {
        self.x509().filter_map(|item| {
            if let X509Item::Crl(der) = item { Some(der.as_slice()) } else { None }
        })
    }

    fn x509(&self) -> impl Iterator<Item = &X509Item> {
        let data = self.items.iter().filter_map(|item| {
            if let KeyInfoItem::X509(items) = item { Some(items) } else { None }
        });
        data.flatten()
    }

    /// Reads `ds:KeyInfo`.
    pub fn read(element: ElementRef<'_>) -> Result<Self, MessageRejection> {
        let mut fields = Fields::of(element, &["Id"])?;
        let items: Vec<_> = fields.rest().into_iter().map(item).collect::<Result<_, _>>()?;
        if items.is_empty() { Err(MessageRejection::Element) } else { Ok(Self { items }) }
    }

    /// Writes `ds:KeyInfo`.
    #[must_use]
    pub fn to_element(&self) -> Element {
        Tree::of(|tree| self.put(tree))
    }

    pub(crate) fn put(&self, to: &mut impl Sink) {
        to.open(uri::DS, "KeyInfo", &[]);
        self.items.iter().for_each(|item| item.put(to));
        to.close();
    }
}

impl KeyInfoItem {
    fn put(&self, to: &mut impl Sink) {
        match self {
            Self::KeyName(name) => to.value(uri::DS, "KeyName", name),
            Self::KeyValue(key) => put_key_value(key, to),
            Self::RetrievalMethod { uri, kind } => {
                let attributes = [("Type", kind.as_deref()), ("URI", uri.as_deref())];
                to.empty(uri::DS, "RetrievalMethod", &attributes);
            }
            Self::X509(items) => {
                to.open(uri::DS, "X509Data", &[]);
                items.iter().for_each(|item| item.put(to));
                to.close();
            }
            Self::Pgp { key_id, packet } => {
                to.open(uri::DS, "PGPData", &[]);
                key_id.iter().for_each(|bytes| to.binary(uri::DS, "PGPKeyID", bytes));
                packet.iter().for_each(|bytes| to.binary(uri::DS, "PGPKeyPacket", bytes));
                to.close();
            }
            Self::Spki(all) => {
                to.open(uri::DS, "SPKIData", &[]);
                all.iter().for_each(|bytes| to.binary(uri::DS, "SPKISexp", bytes));
                to.close();
            }
            Self::Foreign(element) => to.element(element),
        }
    }
}

impl X509Item {
    fn put(&self, to: &mut impl Sink) {
        match self {
            Self::Certificate(der) => to.binary(uri::DS, "X509Certificate", der),
            Self::Crl(der) => to.binary(uri::DS, "X509CRL", der),
            Self::IssuerSerial { issuer, serial } => {
                to.open(uri::DS, "X509IssuerSerial", &[]);
                to.value(uri::DS, "X509IssuerName", issuer);
                to.value(uri::DS, "X509SerialNumber", serial);
                to.close();
            }
            Self::Ski(bytes) => to.binary(uri::DS, "X509SKI", bytes),
            Self::SubjectName(name) => to.value(uri::DS, "X509SubjectName", name),
        }
    }
}

fn put_key_value(key: &PublicKey, to: &mut impl Sink) {
    to.open(uri::DS, "KeyValue", &[]);
    match key {
        PublicKey::Rsa { modulus, exponent } => {
            to.open(uri::DS, "RSAKeyValue", &[]);
            to.binary(uri::DS, "Modulus", modulus);
            to.binary(uri::DS, "Exponent", exponent);
        }
        PublicKey::Ec { curve, point } => {
            to.open(uri::DS11, "ECKeyValue", &[]);
            to.empty(uri::DS11, "NamedCurve", &[("URI", Some(curve.uri()))]);
            to.binary(uri::DS11, "PublicKey", point);
        }
    }
    to.close();
    to.close();
}

fn item(element: ElementRef<'_>) -> Result<KeyInfoItem, MessageRejection> {
    let foreign = || Ok(KeyInfoItem::Foreign(Element::copy_of(element)));
    match element.name() {
        (uri::DS, "KeyName") => Ok(KeyInfoItem::KeyName(fields::characters(element)?.to_owned())),
        (uri::DS, "KeyValue") => match key_value(element)? {
            Some(key) => Ok(KeyInfoItem::KeyValue(key)),
            None => foreign(),
        },
        (uri::DS, "RetrievalMethod") => {
            let fields = Fields::of(element, &["URI", "Type"])?;
            let owned = |name| fields.attribute(name).map(str::to_owned);
            let item = KeyInfoItem::RetrievalMethod { uri: owned("URI"), kind: owned("Type") };
            fields.end().map(|()| item)
        }
        (uri::DS, "X509Data") => {
            let items: Vec<_> = element.children().map(x509_item).collect::<Result<_, _>>()?;
            if items.is_empty() {
                Err(MessageRejection::Element)
            } else {
                Ok(KeyInfoItem::X509(items))
            }
        }
        (uri::DS, "PGPData") => pgp(element),
        (uri::DS, "SPKIData") => {
            let expressions = element.children().map(|e| match e.name() {
                (uri::DS, "SPKISexp") => fields::bytes(e),
                _ => Err(MessageRejection::Element),
            });
            Ok(KeyInfoItem::Spki(expressions.collect::<Result<_, _>>()?))
        }
        (uri::DS, "MgmtData") => foreign(),
        (uri::DS, _) => Err(MessageRejection::Element),
        _ => foreign(),
    }
}

fn pgp(element: ElementRef<'_>) -> Result<KeyInfoItem, MessageRejection> {
    let mut fields = Fields::of(element, &[])?;
    let key_id = fields.optional_of(uri::DS, "PGPKeyID").map(fields::bytes).transpose()?;
    let packet = fields.optional_of(uri::DS, "PGPKeyPacket").map(fields::bytes).transpose()?;
    fields.end()?;
    if key_id.is_none() && packet.is_none() {
        return Err(MessageRejection::Element);
    }
    Ok(KeyInfoItem::Pgp { key_id, packet })
}

fn key_value(element: ElementRef<'_>) -> Result<Option<PublicKey>, MessageRejection> {
    let mut fields = Fields::of(element, &[])?;
    if let Some(rsa) = fields.optional_of(uri::DS, "RSAKeyValue") {
        fields.end()?;
        let mut parts = Fields::of(rsa, &[])?;
        let mut part = |local| {
            let part = parts.optional_of(uri::DS, local).ok_or(MessageRejection::Element)?;
            fields::bytes(part)
        };
        let (modulus, exponent) = (part("Modulus")?, part("Exponent")?);
        parts.end()?;
        return Ok(Some(PublicKey::rsa(&modulus, &exponent)));
    }
    let Some(ec) = fields.optional_of(uri::DS11, "ECKeyValue") else { return Ok(None) };
    fields.end()?;
    let mut parts = Fields::of(ec, &["Id"])?;
    let Some(curve) = parts.optional_of(uri::DS11, "NamedCurve") else { return Ok(None) };
    let point = parts.optional_of(uri::DS11, "PublicKey").ok_or(MessageRejection::Element)?;
    parts.end()?;
    let Some(curve) = curve.attribute("URI").and_then(Curve::from_uri) else { return Ok(None) };
    Ok(Some(PublicKey::Ec { curve, point: fields::bytes(point)? }))
}

fn x509_item(element: ElementRef<'_>) -> Result<X509Item, MessageRejection> {
    let bytes = || fields::bytes(element);
    match element.name() {
        (uri::DS, "X509Certificate") => bytes().map(X509Item::Certificate),
        (uri::DS, "X509CRL") => bytes().map(X509Item::Crl),
        (uri::DS, "X509SKI") => bytes().map(X509Item::Ski),
        (uri::DS, "X509SubjectName") => {
            Ok(X509Item::SubjectName(fields::characters(element)?.to_owned()))
        }
        (uri::DS, "X509IssuerSerial") => {
            let mut parts = Fields::of(element, &[])?;
            let mut part = |local| {
                let part = parts.optional_of(uri::DS, local).ok_or(MessageRejection::Element)?;
                fields::characters(part).map(str::to_owned)
            };
            let (issuer, serial) = (part("X509IssuerName")?, part("X509SerialNumber")?);
            parts.end()?;
            let serial = serial.trim().to_owned();
            if serial.is_empty() || serial.len() > 64 || !serial.bytes().all(|b| b.is_ascii_digit())
            {
                return Err(MessageRejection::Value);
            }
            Ok(X509Item::IssuerSerial { issuer, serial })
        }
        _ => Err(MessageRejection::Element),
    }
}
