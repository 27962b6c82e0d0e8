//! Issuing CRLs of every kind that is understood: full and delta, scoped, indirect.

use der::{
    Encode,
    asn1::{BitString, Ia5String, ObjectIdentifier as Oid, OctetString, Uint},
    oid::AssociatedOid,
};
use rcgen::SigningKey as _;
use x509_cert::{
    Version,
    crl::{CertificateList, RevokedCert, TbsCertList},
    ext::{
        Extension,
        pkix::{
            AuthorityKeyIdentifier, BaseCrlNumber, CrlNumber, CrlReason, IssuingDistributionPoint,
            crl::dp::{ReasonFlags, Reasons},
            name::{DistributionPointName, GeneralName},
        },
    },
    name::Name,
    serial_number::SerialNumber,
    spki::AlgorithmIdentifierOwned,
};

use super::{
    Revocation, RevocationReason,
    list::{CERTIFICATE_ISSUER, ISSUING_POINT},
};
use crate::{
    Ca, IssueError, Validity,
    cert::{Cert, time},
};

const ECDSA_WITH_SHA256: Oid = Oid::new_unwrap("1.2.840.10045.4.3.2");

/// Which certificates a CRL speaks about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrlSubjects {
    /// All.
    #[default]
    All,
    /// Those of end entities.
    Users,
    /// Those of CAs.
    Cas,
}

/// Which CRL is to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlPlan {
    /// Its number, which grows from one to the next of a series.
    pub number: u64,
    /// From this update to the next.
    pub validity: Validity,
    /// For a delta: the number of the full CRL it adds to.
    pub base: Option<u64>,
    /// The address of its distribution point, if it is for one.
    pub point: Option<String>,
    /// Which certificates it speaks about.
    pub subjects: CrlSubjects,
    /// The only reasons it speaks about; empty for all.
    pub reasons: Vec<RevocationReason>,
    /// It names certificates of other issuers too.
    pub indirect: bool,
}

impl CrlPlan {
    /// A full CRL of everything this CA issued.
    #[must_use]
    pub const fn full(number: u64, validity: Validity) -> Self {
        Self {
            number,
            validity,
            base: None,
            point: None,
            subjects: CrlSubjects::All,
            reasons: Vec::new(),
            indirect: false,
        }
    }

    /// What changed since the full CRL `base`.
    #[must_use]
    pub const fn delta(number: u64, base: u64, validity: Validity) -> Self {
        let mut plan = Self::full(number, validity);
        plan.base = Some(base);
        plan
    }

    fn scope(&self) -> der::Result<Option<IssuingDistributionPoint>> {
        let plain = self.point.is_none()
            && self.subjects == CrlSubjects::All
            && self.reasons.is_empty()
            && !self.indirect;
        if plain {
            return Ok(None);
        }
        let point = match &self.point {
            Some(url) => {
                let url = GeneralName::UniformResourceIdentifier(Ia5String::new(url)?);
                Some(DistributionPointName::FullName(vec![url]))
            }
            None => None,
        };
        let flags: Vec<Reasons> = self.reasons.iter().filter_map(|one| one.flag()).collect();
        let reasons = flags.iter().fold(ReasonFlags::default(), |all, one| all | *one);
        Ok(Some(IssuingDistributionPoint {
            distribution_point: point,
            only_contains_user_certs: self.subjects == CrlSubjects::Users,
            only_contains_ca_certs: self.subjects == CrlSubjects::Cas,
            only_some_reasons: (!flags.is_empty()).then_some(reasons),
            indirect_crl: self.indirect,
            only_contains_attribute_certs: false,
        }))
    }
}

/// A certificate on a CRL, perhaps of another issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlEntry {
    /// Which, when, why.
    pub revocation: Revocation,
    /// The certificate (DER) of the CA that issued it, on an indirect CRL; `None`: this CA.
    pub issuer: Option<Vec<u8>>,
}

