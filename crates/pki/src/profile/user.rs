//! The certificate of a user's key.

use std::net::IpAddr;

use der::{
    Encode as _,
    asn1::{Ia5String, ObjectIdentifier},
    oid::AssociatedOid as _,
};
use rcgen::{CertificateParams, CustomExtension, DnType, KeyUsagePurpose, SanType};
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityInfoAccessSyntax, CrlDistributionPoints,
    crl::dp::DistributionPoint,
    name::{DistributionPointName, GeneralName},
};

use super::ia5;
use crate::{IssueError, ca::KeyKind};

const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");

/// A name under which a key is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserName {
    /// A mail address.
    Email(String),
    /// A host.
    Dns(String),
    /// A URI.
    Uri(String),
    /// An address.
    Ip(IpAddr),
}

/// What a key may be used for (XKMS: Signature, Encryption, Exchange).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUses {
    /// Signing.
    pub signature: bool,
    /// Encrypting data or keys; not for elliptic curves, which can only agree on keys.
    pub encryption: bool,
    /// Agreeing on keys.
    pub exchange: bool,
}

/// What is in the certificate of a user's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserCert {
    /// Common name.
    pub name: String,
    /// Organisation.
    pub organization: Option<String>,
    /// Further names.
    pub names: Vec<UserName>,
    /// What the key is for: at least one use that fits its kind.
    pub uses: KeyUses,
    /// Where the CRL is.
    pub crl_url: Option<String>,
    /// Where the OCSP responder is.
    pub ocsp_url: Option<String>,
}

impl UserCert {
    pub(super) fn fill(
        &self,
        params: &mut CertificateParams,
        key: KeyKind,
    ) -> Result<(), IssueError> {
        if let Some(organization) = &self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, self.name.as_str());
        params.key_usages = usages(self.uses, key)?;
        for name in &self.names {
            params.subject_alt_names.push(match name {
                UserName::Email(text) => SanType::Rfc822Name(ia5(text)?),
                UserName::Dns(text) => SanType::DnsName(ia5(text)?),
                UserName::Uri(text) => SanType::URI(ia5(text)?),
                UserName::Ip(address) => SanType::IpAddress(*address),
            });
        }
        params.custom_extensions = self.addresses().map_err(IssueError::Encode)?;
        Ok(())
    }

    fn addresses(&self) -> der::Result<Vec<CustomExtension>> {
        let mut all = Vec::new();
        let mut add = |id: ObjectIdentifier, value: Vec<u8>| {
            let id: Vec<u64> = id.arcs().map(u64::from).collect();
            all.push(CustomExtension::from_oid_content(&id, value));
        };
        if let Some(url) = &self.crl_url {
            let name = GeneralName::UniformResourceIdentifier(Ia5String::new(url)?);
            let point = DistributionPoint {
                distribution_point: Some(DistributionPointName::FullName(vec![name])),
                reasons: None,
                crl_issuer: None,
            };
            add(CrlDistributionPoints::OID, CrlDistributionPoints(vec![point]).to_der()?);
        }
        if let Some(url) = &self.ocsp_url {
            let location = GeneralName::UniformResourceIdentifier(Ia5String::new(url)?);
            let access = AccessDescription { access_method: OCSP, access_location: location };
            add(AuthorityInfoAccessSyntax::OID, AuthorityInfoAccessSyntax(vec![access]).to_der()?);
        }
        Ok(all)
    }
}

fn usages(uses: KeyUses, key: KeyKind) -> Result<Vec<KeyUsagePurpose>, IssueError> {
    let mut usages = Vec::new();
    if uses.signature {
        usages.push(KeyUsagePurpose::DigitalSignature);
    }
    match key {
        KeyKind::Rsa if uses.encryption || uses.exchange => {
            usages.push(KeyUsagePurpose::KeyEncipherment);
            if uses.encryption {
                usages.push(KeyUsagePurpose::DataEncipherment);
            }
        }
        KeyKind::Ec if uses.exchange => usages.push(KeyUsagePurpose::KeyAgreement),
        KeyKind::Rsa | KeyKind::Ec => {}
    }
    if usages.is_empty() { Err(IssueError::KeyUses) } else { Ok(usages) }
}
