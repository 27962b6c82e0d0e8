//! Certificates of any shape, signed with few keys, for corpora of thousands.

use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::support::NOW;

/// Keys made once: 24, for making one takes longer than signing.
pub(crate) static KEYS: LazyLock<Vec<KeyPair>> =
    LazyLock::new(|| (0..24).map(|_| KeyPair::generate().unwrap()).collect());

/// A certificate to be made.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) subject: String,
    pub(crate) key: usize,
    pub(crate) issuer: String,
    pub(crate) issuer_key: usize,
    pub(crate) ca: bool,
    pub(crate) path_length: Option<u8>,
    pub(crate) usages: Option<Vec<KeyUsagePurpose>>,
    pub(crate) from: OffsetDateTime,
    pub(crate) until: OffsetDateTime,
    pub(crate) serial: u64,
    pub(crate) extensions: Vec<CustomExtension>,
    pub(crate) edit: fn(&mut CertificateParams),
}

impl Plan {
    pub(crate) fn new(subject: &str, key: usize, issuer: &str, issuer_key: usize) -> Self {
        Self {
            subject: subject.to_owned(),
            key,
            issuer: issuer.to_owned(),
            issuer_key,
            ca: false,
            path_length: None,
            usages: Some(vec![KeyUsagePurpose::DigitalSignature]),
            from: NOW - Duration::days(10),
            until: NOW + Duration::days(300),
            serial: 1,
            extensions: Vec::new(),
            edit: |_| {},
        }
    }

    pub(crate) fn ca(subject: &str, key: usize, issuer: &str, issuer_key: usize) -> Self {
        let usages = Some(vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
        Self { ca: true, usages, ..Self::new(subject, key, issuer, issuer_key) }
    }

    pub(crate) fn root(subject: &str, key: usize) -> Self {
        Self::ca(subject, key, subject, key)
    }

    pub(crate) fn with(mut self, oid: &[u64], critical: bool, value: Vec<u8>) -> Self {
        let mut extension = CustomExtension::from_oid_content(oid, value);
        extension.set_criticality(critical);
        self.extensions.push(extension);
        self
    }

    pub(crate) fn serial(mut self, serial: u64) -> Self {
        self.serial = serial;
        self
    }

    pub(crate) fn make(&self) -> Vec<u8> {
        let mut params = params(&self.subject);
        params.is_ca = match (self.ca, self.path_length) {
            (false, _) => IsCa::ExplicitNoCa,
            (true, None) => IsCa::Ca(BasicConstraints::Unconstrained),
            (true, Some(length)) => IsCa::Ca(BasicConstraints::Constrained(length)),
        };
        params.key_usages = self.usages.clone().unwrap_or_default();
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (self.from, self.until);
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.custom_extensions = self.extensions.clone();
        (self.edit)(&mut params);
        let mut above = params_of_issuer(&self.issuer);
        above.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer::from_params(&above, &KEYS[self.issuer_key]);
        params.signed_by(&KEYS[self.key], &issuer).unwrap().der().to_vec()
    }
}

fn params_of_issuer(name: &str) -> CertificateParams {
    params(name)
}

/// `name` is a common name, below an organisation if it has one before a slash.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let (organization, common) = name.split_once('/').unwrap_or(("", name));
    if !organization.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common);
    params
}

/// DER of one element.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=127 => out.push(short as u8),
        long @ 128..=255 => out.extend([0x81, long as u8]),
        long => out.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn seq(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// The policy 1.2.3.`number`, or anyPolicy for 0.
pub(crate) fn policy_oid(number: u8) -> Vec<u8> {
    if number == 0 { tlv(6, &[0x55, 0x1d, 0x20, 0]) } else { tlv(6, &[0x2a, 3, number]) }
}

pub(crate) const POLICIES: [u64; 4] = [2, 5, 29, 32];
pub(crate) const MAPPINGS: [u64; 4] = [2, 5, 29, 33];
pub(crate) const POLICY_CONSTRAINTS: [u64; 4] = [2, 5, 29, 36];
pub(crate) const INHIBIT_ANY: [u64; 4] = [2, 5, 29, 54];
pub(crate) const NAME_CONSTRAINTS: [u64; 4] = [2, 5, 29, 30];
pub(crate) const ALTERNATIVE: [u64; 4] = [2, 5, 29, 17];
pub(crate) const EXTENDED_USAGE: [u64; 4] = [2, 5, 29, 37];

pub(crate) fn policies(numbers: &[u8]) -> Vec<u8> {
    let one = |number: &u8| seq(&[policy_oid(*number)]);
    seq(&numbers.iter().map(one).collect::<Vec<_>>())
}

pub(crate) fn mappings(pairs: &[(u8, u8)]) -> Vec<u8> {
    let one = |(from, to): &(u8, u8)| seq(&[policy_oid(*from), policy_oid(*to)]);
    seq(&pairs.iter().map(one).collect::<Vec<_>>())
}

/// requireExplicitPolicy, inhibitPolicyMapping.
pub(crate) fn policy_constraints(require: Option<u8>, inhibit: Option<u8>) -> Vec<u8> {
    let part = |tag, value: Option<u8>| value.map(|value| tlv(tag, &[value])).unwrap_or_default();
    seq(&[part(0x80, require), part(0x81, inhibit)])
}

/// A general name.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    Dns(&'static str),
    Email(&'static str),
    Uri(&'static str),
    /// An address, or network and mask.
    Ip(&'static [u8]),
    /// An organisation.
    Organization(&'static str),
}

impl Name {
    pub(crate) fn der(&self) -> Vec<u8> {
        match self {
            Self::Email(text) => tlv(0x81, text.as_bytes()),
            Self::Dns(text) => tlv(0x82, text.as_bytes()),
            Self::Uri(text) => tlv(0x86, text.as_bytes()),
            Self::Ip(bytes) => tlv(0x87, bytes),
            Self::Organization(text) => {
                let value = tlv(0x0c, text.as_bytes());
                let attribute = seq(&[tlv(6, &[0x55, 4, 10]), value]);
                tlv(0xa4, &seq(&[tlv(0x31, &attribute)]))
            }
        }
    }
}

pub(crate) fn names(names: &[Name]) -> Vec<u8> {
    seq(&names.iter().map(Name::der).collect::<Vec<_>>())
}

pub(crate) fn name_constraints(permitted: &[Name], excluded: &[Name]) -> Vec<u8> {
    let trees = |tag, names: &[Name]| {
        let trees: Vec<_> = names.iter().map(|name| seq(&[name.der()])).collect();
        if trees.is_empty() { Vec::new() } else { tlv(tag, &trees.concat()) }
    };
    seq(&[trees(0xa0, permitted), trees(0xa1, excluded)])
}
