//! The extensions of a certificate that path validation and revocation look at, parsed once.

use der::{
    Decode,
    asn1::{Ia5StringRef, ObjectIdentifier as Oid},
    oid::AssociatedOid,
};
use x509_cert::{
    TbsCertificate,
    ext::pkix::{
        AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies, CrlDistributionPoints,
        ExtendedKeyUsage, FreshestCrl, InhibitAnyPolicy, KeyUsage, NameConstraints,
        PolicyConstraints, PolicyMappings, SubjectAltName, SubjectKeyIdentifier,
        crl::dp::DistributionPoint, name::GeneralName,
    },
};

use super::Cert;
use crate::{dn, verify::CertRejection};

const COMMON_NAME: Oid = Oid::new_unwrap("2.5.4.3");
const EMAIL: Oid = Oid::new_unwrap("1.2.840.113549.1.9.1");
const OCSP_NO_CHECK: Oid = Oid::new_unwrap("1.3.6.1.5.5.7.48.1.5");

/// Extensions that may be critical: those that are evaluated.
const KNOWN_CRITICAL: [Oid; 10] = [
    BasicConstraints::OID,
    KeyUsage::OID,
    ExtendedKeyUsage::OID,
    SubjectAltName::OID,
    CertificatePolicies::OID,
    PolicyMappings::OID,
    PolicyConstraints::OID,
    InhibitAnyPolicy::OID,
    NameConstraints::OID,
    CrlDistributionPoints::OID,
];

/// What the extensions say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions {
    pub(crate) unknown_critical: bool,
    pub(crate) ca: bool,
    pub(crate) path_length: Option<u8>,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) extended_usage: Option<Vec<Oid>>,
    pub(crate) alternative_names: Vec<GeneralName>,
    pub(crate) common_names: Vec<String>,
    pub(crate) emails: Vec<String>,
    pub(crate) subject_key: Option<Vec<u8>>,
    pub(crate) authority_key: Option<Vec<u8>>,
    pub(crate) policies: Option<Vec<Oid>>,
    pub(crate) mappings: Vec<(Oid, Oid)>,
    pub(crate) require_policy: Option<u32>,
    pub(crate) inhibit_mapping: Option<u32>,
    pub(crate) inhibit_any: Option<u32>,
    pub(crate) name_constraints: Option<NameConstraints>,
    pub(crate) crl_points: Vec<DistributionPoint>,
    pub(crate) freshest: Vec<DistributionPoint>,
    pub(crate) ocsp_no_check: bool,
}

impl Extensions {
    pub(super) fn read(body: &TbsCertificate) -> Result<Self, CertRejection> {
        let mut all = Self::default();
        let mut seen = Vec::new();
        for extension in body.extensions().map(Vec::as_slice).unwrap_or_default() {
            let id = extension.extn_id;
            if seen.contains(&id) {
                return Err(CertRejection::ExtensionTwice);
            }
            seen.push(id);
            all.unknown_critical |= extension.critical && !KNOWN_CRITICAL.contains(&id);
            let value = extension.extn_value.as_bytes();
            all.take(id, value).map_err(|_| CertRejection::Malformed)?;
        }
        for attribute in body.subject().iter() {
            if attribute.oid == COMMON_NAME {
                all.common_names.extend(dn::text(&attribute.value));
            } else if attribute.oid == EMAIL {
                let text = attribute.value.decode_as::<Ia5StringRef<'_>>();
                all.emails.extend(text.ok().map(|text| text.as_str().to_owned()));
            }
        }
        Ok(all)
    }

    fn take(&mut self, id: Oid, value: &[u8]) -> der::Result<()> {
        match id {
            BasicConstraints::OID => {
                let constraints = BasicConstraints::from_der(value)?;
                (self.ca, self.path_length) = (constraints.ca, constraints.path_len_constraint);
            }
            KeyUsage::OID => self.key_usage = Some(KeyUsage::from_der(value)?),
            ExtendedKeyUsage::OID => {
                self.extended_usage = Some(ExtendedKeyUsage::from_der(value)?.0);
            }
            SubjectAltName::OID => self.alternative_names = SubjectAltName::from_der(value)?.0,
            SubjectKeyIdentifier::OID => {
                self.subject_key =
                    Some(SubjectKeyIdentifier::from_der(value)?.0.into_bytes().into());
            }
            AuthorityKeyIdentifier::OID => {
                let identifier = AuthorityKeyIdentifier::from_der(value)?.key_identifier;
                self.authority_key = identifier.map(|bytes| bytes.as_bytes().to_vec());
            }
            NameConstraints::OID => self.name_constraints = Some(NameConstraints::from_der(value)?),
            CrlDistributionPoints::OID => {
                self.crl_points = CrlDistributionPoints::from_der(value)?.0;
            }
            FreshestCrl::OID => self.freshest = FreshestCrl::from_der(value)?.0,
            OCSP_NO_CHECK => self.ocsp_no_check = true,
            _ => self.take_policy(id, value)?,
        }
        Ok(())
    }

    fn take_policy(&mut self, id: Oid, value: &[u8]) -> der::Result<()> {
        match id {
            CertificatePolicies::OID => {
                let policies = CertificatePolicies::from_der(value)?.0;
                self.policies = Some(policies.iter().map(|one| one.policy_identifier).collect());
            }
            PolicyMappings::OID => {
                let mappings = PolicyMappings::from_der(value)?.0;
                self.mappings = mappings
                    .iter()
                    .map(|one| (one.issuer_domain_policy, one.subject_domain_policy))
                    .collect();
            }
            PolicyConstraints::OID => {
                let constraints = PolicyConstraints::from_der(value)?;
                self.require_policy = constraints.require_explicit_policy;
                self.inhibit_mapping = constraints.inhibit_policy_mapping;
            }
            InhibitAnyPolicy::OID => self.inhibit_any = Some(InhibitAnyPolicy::from_der(value)?.0),
            _ => {}
        }
        Ok(())
    }
}

impl Cert {
    pub(crate) fn policies(&self) -> Option<&[Oid]> {
        self.ext().policies.as_deref()
    }

    pub(crate) fn mappings(&self) -> &[(Oid, Oid)] {
        &self.ext().mappings
    }

    /// requireExplicitPolicy and inhibitPolicyMapping.
    pub(crate) const fn policy_constraints(&self) -> (Option<u32>, Option<u32>) {
        (self.ext().require_policy, self.ext().inhibit_mapping)
    }

    pub(crate) const fn inhibit_any(&self) -> Option<u32> {
        self.ext().inhibit_any
    }

    pub(crate) fn alternative_names(&self) -> &[GeneralName] {
        &self.ext().alternative_names
    }

    pub(crate) fn subject_emails(&self) -> &[String] {
        &self.ext().emails
    }

    pub(crate) fn common_names(&self) -> &[String] {
        &self.ext().common_names
    }
}
