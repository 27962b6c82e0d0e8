//! What a certificate says, for callers that show it or find it again. Nothing here was verified:
//! what may be believed comes from [`crate::validate`] and [`crate::verify_chain`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use time::OffsetDateTime;
use x509_cert::ext::pkix::name::GeneralName;

use crate::{CertRejection, KeyUses, UserName, cert::Cert};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFacts {
    /// Serial number, big-endian as in the certificate.
    pub serial: Vec<u8>,
    /// Issuer, RFC 4514 text.
    pub issuer: String,
    /// Subject, RFC 4514 text.
    pub subject: String,
    /// The subject's first common name.
    pub common_name: Option<String>,
    /// The key: SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// First moment.
    pub not_before: OffsetDateTime,
    /// Last moment, inside.
    pub not_after: OffsetDateTime,
    /// What its key usage allows, in the words of XKMS; everything if it says nothing.
    pub uses: KeyUses,
    /// Alternative names: mail, DNS, URI, IP.
    pub names: Vec<UserName>,
    /// Whether it says that its subject is a CA.
    pub ca: bool,
}

impl CertFacts {
    /// Reads a certificate, DER.
    ///
    /// # Errors
    /// [`CertRejection`] if it cannot be read.
    pub fn read(der: &[u8]) -> Result<Self, CertRejection> {
        let cert = Cert::parse(der)?;
        Ok(Self {
            serial: cert.serial().to_vec(),
            issuer: cert.issuer_text(),
            subject: cert.subject_text(),
            common_name: cert.common_names().first().cloned(),
            spki: cert.spki().to_vec(),
            not_before: cert.not_before(),
            not_after: cert.not_after(),
            uses: uses(&cert),
            names: cert.alternative_names().iter().filter_map(name).collect(),
            ca: cert.is_ca(),
        })
    }
}

fn uses(cert: &Cert) -> KeyUses {
    let Some(usage) = cert.ext().key_usage else {
        return KeyUses { signature: true, encryption: true, exchange: true };
    };
    KeyUses {
        signature: usage.digital_signature() || usage.non_repudiation(),
        encryption: usage.data_encipherment(),
        exchange: usage.key_agreement() || usage.key_encipherment(),
    }
}

fn name(name: &GeneralName) -> Option<UserName> {
    match name {
        GeneralName::Rfc822Name(text) => Some(UserName::Email(text.to_string())),
        GeneralName::DnsName(text) => Some(UserName::Dns(text.to_string())),
        GeneralName::UniformResourceIdentifier(text) => Some(UserName::Uri(text.to_string())),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = <[u8; 4]>::try_from(octets).map(|o| IpAddr::V4(Ipv4Addr::from(o)));
            let v6 = || <[u8; 16]>::try_from(octets).map(|o| IpAddr::V6(Ipv6Addr::from(o)));
            v4.or_else(|_| v6()).ok().map(UserName::Ip)
        }
        GeneralName::OtherName(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::RegisteredId(_) => None,
    }
}