impl Ca {
    /// Issues the CRL of `plan`, DER.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_crl_by(
        &self,
        plan: &CrlPlan,
        entries: &[CrlEntry],
    ) -> Result<Vec<u8>, IssueError> {
        let own = Cert::parse(self.certificate()).map_err(IssueError::CaCertificate)?;
        let list = self.tbs(plan, &own, entries)?;
        let algorithm = list.signature.clone();
        let tbs = list.to_der().map_err(IssueError::Encode)?;
        let signature = self.issuer().key().sign(&tbs).map_err(IssueError::building)?;
        let signature = BitString::from_bytes(&signature).map_err(IssueError::Encode)?;
        let list =
            CertificateList { tbs_cert_list: list, signature_algorithm: algorithm, signature };
        list.to_der().map_err(IssueError::Encode)
    }

    fn tbs(
        &self,
        plan: &CrlPlan,
        own: &Cert,
        entries: &[CrlEntry],
    ) -> Result<TbsCertList, IssueError> {
        let mut revoked = Vec::new();
        let mut last: Option<&[u8]> = None;
        for entry in entries {
            let of = entry.issuer.as_deref();
            let said = if of == last { None } else { Some(of.unwrap_or(self.certificate())) };
            last = of;
            revoked.push(revoked_cert(entry, said)?);
        }
        let encode = IssueError::Encode;
        Ok(TbsCertList {
            version: Version::V2,
            signature: AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None },
            issuer: own.subject_name().clone(),
            this_update: time(plan.validity.not_before).map_err(encode)?,
            next_update: Some(time(plan.validity.not_after).map_err(encode)?),
            revoked_certificates: (!revoked.is_empty()).then_some(revoked),
            crl_extensions: Some(extensions(plan, own).map_err(encode)?),
        })
    }
}

fn extensions(plan: &CrlPlan, own: &Cert) -> der::Result<Vec<Extension>> {
    let mut all = Vec::new();
    if let Some(key) = &own.ext().subject_key {
        let identifier = AuthorityKeyIdentifier {
            key_identifier: Some(OctetString::new(key.as_slice())?),
            ..AuthorityKeyIdentifier::default()
        };
        all.push(extension(AuthorityKeyIdentifier::OID, false, &identifier)?);
    }
    let number = CrlNumber(Uint::new(&plan.number.to_be_bytes())?);
    all.push(extension(CrlNumber::OID, false, &number)?);
    if let Some(base) = plan.base {
        let base = BaseCrlNumber(Uint::new(&base.to_be_bytes())?);
        all.push(extension(BaseCrlNumber::OID, true, &base)?);
    }
    if let Some(scope) = plan.scope()? {
        all.push(extension(ISSUING_POINT, true, &scope)?);
    }
    Ok(all)
}

fn extension(id: Oid, critical: bool, value: &impl Encode) -> der::Result<Extension> {
    Ok(Extension { extn_id: id, critical, extn_value: OctetString::new(value.to_der()?)? })
}

fn revoked_cert(entry: &CrlEntry, issuer: Option<&[u8]>) -> Result<RevokedCert, IssueError> {
    let Revocation { serial, at, reason } = &entry.revocation;
    let mut extensions = Vec::new();
    let encode = IssueError::Encode;
    if *reason != RevocationReason::Unspecified {
        extensions.push(extension(CrlReason::OID, false, &reason.code()).map_err(encode)?);
    }
    if let Some(issuer) = issuer {
        let issuer = Cert::parse(issuer).map_err(IssueError::CaCertificate)?;
        let name: Name = issuer.subject_name().clone();
        let names = vec![GeneralName::DirectoryName(name)];
        extensions.push(extension(CERTIFICATE_ISSUER, true, &names).map_err(encode)?);
    }
    Ok(RevokedCert {
        serial_number: SerialNumber::new(serial).map_err(encode)?,
        revocation_date: time(*at).map_err(encode)?,
        crl_entry_extensions: (!extensions.is_empty()).then_some(extensions),
    })
}
